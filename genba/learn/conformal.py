"""Thresholds with a stated false-alarm budget, from rows the model was not trained on.

Split-conformal prediction and its generalisation, conformal risk control (Angelopoulos et al.,
2022): with n exchangeable units (rows, or days of one entity) and a loss of at most `cap` per
unit, the smallest threshold whose mean loss R satisfies (n R + cap) / (n + 1) <= budget keeps the
expected loss of a new unit within the budget. With rows and alarms counted 0 or 1 this is the
split-conformal quantile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_GRID: Final = 240
_LARGEST_RATE: Final = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """A threshold, what it was computed from, and whether the budget could be guaranteed."""

    value: float
    units: int
    guaranteed: bool


def onsets(alarm: npt.NDArray[np.bool_], entity: Ints, time: Ints, merge: int) -> Ints:
    """Return the positions where an alarm episode begins.

    Alarms of one entity that are at most `merge` apart (in the unit of `time`) are one episode:
    an operator is called once.

    Example:
        >>> e = np.zeros(6, dtype=np.int64)
        >>> t = np.arange(6)
        >>> onsets(np.array([1, 1, 0, 0, 0, 1], dtype=bool), e, t, merge=2).tolist()
        [0, 5]
    """
    at = np.flatnonzero(alarm)
    at = at[np.lexsort((time[at], entity[at]))]
    if not len(at):
        return at
    new = (np.diff(entity[at]) != 0) | (np.diff(time[at]) > merge)
    return np.sort(at[np.concatenate([[True], new])])


def quantile_threshold(scores: Floats, rate: float) -> Threshold:
    """Return the split-conformal threshold: a new normal row exceeds it with at most this rate.

    Example:
        >>> quantile_threshold(np.arange(1.0, 100.0), 0.1).value
        90.5
    """
    order = np.sort(scores)
    rank = int(np.ceil((len(order) + 1) * (1.0 - rate)))
    if rank > len(order):
        return Threshold(value=_above(order, len(order) - 1), units=len(order), guaranteed=False)
    return Threshold(value=_above(order, rank - 1), units=len(order), guaranteed=True)


def risk_threshold(
    scores: Floats, loss: Callable[[float], Floats], budget: float, cap: float
) -> Threshold:
    """Return the smallest threshold whose loss per unit stays within the budget.

    Args:
        scores: Scores of the calibration rows, candidates for the threshold.
        loss: Threshold -> loss of every unit, already cut off at `cap`.
        budget: Expected loss per unit that is allowed.
        cap: Largest loss a unit can have.
    """
    order = np.sort(scores)
    rates = np.geomspace(1.0 / len(order), _LARGEST_RATE, _GRID)
    ranks = np.unique((len(order) * (1.0 - rates)).astype(np.int64))[::-1]
    best, units = _above(order, len(order) - 1), len(loss(np.inf))
    if cap / (units + 1) > budget:
        return Threshold(value=best, units=units, guaranteed=False)
    for rank in ranks:
        value = _above(order, int(rank))
        risk = (float(loss(value).sum()) + cap) / (units + 1)
        if risk > budget:  # stop at the first: below it the risk may dip again, but by luck only
            break
        best = value
    return Threshold(value=best, units=units, guaranteed=True)


def episodes_per_unit(
    scores: Floats, entity: Ints, time: Ints, *, day: int, merge: int, cap: float
) -> Callable[[float], Floats]:
    """Return a loss: threshold -> alarm episodes (at most `cap`) of every day of every entity."""
    order = np.lexsort((time, entity))
    scores, entity, time = scores[order], entity[order], time[order]
    units = np.unique(np.stack([entity, time // day]), axis=1, return_inverse=True)[1]
    count = int(units.max()) + 1 if len(units) else 0

    def loss(threshold: float) -> Floats:
        starts = onsets(scores > threshold, entity, time, merge)
        return np.minimum(np.bincount(units[starts], minlength=count).astype(np.float64), cap)

    return loss


def _above(order: Floats, rank: int) -> float:
    """Return a value between this score and the next, so that no score ties with a threshold."""
    here = float(order[rank])
    higher = order[np.searchsorted(order, here, side="right") :]
    return (here + float(higher[0])) / 2 if len(higher) else here * 1.001 + 1e-9
