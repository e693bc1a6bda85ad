"""How well a score separates two groups: AUROC, and the share found at a stated false rate.

Intervals come from resampling both groups, each within itself (stratified bootstrap). A share has
the Wilson interval, which is honest where all or none were found.
"""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.values import Measure, Method
from genba.learn.proportion import wilson

Floats = npt.NDArray[np.float64]

REPLICATES: Final = 400


def auroc(
    good: Floats, bad: Floats, good_weight: Floats | None = None, bad_weight: Floats | None = None
) -> Floats:
    """Return the chance that a bad one scores higher than a good one; a tie counts half.

    Args:
        good: Scores of one group [n].
        bad: Scores of the other [m].
        good_weight: How often each counts [..., n]; once where None.
        bad_weight: The same [..., m].

    Returns:
        One value per row of weights.

    Example:
        >>> float(auroc(np.array([0.1, 0.4]), np.array([0.4, 0.9])))
        0.875
    """
    left = np.ones(len(good)) if good_weight is None else good_weight
    right = np.ones(len(bad)) if bad_weight is None else bad_weight
    order = np.argsort(good, kind="stable")
    below = np.cumsum(left[..., order], axis=-1)
    below = np.concatenate([np.zeros((*below.shape[:-1], 1)), below], axis=-1)
    low = below[..., np.searchsorted(good[order], bad, side="left")]
    high = below[..., np.searchsorted(good[order], bad, side="right")]
    won = ((low + high) / 2 * right).sum(axis=-1)
    return np.asarray(won / (left.sum(axis=-1) * right.sum(axis=-1)))


def recall_at(
    good: Floats,
    bad: Floats,
    rate: float,
    good_weight: Floats | None = None,
    bad_weight: Floats | None = None,
) -> Floats:
    """Return the share of bad ones above the lowest bar that at most `rate` of the good exceed.

    Args:
        good: Scores of one group [n].
        bad: Scores of the other [m].
        rate: Share of good ones that may be rejected.
        good_weight: How often each counts [..., n]; once where None.
        bad_weight: The same [..., m].

    Example:
        >>> float(recall_at(np.arange(10.0), np.array([7.5, 20.0]), 0.1))
        0.5
    """
    left = np.ones(len(good)) if good_weight is None else good_weight
    right = np.ones(len(bad)) if bad_weight is None else bad_weight
    bar = rejecting(good, rate, left)
    return np.asarray(((bad > bar[..., None]) * right).sum(axis=-1) / right.sum(axis=-1))


def rejecting(good: Floats, rate: float, weight: Floats | None = None) -> Floats:
    """Return the lowest of the scores that at most `rate` of them exceed, one per row of weights.

    Example:
        >>> float(rejecting(np.arange(10.0), 0.1))
        8.0
    """
    left = np.ones(len(good)) if weight is None else weight
    order = np.argsort(-good, kind="stable")
    above = np.cumsum(left[..., order], axis=-1)
    allowed = rate * left.sum(axis=-1, keepdims=True) + 1e-9
    last = np.minimum((above <= allowed).sum(axis=-1), len(good) - 1)
    return np.asarray(good[order][last])


def draws(count: int, seed: int = 0, replicates: int = REPLICATES) -> Floats:
    """Return how often each of `count` things is drawn in each bootstrap replicate."""
    chance = np.full(count, 1.0 / count)
    drawn = np.random.default_rng(seed).multinomial(count, chance, size=replicates)
    return np.asarray(drawn, dtype=np.float64)


def share_measure(found: npt.ArrayLike, method: Method = "measured") -> Measure | None:
    """Return the share of true values with its Wilson interval; None where there are none.

    Example:
        >>> print(share_measure([True, True, True]))
        1 [0.4385 to 1]
    """
    values = np.asarray(found, dtype=np.float64)
    if not len(values):
        return None
    value = float(values.mean())
    low, high = wilson(value, len(values))
    return Measure(value=value, low=low, high=high, method=method, n=len(values))


def bounded(value: Floats, drawn: Floats, *, n: int, method: Method = "measured") -> Measure:
    """Return a value with the interval that holds 95 % of its bootstrap replicates."""
    whole = float(value)
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (whole, whole)
    return Measure(
        value=whole, low=float(min(low, whole)), high=float(max(high, whole)), method=method, n=n
    )


def auroc_measure(good: Floats, bad: Floats, method: Method = "measured") -> Measure | None:
    """Return the AUROC with its interval; None where a group is empty."""
    if not len(good) or not len(bad):
        return None
    found = auroc(good, bad, draws(len(good), 0), draws(len(bad), 1))
    return _of_two(auroc(good, bad), found, len(good), len(bad), method)


def recall_measure(
    good: Floats, bad: Floats, rate: float, method: Method = "measured"
) -> Measure | None:
    """Return the recall at a stated false rate with its interval; None where a group is empty."""
    if not len(good) or not len(bad):
        return None
    found = recall_at(good, bad, rate, draws(len(good), 0), draws(len(bad), 1))
    return _of_two(recall_at(good, bad, rate), found, len(good), len(bad), method)


def _of_two(value: Floats, drawn: Floats, good: int, bad: int, method: Method) -> Measure:
    """Return a value of two groups with its interval.

    Resampling a perfect separation gives nothing but perfect ones; then the interval is that of
    a share of the smaller group.
    """
    found = bounded(value, drawn, n=good + bad, method=method)
    if found.low != found.high:
        return found
    low, high = wilson(found.value, min(good, bad))
    return replace(found, low=low, high=high)
