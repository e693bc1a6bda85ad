"""What is usual in each operating condition: found in the training rows, kept as arrays."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject
from genba.learn.regimes import Clusters, nearest, slopes, smallest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Columns that, by their names, are set and not measured.
_SETTING: Final = re.compile(
    r"setting|condition|set_?point|regime|altitude|^op_?\d|(^|_)(load|speed|rpm|throttle|ambient)",
    re.IGNORECASE,
)
_EXPLAINED: Final = 0.95  # of the conditions' variance, by as few regimes as will do
_SWITCHED: Final = 0.9  # of the variance of every column, where nobody names the conditions
_WORN: Final = 0.05  # of the variance of wear that regimes may explain: they are no wear
_HELP: Final = 0.2  # of a sensor's variance that regimes must explain to be worth having
_CONSTANT: Final = 1e-6  # share of the variance (or of the square) left of a column that is none
_FEWEST_HEALTHY: Final = 50  # rows of a regime that say what is usual
_POINTS: Final = 10_000  # that clusters are looked for in


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Training rows as they came: readings [N, S] with NaN, and how worn their unit is, 0 to 1."""

    readings: Floats
    wear: Floats  # share of its life that a unit has lived; NaN where unknown
    healthy: npt.NDArray[np.bool_]  # early enough in a life to say what is usual


