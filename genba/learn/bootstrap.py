"""Intervals by resampling whole blocks of time, because neighbouring rows are not independent.

A statistic is computed from sums over rows (of squares, of hits, of alarms). The sums are kept
per block once; a bootstrap replicate is then a weighted sum of blocks, so a thousand replicates
of any statistic cost one matrix product.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.values import Measure, Method

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]

REPLICATES: Final = 400
FEWEST_BLOCKS: Final = 12
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


def block_of(time: npt.NDArray[np.int64], lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    """Number the block of each row, with the longest length that still gives enough blocks.

    Args:
        time: Clock in ms, or row numbers.
        lengths: Block lengths in the unit of `time`, longest first.

    Returns:
        Block numbers 0, 1, 2, ... Blocks are shared by all entities: they have weather in common.

    Example:
        >>> block_of(np.array([0, 1, 10, 11, 20]), [10]).tolist()
        [0, 0, 1, 1, 2]
    """
    blocks = np.zeros(len(time), dtype=np.int64)
    for length in lengths:
        blocks = np.unique(time // length, return_inverse=True)[1].astype(np.int64)
        if len(blocks) and blocks.max() + 1 >= FEWEST_BLOCKS:
            break
    return blocks


def block_lengths(*, has_clock: bool, step_ms: int | None) -> tuple[int, ...]:
    """Return block lengths worth trying, longest first: days where there is a clock, else rows."""
    if not has_clock:
        return (64, 16, 1)
    lengths = (3 * DAY_MS, DAY_MS, 6 * HOUR_MS, HOUR_MS)
    step = step_ms or 1
    return (*(length for length in lengths if length > step), step)


def sums_by_block(blocks: npt.NDArray[np.int64], *columns: npt.ArrayLike) -> Array:
    """Add columns up within each block.

    Returns:
        An array [blocks, columns].
    """
    count = int(blocks.max()) + 1 if len(blocks) else 0
    return np.stack(
        [np.bincount(blocks, np.asarray(c, dtype=np.float64), minlength=count) for c in columns],
        axis=1,
    )


def replicate_sums(sums: Array, seed: int = 0, replicates: int = REPLICATES) -> Array:
    """Draw blocks with replacement and return the sums of each replicate [replicates, columns]."""
    count = len(sums)
    weights = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1.0 / count), size=replicates
    )
    return np.asarray(weights @ sums, dtype=np.float64)


def interval(
    statistic: Statistic, sums: Array, seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Return a statistic of the summed blocks with its 95 % interval.

    Args:
        statistic: Vectorised: takes sums [..., columns] and returns values [...].
        sums: Sums per block [blocks, columns].
        seed: Seed of the resampling.

    Returns:
        Value, low, high. Without at least three blocks the interval is unknown (None).

    Example:
        >>> mean = lambda s: s[..., 0] / s[..., 1]
        >>> interval(mean, np.array([[2.0, 2], [4, 4], [3, 3]]))
        (1.0, 1.0, 1.0)
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(sums.sum(axis=0)))
        if len(sums) < 3:
            return value, None, None
        drawn = statistic(replicate_sums(sums, seed))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return value, None, None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value, float(min(low, value)), float(max(high, value))


def measure(
    statistic: Statistic, sums: Array, *, unit: str = "", n: int, method: Method = "measured"
) -> Measure | None:
    """Return a statistic as a Measure with its block-bootstrap interval; None if undefined."""
    value, low, high = interval(statistic, sums)
    if not np.isfinite(value):
        return None
    return Measure(value=value, unit=unit, low=low, high=high, method=method, n=n)


def ratio(top: int, bottom: int) -> Statistic:
    """Return the statistic sums[top] / sums[bottom]."""
    return lambda sums: sums[..., top] / sums[..., bottom]
