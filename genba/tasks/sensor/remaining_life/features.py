"""What is computed from a window: the state of each sensor and where it is heading.

    window -> readings that are missing or implausible masked -> deviation from what is usual in
    the operating condition -> per sensor the newest value, means, spread, slopes, extremes
           -> age and the conditions themselves

Everything is masked: a unit that has just begun, or lost a sensor for a while, has fewer rows to
average, not other numbers. `export.py` mirrors every step in ONNX.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject
from genba.learn.regimes import nearest
from genba.tasks.sensor.remaining_life import schema

Floats = npt.NDArray[np.float64]

#: A deviation beyond so many usual spreads is cut off: what is broken is not 50 times as worn.
CLIP: Final = 10.0
#: Added to the spread of time in a slope, so that three points do not make a trend.
SLOPE_SHRINK: Final = 0.25
_SHORT: Final = 5
STATISTICS: Final = (
    *("newest", "mean_short", "mean_middle", "mean", "spread"),
    *("slope_middle", "slope", "lowest", "highest"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """How many of the newest rows a statistic looks at, and the time of each row of a window."""

    short: int
    middle: int
    time: Floats  # [L] from -1 to 0

    @classmethod
    def of(cls, lags: int) -> "Spans":
        """Return the spans of a window of so many rows.

        Example:
            >>> spans = Spans.of(30)
            >>> spans.short, spans.middle
            (5, 10)
        """
        time = (np.arange(lags, dtype=np.float64) - (lags - 1)) / lags
        return cls(
            short=min(_SHORT, max(1, lags // 2)),
            middle=max(2, lags // 3),
            time=time.astype(np.float32).astype(np.float64),
        )


def names(settings: JsonObject) -> list[str]:
    """Return the names of the features in their order."""
    found = [f"{s} {name}" for name in STATISTICS for s in settings["used"]]
    return [*found, "age", *(f"{c} mean" for c in settings["regimes"]["conditions"])]


def features(tensors: Mapping[str, Array], settings: JsonObject, arrays: Any) -> Floats:
    """Return the features of windows [N, F].

    Args:
        tensors: `window` and `age`.
        settings: With `used` (sensors) and `regimes`.
        arrays: With those of `regimes.arrays`.
    """
    window = np.asarray(tensors["window"], dtype=np.float32)
    valid = plausible(window, settings)
    z, mask = deviations(window, valid, settings, arrays)
    parts = list(statistics(z, mask).values())
    age = np.asarray(tensors["age"], dtype=np.float64)
    parts.append(np.where(np.isfinite(age), age, float(arrays["usual_age"][0]))[:, None])
    if len(settings["regimes"]["conditions"]):
        conditions = _conditions(window, valid, settings, arrays)
        parts.append(conditions.mean(axis=1))
    return np.concatenate(parts, axis=1)


def plausible(window: npt.NDArray[np.float32], settings: JsonObject) -> npt.NDArray[np.bool_]:
    """Say which readings are there and within the line's checks; NaN is not."""
    low, high = schema.limits(settings)
    return np.asarray((window >= low) & (window <= high))


def deviations(
    window: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], settings: JsonObject, arrays: Any
) -> tuple[Floats, Floats]:
    """Return how far each used reading is from usual, in usual spreads, and which are there.

    Returns:
        [N, L, S] with 0 where a reading is missing, and the mask as 0 and 1.
    """
    sensors = list(settings["sensors"])
    used = [sensors.index(s) for s in settings["used"]]
    mask = valid[:, :, used].astype(np.float64)
    readings = np.where(valid[:, :, used], window[:, :, used], 0.0).astype(np.float64)
    usual, scale = expected(window, valid, settings, arrays)
    z = np.clip((readings - usual) / scale, -CLIP, CLIP)
    return z * mask, mask


def expected(
    window: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], settings: JsonObject, arrays: Any
) -> tuple[Floats, Floats]:
    """Return what is usual for each used sensor in the condition of each row, and its spread."""
    usual, scale = (np.asarray(arrays[n], dtype=np.float64) for n in ("usual", "scale"))
    if not len(settings["regimes"]["conditions"]):
        return usual[0], scale[0]
    conditions = _conditions(window, valid, settings, arrays)
    flat = conditions.reshape(-1, conditions.shape[2])
    centers = np.asarray(arrays["centers"], dtype=np.float64)
    regime = nearest(flat, centers)
    moved = np.einsum("nc,ncs->ns", flat - centers[regime], arrays["slopes"][regime])
    shape = (*conditions.shape[:2], -1)
    return (usual[regime] + moved).reshape(shape), scale[regime].reshape(shape)


def statistics(z: Floats, mask: Floats) -> dict[str, Floats]:
    """Return every statistic of masked deviations [N, L, S], each [N, S]."""
    spans = Spans.of(z.shape[1])
    short = _mean(z, mask, spans.short)
    mean = _mean(z, mask, z.shape[1])
    inside = mask > 0.0
    there = inside.any(axis=1)
    return {
        "newest": np.where(inside[:, -1], z[:, -1], short),
        "mean_short": short,
        "mean_middle": _mean(z, mask, spans.middle),
        "mean": mean,
        "spread": np.sqrt(
            (mask * (z - mean[:, None]) ** 2).sum(axis=1) / np.maximum(mask.sum(axis=1), 1.0)
        ),
        "slope_middle": _slope(z, mask, spans.time, spans.middle),
        "slope": _slope(z, mask, spans.time, z.shape[1]),
        "lowest": np.where(there, np.where(inside, z, CLIP).min(axis=1), 0.0),
        "highest": np.where(there, np.where(inside, z, -CLIP).max(axis=1), 0.0),
    }


def _mean(z: Floats, mask: Floats, span: int) -> Floats:
    count = np.maximum(mask[:, -span:].sum(axis=1), 1.0)
    return np.asarray(z[:, -span:].sum(axis=1) / count)


def _slope(z: Floats, mask: Floats, time: Floats, span: int) -> Floats:
    """Return the least-squares slope per window length, shrunk towards 0 where rows are few."""
    z, mask, at = z[:, -span:], mask[:, -span:], time[-span:, None]
    middle = (mask * at).sum(axis=1) / np.maximum(mask.sum(axis=1), 1.0)
    far = (at - middle[:, None]) * mask
    return np.asarray((far * z).sum(axis=1) / ((far**2).sum(axis=1) + SLOPE_SHRINK))


def _conditions(
    window: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], settings: JsonObject, arrays: Any
) -> Floats:
    """Return conditions of every row in units of their spread, the usual one where missing."""
    sensors = list(settings["sensors"])
    at = [sensors.index(c) for c in settings["regimes"]["conditions"]]
    middle, spread = (
        np.asarray(arrays[n], dtype=np.float64) for n in ("condition_middle", "condition_spread")
    )
    known = valid[:, :, at]
    readings = np.where(known, window[:, :, at], 0.0).astype(np.float64)
    return np.where(known, (readings - middle) / spread, 0.0)
