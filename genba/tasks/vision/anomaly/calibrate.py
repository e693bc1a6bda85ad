"""The threshold, from good parts the model has not seen, and what it promises.

With enough calibration parts it is the split-conformal quantile: a new good part is rejected with
at most the stated probability. With fewer, training parts scored by cross-validation are added;
with fewer still, nothing can be guaranteed, and the upper prediction limit of a log-normal score
is taken, or the highest score that was seen. The settings say which of the three it is.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, View
from genba.core.task import Model
from genba.core.values import Measure
from genba.learn.conformal import quantile_threshold
from genba.learn.proportion import wilson
from genba.learn.ranking import auroc
from genba.runs.effort import Effort
from genba.tasks.vision.anomaly import explain, gallery, schema
from genba.tasks.vision.anomaly.model import Detector

Floats = npt.NDArray[np.float64]
Scored = tuple[Floats, npt.NDArray[np.float32]]  # scores, and the maps of some of the images

_MOST_IMAGES: Final = 2_000
_MOST_CHARTS: Final = 200  # maps from which the threshold of pixels is taken
_GOOD_PIXELS: Final = 0.995  # share of the pixels of good parts that no mask covers
_MOST_QUANTILES: Final = 1_000
_FEWEST: Final = 8  # scores of either kind, below which they are not compared
_ABOVE: Final = 1.001  # so that no score that was seen ties with the threshold
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A threshold of the raw score."""

    value: float
    scores: Floats  # it was taken from, sorted
    method: str
    guaranteed: bool


def calibrate(
    draft: Model,
    view: View,
    rows: npt.NDArray[np.int64],
    crossed: Scored,
    effort: Effort,
) -> Model:
    """Return the model with its thresholds.

    Args:
        draft: With thresholds of 1.
        view: The dataset.
        rows: Of good parts in the calibration split.
        crossed: Scores and maps of training parts by cross-validation.
        effort: Who is told when nothing can be guaranteed.
    """
    rate = float(draft.settings["overkill"]["value"])
    own, charts = _scored(draft, view, rows, effort)
    bar = choose(own, crossed[0], rate)
    if not bar.guaranteed:
        effort.progress.note(_warning(len(own), bar, rate))
    chart = (charts if len(charts) >= _FEWEST else crossed[1]) / bar.value
    settings = {
        **draft.settings,
        "limit": bar.value,
        "pixel_threshold": float(np.quantile(chart, _GOOD_PIXELS)),
        "usual": explain.cells(chart).mean(axis=0).tolist(),
        "calibration": {
            "parameter": "threshold",
            "measure": "overkill",
            "quantiles": thinned(bar.scores / bar.value),
            "units": len(bar.scores),
            "method": bar.method,
            "guaranteed": bar.guaranteed,
            "stated": rate,
            "needed": needed(rate),
        },
    }
    return Model(
        candidate=draft.candidate, settings=settings, arrays=draft.arrays, trials=draft.trials
    )


def choose(own: Floats, crossed: Floats, rate: float) -> Bar:
    """Return the threshold that a new good part exceeds with at most the stated probability.

    Args:
        own: Scores of calibration parts.
        crossed: Scores of training parts by cross-validation.
        rate: The stated overkill.

    Example:
        >>> choose(np.linspace(0.1, 1.0, 99), np.zeros(0), 0.02).method
        'split-conformal'
        >>> bar = choose(np.array([1.0, 1.1, 1.2, 1.0, 0.9, 1.1]), np.zeros(0), 0.02)
        >>> bar.method, bar.guaranteed, bar.value > 1.2
        ('prediction limit', False, True)
    """
    if len(own) >= needed(rate):
        value = quantile_threshold(own, rate).value
        return Bar(value=value, scores=np.sort(own), method="split-conformal", guaranteed=True)
    pool = [own] if _unlike(own, crossed) else [own, crossed]
    scores = np.sort(np.concatenate(pool))
    if len(scores) >= needed(rate):
        value = quantile_threshold(scores, rate).value
        return Bar(value=value, scores=scores, method="cross-validated", guaranteed=False)
    value = max(prediction_limit(scores, rate), float(scores[-1]) * _ABOVE)
    return Bar(value=value, scores=scores, method="prediction limit", guaranteed=False)


