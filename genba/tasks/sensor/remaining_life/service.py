"""A model in service: how answers are judged, how unsure they are, what they look like."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Columns, JsonObject, Tensors
from genba.core.values import Measure
from genba.learn.bootstrap import interval, ratio
from genba.tasks.sensor.remaining_life import schema
from genba.tasks.sensor.remaining_life.explain import usual_of
from genba.tasks.sensor.remaining_life.features import CLIP, plausible
from genba.tasks.sensor.remaining_life.lives import INSPECTED, capped

Floats = npt.NDArray[np.float64]

_RECENT: Final = 5  # rows of a window that say how a unit is now
_BLOCK: Final = 20  # neighbouring predictions of one unit: not independent


def outcome(outputs: Mapping[str, Any], label: float, settings: JsonObject) -> str:
    """Say how a label judges an answer.

    A failure is "confirmed" where there was an alarm and "missed" where not; a unit found healthy
    makes an alarm one of the "false_alarms". An inspected life confirms an interval that holds it;
    otherwise the answer is "wrong".
    """
    if label >= INSPECTED:
        left = label - INSPECTED
        cap = float(settings["cap"])
        left = min(left, cap) if cap else left
        held = float(outputs["low"]) <= left <= float(outputs["high"])
        return "confirmed" if held else "wrong"
    if label == 1.0:
        return "confirmed" if outputs["alarm"] else "missed"
    return "false_alarms" if outputs["alarm"] else ""


def uncertainty(outputs: Tensors, settings: JsonObject) -> Floats:
    """Return how unsure each decision is: 1 at the alarm point, 0 where the interval is far off.

    Where the interval holds the alarm point it is at least one half.
    """
    expected, low, high = (
        np.asarray(outputs[n], dtype=np.float64) for n in ("expected", "low", "high")
    )
    at = float((settings.get("parameters") or {}).get("alarm_at", schema.alarm_at(settings)))
    side = np.where(at < expected, expected - low, high - expected)
    distance = np.abs(expected - at) / np.maximum(side, 1e-6)
    return np.nan_to_num(1.0 / (1.0 + distance))


def embed(tensors: Tensors, outputs: Tensors, settings: JsonObject) -> Floats:
    """Return the recent deviation of each sensor, how it has moved over the window, and the life.

    In usual spreads of the operating condition; what is missing counts as usual.
    """
    window = np.asarray(tensors["window"], dtype=np.float32)
    at = [list(settings["sensors"]).index(s) for s in settings["used"]]
    usual, scale = usual_of(window, settings)
    there = plausible(window, settings)[:, :, at]
    z = np.where(there, (np.where(there, window[:, :, at], 0.0) - usual) / scale, np.nan)
    z = np.clip(z, -CLIP, CLIP)
    recent, before = _mean(z[:, -_RECENT:]), _mean(z[:, :-_RECENT])
    made = np.concatenate([recent, recent - before], axis=1)
    if "expected" not in outputs:
        return made
    life = np.log1p(np.maximum(np.nan_to_num(np.asarray(outputs["expected"])), 0.0))
    return np.concatenate([made, life[:, None].astype(np.float64)], axis=1)


def hindsight(seen: Columns, settings: JsonObject) -> dict[str, Measure]:
    """Measure what later requests show about earlier predictions of one unit.

    As long as a unit runs, only one mistake can be seen: that it has outlived the upper end of an
    interval (`outlived`, the share of predictions that were that much too short). With a column
    `label` in which a failure is 1, every prediction before it can be judged: `rmse` and
    `coverage`, of the capped life.
    """
    time = np.asarray(seen["time"], dtype=np.float64)
    if not len(time):
        return {}
    step, cap = float(settings["step_ms"]), float(settings["cap"])
    low, high, expected = (
        np.asarray(seen[n], dtype=np.float64) for n in ("low", "high", "expected")
    )
    block = np.arange(len(time)) // _BLOCK
    since = (time.max() - time) / step
    open_end = high >= cap - 1e-3 if cap else np.zeros(len(time), dtype=bool)
    found = {"outlived": _share((since > high + 1e-3) & ~open_end, block)}
    failed = np.flatnonzero(np.asarray(seen.get("label", np.zeros(len(time)))) == 1.0)
    if len(failed):
        left = (time[failed[0]] - time) / step
        truth = capped(np.where(left >= 0, left, np.nan), since, cap)
        known = np.isfinite(truth) & (left >= 0)
        inside = (truth >= low - 1e-3) & (truth <= high + 1e-3)
        found["coverage"] = _share(inside[known], block[known])
        squares = (expected - truth)[known] ** 2
        found["rmse"] = Measure(
            value=float(np.sqrt(squares.mean())), unit="cycles", n=int(known.sum())
        )
    return found


def _share(hits: npt.NDArray[np.bool_], block: npt.NDArray[np.int64]) -> Measure:
    blocks = np.unique(block, return_inverse=True)[1]
    sums = np.stack([np.bincount(blocks, hits), np.bincount(blocks)], axis=1).astype(np.float64)
    value, low, high = interval(ratio(0, 1), sums)
    return Measure(value=value, low=low, high=high, n=len(hits))


def _mean(z: Floats) -> Floats:
    """Return the mean of what is there, 0 where nothing is."""
    known = np.isfinite(z)
    return np.asarray(np.where(known, z, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))
