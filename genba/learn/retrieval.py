"""How good a search is, on its own: does what is wanted come, and how far in front."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from genba.core.values import Measure
from genba.learn.bootstrap import interval
from genba.learn.proportion import proportion

DEPTH: Final = 10  # results that are looked at
_DEPTHS: Final = (1, 3, DEPTH)
MRR: Final = "mrr"
#: What `measured` returns.
MEASURES: Final = frozenset((*(f"hit_rate_at_{depth}" for depth in _DEPTHS), MRR))


def measured(ranks: Sequence[int | None], seed: int = 0) -> dict[str, Measure]:
    """Return hit rates and the mean reciprocal rank with their 95 % intervals.

    Args:
        ranks: For each question the place of the first result that was wanted, from 1; None where
            it was not among the first `DEPTH`.
        seed: Of the resampling of questions.

    Returns:
        `hit_rate_at_1`, `hit_rate_at_3` and `hit_rate_at_10` with intervals by Wilson (1927), and
        `mrr` (Voorhees, TREC-8, 1999), cut at 10, with an interval by bootstrap.

    Raises:
        ValueError: When nothing was asked.

    Example:
        >>> found = measured([1, 2, None, 1])
        >>> str(found["hit_rate_at_1"]), round(found["mrr"].value, 3)
        ('0.5 [0.15 to 0.85]', 0.625)
    """
    if not ranks:
        raise ValueError("nothing was asked")
    count = len(ranks)
    found = {
        f"hit_rate_at_{depth}": proportion(sum(r is not None and r <= depth for r in ranks), count)
        for depth in _DEPTHS
    }
    reciprocal = np.array([0.0 if r is None or r > DEPTH else 1.0 / r for r in ranks])
    sums = np.stack([reciprocal, np.ones(count)], axis=1)
    value, low, high = interval(lambda s: s[..., 0] / s[..., 1], sums, seed)
    return {**found, MRR: Measure(value=value, low=low, high=high, n=count)}


def rank_of(results: Sequence[str], wanted: frozenset[str]) -> int | None:
    """Return the place of the first wanted result, from 1; None where there is none.

    Example:
        >>> rank_of(["a", "b", "c"], frozenset("bc")), rank_of(["a"], frozenset("b"))
        (2, None)
    """
    places = (place for place, result in enumerate(results[:DEPTH], 1) if result in wanted)
    return next(places, None)