def find(rows: Rows, settings: JsonObject, seed: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """Find operating conditions, what is usual in each, and which sensors say anything.

    Returns:
        Settings (`used` sensors, `regimes`) and arrays, all float32 numbers: the exported graph
        then subtracts the very same ones.
    """
    sensors = list(settings["sensors"])
    varied = [i for i in range(len(sensors)) if _varies(rows.readings[:, i])]
    chosen, found = _regimes(rows, sensors, varied, list(settings["conditions"]), seed)
    at = [sensors.index(c) for c in chosen]
    used = [i for i in varied if i not in at] or varied
    conditions, middle, spread = _standard(rows.readings[:, at])
    regime = nearest(conditions, found.centers) if at else np.zeros(len(conditions), dtype=np.int64)
    slope = _slopes(conditions, rows, used, regime, found) if at else np.zeros((1, 0, len(used)))
    usual, scale, left = _usual(rows, used, conditions, regime, found.centers, slope)
    keep = np.array(left) > _CONSTANT
    keep = keep if keep.any() else ~keep
    names = [sensors[i] for i, kept in zip(used, keep, strict=True) if kept]
    settings = {
        "used": names,
        "dropped": [s for i, s in enumerate(sensors) if s not in names and i not in at],
        "regimes": {"conditions": chosen, "count": len(found.centers)},
    }
    arrays = {
        "usual": usual[:, keep],
        "scale": scale[:, keep],
        "slopes": slope[:, :, keep],
        "centers": found.centers,
        "condition_middle": middle,
        "condition_spread": spread,
    }
    return settings, {name: array.astype(np.float32) for name, array in arrays.items()}


def _regimes(
    rows: Rows, sensors: Sequence[str], varied: Sequence[int], given: list[str], seed: int
) -> tuple[list[str], Clusters]:
    one = Clusters(centers=np.zeros((1, 0)), explained=1.0)
    named = given
    if given == ["auto"]:
        named = [s for i, s in enumerate(sensors) if _SETTING.search(s) and not _wears(rows, i)]
    chosen = [s for s in named if sensors.index(s) in varied] if given != ["none"] else []
    if chosen:
        points = _standard(rows.readings[:, [sensors.index(s) for s in chosen]])[0]
        found = smallest(_some(points), _EXPLAINED, seed)
        others = [i for i in varied if sensors[i] not in chosen]
        told = given != ["auto"]
        helps = told or _helps(points, rows, others, found)
        return (chosen, found) if helps else ([], one)
    if given != ["auto"] or len(varied) < 2:
        return [], one
    return _switched(rows, sensors, varied, seed) or ([], one)


def _wears(rows: Rows, column: int) -> bool:
    """Say whether a column moves with wear: then it is an answer to a setting, not the setting."""
    reading = rows.readings[:, column]
    known = np.isfinite(reading) & np.isfinite(rows.wear)
    return known.sum() >= _FEWEST_HEALTHY and _moves(reading[known], rows.wear[known])


def _moves(values: Floats, wear: Floats) -> bool:
    """Say whether values move with wear."""
    if values.std() <= 0.0 or wear.std() <= 0.0:
        return False
    return bool(np.corrcoef(values, wear)[0, 1] ** 2 > 2 * _WORN)


def _switched(
    rows: Rows, sensors: Sequence[str], varied: Sequence[int], seed: int
) -> tuple[list[str], Clusters] | None:
    """Find conditions nobody named: few states that explain nearly everything, but no wear.

    The conditions are then the columns that the states explain best; whatever moves with wear
    inside a state is not among them.
    """
    points, _, _ = _standard(rows.readings[:, varied])
    found = smallest(_some(points), _SWITCHED, seed)
    if found.explained < _SWITCHED or len(found.centers) == 1:
        return None
    regime = nearest(points, found.centers)
    known = np.isfinite(rows.wear)
    if known.sum() < len(points) // 10 or _between(rows.wear[known], regime[known]) > _WORN:
        return None
    left = points - found.centers[regime]
    share = left.var(axis=0) / np.maximum(points.var(axis=0), 1e-12)
    share[[_moves(left[known, i], rows.wear[known]) for i in range(left.shape[1])]] = np.inf
    if not np.isfinite(share).any():
        return None
    chosen = np.argsort(share, kind="stable")[: max(1, len(varied) // 6)]
    chosen = np.sort(chosen[np.isfinite(share[chosen])])
    within = smallest(_some(points[:, chosen]), 1.0 - 1e-3, seed, most=len(found.centers))
    return [sensors[varied[i]] for i in chosen], within


def _helps(points: Floats, rows: Rows, others: Sequence[int], found: Clusters) -> bool:
    """Say whether any sensor follows the conditions: then it must be held against them."""
    regime = nearest(points, found.centers)
    for i in others:
        reading = rows.readings[:, i]
        known = np.isfinite(reading) & rows.healthy
        if known.sum() < _FEWEST_HEALTHY:
            known = np.isfinite(reading)
        line = slopes(points[known], reading[known, None], regime[known], len(found.centers))
        follows = np.einsum("nc,nc->n", points[known], line[regime[known], :, 0])
        left = reading[known] - follows
        inside = 1.0 - _between(left, regime[known])
        if inside * left.var() < (1.0 - _HELP) * reading[known].var():
            return True
    return False


def _between(values: Floats, regime: Ints) -> float:
    """Return the share of the variance of values that lies between regimes."""
    count = np.bincount(regime)
    mean = np.bincount(regime, values) / np.maximum(count, 1)
    total = float(values.var())
    return float(((mean[regime] - values.mean()) ** 2).mean()) / total if total > 0 else 0.0


def _slopes(
    conditions: Floats, rows: Rows, used: Sequence[int], regime: Ints, found: Clusters
) -> Floats:
    """Return how sensors follow conditions within a regime, from healthy rows."""
    healthy = rows.healthy if rows.healthy.sum() >= _FEWEST_HEALTHY else np.ones_like(rows.healthy)
    made = np.zeros((len(found.centers), conditions.shape[1], len(used)))
    for place, i in enumerate(used):
        known = np.isfinite(rows.readings[:, i]) & healthy
        made[:, :, place] = slopes(
            conditions[known], rows.readings[known, i, None], regime[known], len(found.centers)
        )[:, :, 0]
    return made


def _usual(
    rows: Rows,
    used: Sequence[int],
    conditions: Floats,
    regime: Ints,
    centers: Floats,
    slope: Floats,
) -> tuple[Floats, Floats, list[float]]:
    """Return mean and spread of each sensor at each centre, and the share of variance left."""
    shape = (len(centers), len(used))
    usual, scale, left = np.zeros(shape), np.ones(shape), []
    for place, i in enumerate(used):
        reading = rows.readings[:, i]
        follows = np.einsum("nc,nc->n", conditions - centers[regime], slope[regime][:, :, place])
        rest = reading - follows
        there = np.isfinite(rest)
        everywhere = float(rest[there].std()) or 1.0
        squares = 0.0
        for k in range(len(centers)):
            mine = there & (regime == k)
            healthy = mine & rows.healthy
            source = healthy if healthy.sum() >= _FEWEST_HEALTHY else mine
            usual[k, place] = rest[source].mean() if source.any() else rest[there].mean()
            spread = float(rest[mine].std()) if mine.sum() > 1 else everywhere
            scale[k, place] = max(spread, 1e-3 * everywhere)
            squares += spread**2 * int(mine.sum())
        left.append(squares / max(there.sum(), 1) / max(float(reading[there].var()), 1e-300))
    return usual, scale, left


def _standard(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Return columns centred and scaled, 0 where missing, with their middles and spreads."""
    with np.errstate(all="ignore"):
        middle = np.nanmean(values, axis=0) if values.size else np.zeros(values.shape[1])
        spread = np.nanstd(values, axis=0) if values.size else np.ones(values.shape[1])
    middle = middle.astype(np.float32).astype(np.float64)
    spread = np.where(spread > 1e-12, spread, 1.0).astype(np.float32).astype(np.float64)
    return np.nan_to_num((values - middle) / spread), middle, spread


def _some(points: Floats) -> Floats:
    return points[:: max(1, -(-len(points) // _POINTS))]


def _varies(reading: Floats) -> bool:
    known = reading[np.isfinite(reading)]
    return bool(len(known) > 1 and known.std() > _CONSTANT * max(abs(float(known.mean())), 1e-9))
