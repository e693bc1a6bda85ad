"""What becomes known afterwards: later windows hold the truth of earlier forecasts."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Columns, JsonObject
from genba.core.values import Measure
from genba.learn.adaptive import RATE
from genba.learn.bootstrap import measure, ratio, sums_by_block
from genba.tasks.sensor.forecast import series
from genba.tasks.sensor.forecast.batch import Places

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BLOCKS: Final = 20  # that a stretch of predictions is divided into for intervals
_MOST_STEPS: Final = 1_000_000  # between the first and the last prediction
_LEAST_CHANGE: Final = 0.01  # of a width; smaller ones are not worth an event
_LARGEST_PART: Final = 0.5  # of the way to the width that was needed
_LEAST_WIDTH: Final = 0.01


def hindsight(seen: Columns, settings: JsonObject) -> Mapping[str, Measure]:
    """Measure served forecasts of one entity by what later requests brought.

    Args:
        seen: Captured columns in the order of time, shaped as in the signature.
        settings: Of the package.

    Returns:
        `coverage`: share of true values within the interval that was answered; `mae` in the unit
        of the report (standard deviations of training); `pinball` of what was answered; and
        `width_needed`: by how much the intervals should have been multiplied to hold the promised
        share. `n` counts judged values. Empty until some truth is known.
    """
    time = np.asarray(seen["time"], dtype=np.int64)
    if len(time) < 2:
        return {}
    known, place = _truth(np.asarray(seen["window"]), time, settings)
    ahead = int(settings["ahead"])
    after = place[:, None] + 1 + np.arange(ahead)
    truth = known[np.minimum(after, len(known) - 1)]
    truth[after >= len(known)] = np.nan
    there = np.isfinite(truth)
    if not there.any():
        return {}
    answers = {n: np.asarray(seen[n], dtype=np.float64) for n in ("expected", "low", "high")}
    answers = {n: a.reshape(truth.shape) for n, a in answers.items()}
    return _measures(answers, truth, there, _scale(seen, settings), settings)


def tune(measures: Mapping[str, Measure], settings: JsonObject) -> Mapping[str, float]:
    """Return the width to set, given how wide the intervals should have been.

    The batch form of adaptive conformal inference: a window of predictions is judged at once, so
    the width moves towards the one that would have held the promised share (half of the way, as
    logarithms, where many moments were judged). Nothing is changed where the coverage seen may as
    well be the promised one (it lies within its interval), or the width would hardly change.

    Args:
        measures: Of `hindsight`.
        settings: Of the package, with `parameters`: those that hold now.
    """
    seen, needed = measures.get("coverage"), measures.get("width_needed")
    if seen is None or needed is None or not seen.n:
        return {}
    promised = float(settings["coverage"])
    low = seen.value if seen.low is None else seen.low
    high = seen.value if seen.high is None else seen.high
    if low <= promised <= high:
        return {}
    now = float(settings["parameters"]["width"])
    moments = seen.n / (int(settings["ahead"]) * len(settings["outputs"]))
    part = min(_LARGEST_PART, RATE * max(1.0, moments))
    width = now * max(needed.value, _LEAST_WIDTH) ** part
    width = min(max(width, _LEAST_WIDTH), 1.0 / _LEAST_WIDTH)
    if abs(width - now) < _LEAST_CHANGE * now:
        return {}
    return {"width": round(width, 6)}


def _truth(window: Any, time: Ints, settings: JsonObject) -> tuple[Floats, Ints]:
    """Return what was read at every step since the first window, and each prediction's step.

    The newest window wins: a reading that came late or was corrected is the better one.
    """
    lags, step = int(settings["lags"]), int(settings["step_ms"])
    place = np.rint((time - time[0]) / step).astype(np.int64) + lags - 1
    kept = place < _MOST_STEPS
    place = np.where(kept, place, place[kept].max(initial=lags - 1))
    low, high = series.limits(settings)
    outputs = Places.of(settings).outputs
    known = np.full((int(place.max()) + 1, len(outputs)), np.nan)
    for end, rows in zip(place, window.reshape(len(time), lags, -1), strict=True):
        values = np.asarray(rows, dtype=np.float64)
        values = np.where((values >= low) & (values <= high), values, np.nan)[:, outputs]
        here = known[end - lags + 1 : end + 1]
        here[...] = np.where(np.isfinite(values), values, here)
    return known, place


def _measures(
    answers: Mapping[str, Floats], truth: Floats, there: Any, scale: Floats, settings: JsonObject
) -> dict[str, Measure]:
    tail = (1.0 - float(settings["coverage"])) / 2.0
    count = int(there.sum())
    inside = there & (truth >= answers["low"]) & (truth <= answers["high"])
    error = np.where(there, np.abs(truth - answers["expected"]), 0.0) / scale
    losses = np.zeros(truth.shape)
    for level, name in ((tail, "low"), (0.5, "expected"), (1.0 - tail, "high")):
        away = np.where(there, truth - answers[name], 0.0) / scale
        losses += np.maximum(level * away, (level - 1.0) * away) / 3.0
    block = np.arange(len(truth)) * _BLOCKS // len(truth)
    values = {"coverage": inside, "mae": error, "pinball": losses}
    found: dict[str, Measure] = {}
    for name, value in values.items():
        total = np.asarray(value, dtype=np.float64).sum(axis=(1, 2))
        sums = sums_by_block(block, total, there.sum(axis=(1, 2)))
        made = measure(ratio(0, 1), sums[sums[:, 1] > 0], n=count)
        found |= {name: made} if made is not None else {}
    half = (answers["high"] - answers["low"])[there] / 2.0
    ratios = np.abs(truth - answers["expected"])[there] / np.maximum(half, 1e-12)
    needed = float(np.quantile(ratios, float(settings["coverage"])))
    found["width_needed"] = Measure(value=needed, n=count)
    return found


def _scale(seen: Columns, settings: JsonObject) -> Floats:
    """Return the unit of errors: of the entity, given by index or by name, else the median."""
    scales = np.asarray(settings["scales"], dtype=np.float64)
    names = list(settings["entities"])
    first: Any = np.asarray(seen["entity"])[0] if len(seen.get("entity", ())) else -1
    if isinstance(first, str):
        first = names.index(first) if first in names else -1
    valid = not isinstance(first, type(None)) and 0 <= int(first) < len(names)
    return np.asarray(scales[int(first) if valid else -1])