def _unlike(own: Floats, crossed: Floats) -> bool:
    """Say whether parts score higher than training parts do by cross-validation.

    They do where training images are views of the same parts, such as overlapping crops: leaving
    some of them out does not make them new (rank-sum test, three standard deviations).
    """
    if len(own) < _FEWEST or len(crossed) < _FEWEST:
        return False
    spread = np.sqrt((len(own) + len(crossed) + 1) / (12.0 * len(own) * len(crossed)))
    return bool(auroc(crossed, own) > 0.5 + 3.0 * spread)


def needed(rate: float) -> int:
    """Return how many calibration parts it takes to guarantee a rate.

    Example:
        >>> needed(0.02), needed(0.01)
        (49, 99)
    """
    return int(np.ceil(1.0 / rate - 1e-9)) - 1


def prediction_limit(scores: Floats, rate: float) -> float:
    """Return what one more score exceeds with this probability, if their logarithms are normal.

    mean + t s sqrt(1 + 1/n) with Student's t (Cornish-Fisher expansion, Abramowitz and Stegun
    26.7.5).

    Example:
        >>> round(prediction_limit(np.exp(np.array([-1.0, 0.0, 1.0, 0.5, -0.5])), 0.025), 1)
        11.0
    """
    logs = np.log(np.maximum(scores, 1e-9))
    count = len(logs)
    if count < 3:
        return float(np.exp(logs.max(initial=0.0)))
    z, v = _NORMAL.inv_cdf(1.0 - rate), count - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return float(np.exp(logs.mean() + t * logs.std(ddof=1) * np.sqrt(1.0 + 1.0 / count)))


def overkill_at(settings: JsonObject, threshold: float) -> Measure:
    """Estimate the share of good parts rejected at a threshold, from the calibration scores.

    Args:
        settings: Of a model, with `calibration`.
        threshold: Value of the parameter; 1.0 is as calibrated.

    Returns:
        The share with its Wilson interval, estimated.
    """
    calibration = settings["calibration"]
    quantiles = np.asarray(calibration["quantiles"], dtype=np.float64)
    units = int(calibration["units"])
    share = float((quantiles > threshold).mean())
    low, high = wilson(share, units)
    return Measure(value=share, low=low, high=high, method="estimated", n=units)


def _scored(draft: Model, view: View, rows: npt.NDArray[np.int64], effort: Effort) -> Scored:
    """Return scores of calibration parts, and the maps of some of them."""
    detector, size = Detector(draft), int(draft.settings["size"]) // schema.CELL
    scores, charts = [np.zeros(0)], [np.zeros((0, size, size), dtype=np.float32)]
    stride = -(-min(len(rows), _MOST_IMAGES) // _MOST_CHARTS) or 1
    for images in gallery.read(view, "calibrate", rows, _MOST_IMAGES, draft.settings):
        effort.check()
        made = detector({"image": images, "threshold": np.ones(len(images), dtype=np.float32)})
        scores.append(made["score"].astype(np.float64))
        charts.append(made["map"][::stride])
    return np.concatenate(scores), np.concatenate(charts)


def thinned(scores: Floats) -> list[float]:
    """Return at most so many quantiles of sorted scores, the lowest and the highest included."""
    if len(scores) <= _MOST_QUANTILES:
        return [float(s) for s in scores]
    return [float(q) for q in np.quantile(scores, np.linspace(0, 1, _MOST_QUANTILES))]


def _warning(own: int, bar: Bar, rate: float) -> str:
    return (
        f"With {own} good calibration parts an overkill of {rate:g} cannot be guaranteed "
        f"({needed(rate)} are needed); the threshold is a {bar.method} estimate from "
        f"{len(bar.scores)} parts"
    )
