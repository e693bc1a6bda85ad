"""Rows that belong together: folds that never divide a group, and quantiles over groups.

The rows of one machine resemble each other. Whoever has seen some of them knows the others, so
they are held out together; and a thousand rows of twenty machines are twenty machines, not a
thousand cases, when an interval is calibrated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def folds(group: Ints, count: int, seed: int) -> Iterator[Bools]:
    """Yield which rows are held out, fold by fold; every group is held out once and as a whole.

    Args:
        group: Of each row.
        count: Folds; fewer where there are fewer groups.
        seed: Of the shuffle of the groups.

    Example:
        >>> [held.tolist() for held in folds(np.array([7, 7, 9]), 2, 0)]
        [[True, True, False], [False, False, True]]
    """
    known = np.unique(group)
    shuffled = np.random.default_rng(seed).permutation(known)
    for part in np.array_split(shuffled, min(count, len(known))):
        yield np.isin(group, part)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupQuantile:
    """A quantile over groups, and whether there are enough of them for a guarantee."""

    value: float
    groups: int
    guaranteed: bool


def group_quantile(scores: Floats, group: Ints, level: float) -> GroupQuantile:
    """Return what a random row of a new group exceeds with probability 1 - level at most.

    Conformal prediction for groups (Lee, Barber and Willett, "Distribution-free inference with
    hierarchical data", 2023): each of K groups weighs 1 / (K + 1), divided among its rows, and the
    new group counts as infinite. Without enough groups for the level the largest score is returned.

    Args:
        scores: Of each row; the larger, the stranger.
        group: Of each row.
        level: Share that should not exceed it, such as 0.9.

    Example:
        >>> found = group_quantile(np.arange(1.0, 20.0), np.arange(19), 0.9)
        >>> found.value, found.guaranteed
        (18.0, True)
    """
    if not len(scores):
        return GroupQuantile(value=0.0, groups=0, guaranteed=False)
    _, place, rows = np.unique(group, return_inverse=True, return_counts=True)
    weight = 1.0 / ((len(rows) + 1) * rows[place])
    order = np.argsort(scores, kind="stable")
    at = int(np.searchsorted(np.cumsum(weight[order]), level - 1e-12))
    enough = at < len(scores)
    value = float(scores[order[min(at, len(scores) - 1)]])
    return GroupQuantile(value=value, groups=len(rows), guaranteed=enough)
