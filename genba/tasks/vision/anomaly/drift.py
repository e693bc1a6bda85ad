"""What watching compares new images with: plain statistics of the picture, and the score."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, View
from genba.learn.drift import null_quantile, reference
from genba.tasks.vision.anomaly import gallery, schema

FALSE_ALARM_RATE: Final = 0.001
_WINDOW: Final = 1_000  # images
_SMALLEST: Final = 50  # images, below which a window says nothing
_FEWEST_WINDOWS: Final = 4  # that the reference should hold
_MOST_IMAGES: Final = 1_000  # per split
_BLOCK_MS: Final = 3_600_000  # a lamp that fades is no chance of one hour
_BLOCK_ROWS: Final = 8  # where there is no clock


def drift_reference(predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
    """Return the reference of every statistic of the picture and of the score.

    All of it is taken from good parts of the calibration split, which the model has not learned
    from; where they are fewer than a window, the pictures of training parts are added, whose
    statistics do not depend on the model.
    """
    found = gallery.survey(view)
    look, score, time = _seen(predict, view, "calibrate", found.calibration, settings)
    pictures = (look, time)
    if len(look) < _FEWEST_WINDOWS * _SMALLEST:
        more = _seen(predict, view, "train", found.good, settings)
        pictures = (np.concatenate([more[0], look]), np.concatenate([more[2], time]))
    columns = {
        name: _column(pictures[0][:, i], pictures[1], view, ("look", i, "input"))
        for i, name in enumerate(schema.LOOKS)
    }
    if len(score):
        columns["score"] = _column(score, time, view, ("score", 0, "output"))
    return {
        "window": _window(len(pictures[0])),
        "false_alarm_rate": FALSE_ALARM_RATE,
        "columns": columns,
    }


def _column(
    values: npt.NDArray[np.float64],
    time: npt.NDArray[np.int64],
    view: View,
    where: tuple[str, int, str],
) -> dict[str, Any]:
    tensor, index, kind = where
    window = _window(len(values))
    block = _BLOCK_MS if view.has_clock else _BLOCK_ROWS
    return {
        "tensor": tensor,
        "index": index,
        "kind": kind,
        **reference(values),
        "null_q": null_quantile(values, time, window, FALSE_ALARM_RATE, block=block),
        "missing": 0.0,
    }


def _window(images: int) -> int:
    return max(_SMALLEST, min(_WINDOW, images // _FEWEST_WINDOWS))


def _seen(
    predict: Predict, view: View, split: str, rows: npt.NDArray[np.int64], settings: JsonObject
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    look, score = [np.zeros((0, len(schema.LOOKS)))], [np.zeros(0)]
    time = [np.zeros(0, dtype=np.int64)]
    for columns in schema.chosen(view, split, rows, _MOST_IMAGES):
        samples = schema.samples(columns, settings)
        made = predict(samples.tensors)
        look.append(np.asarray(made["look"], dtype=np.float64))
        score.append(np.asarray(made["score"], dtype=np.float64))
        time.append(samples.time)
    return np.concatenate(look), np.concatenate(score), np.concatenate(time)
