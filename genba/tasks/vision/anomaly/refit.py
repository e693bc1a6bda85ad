"""The threshold again, as an exported form sees the calibration parts.

A form in fewer bits scores good parts a little higher or lower. With enough calibration parts the
threshold is the split-conformal quantile of the scores of that form, with the same promise as
before; with fewer it is moved by the median ratio of its scores to those of the model.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Predict, View
from genba.core.task import Model
from genba.tasks.vision.anomaly import gallery
from genba.tasks.vision.anomaly.calibrate import choose, needed, thinned
from genba.tasks.vision.anomaly.model import Detector

Floats = npt.NDArray[np.float64]

_MOST_IMAGES = 2_000
_FEWEST = 8  # parts, below which their scores say nothing


def refit(model: Model, predict: Predict, view: View) -> Model | None:
    """Return the model with the threshold of an exported form; None with too few parts.

    Args:
        model: As it was trained.
        predict: The exported form.
        view: The dataset; only its calibration split is read.
    """
    rows = gallery.survey(view).calibration
    found = _scores(model, predict, view, rows)
    if len(found) < _FEWEST:
        return None
    old = float(model.settings["limit"])
    rate = float(model.settings["overkill"]["value"])
    calibration = dict(model.settings["calibration"])
    if len(found) >= needed(rate):
        bar = choose(found * old, np.zeros(0), rate)
        new = bar.value
        calibration |= {"quantiles": thinned(bar.scores / new), "units": len(bar.scores)}
    else:
        before = _scores(model, Detector(model), view, rows)
        new = old * float(np.median(found / np.maximum(before, 1e-9)))
    settings = {
        **model.settings,
        "limit": new,
        "calibration": {**calibration, "refitted": new / old},
    }
    return replace(model, settings=settings)


def _scores(model: Model, predict: Predict, view: View, rows: npt.NDArray[np.int64]) -> Floats:
    """Return the scores of the good parts of the calibration split, 1 = at the old threshold."""
    found = [np.zeros(0)]
    for images in gallery.read(view, "calibrate", rows, _MOST_IMAGES, model.settings):
        ones = np.ones(len(images), dtype=np.float32)
        made = predict({"image": images, "threshold": ones})
        found.append(np.asarray(made["score"], dtype=np.float64))
    return np.concatenate(found)
