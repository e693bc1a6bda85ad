"""How wrong are the labels people gave? Estimated from the labels alone, by their consistency.

Two readings a few minutes apart that look alike deserve the same label. Where labels are wrong
independently with probability p, and a wrong one may be any of the other k - 1 classes, two labels
of a pair that truly agrees differ with probability d = 2 p - p^2 k / (k - 1); with two classes
that is 2 p (1 - p). Two kinds of pairs are used:

- neighbours in time within one episode of one entity, the half of them that look most alike: they
  truly agree nearly always (97 to 99 % of them in four months of the wind farm);
- nearest look-alikes in different episodes: these catch whole episodes that are labelled wrong.
  They truly differ more often, for which an allowance is made. Images have no other pairs.

What no consistency can show is a batch that is wrong throughout; paired comparison with the model
in production and simulated faults are there for that.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.values import Measure
from genba.learn.bootstrap import interval, ratio, sums_by_block

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Look-alikes of different episodes that truly differ cost up to this much in the estimate. Chosen
#: on five months of the wind farm with clean labels (0.03 to 0.09); in nine other months clean
#: labels then came out at 0 to 0.13, and none were refused at a limit of 0.1.
AMBIGUITY: Final = 0.09
_FEWEST_PAIRS: Final = 10
_BATCH: Final = 1_000  # labels that are judged together
_NEWEST: Final = 250  # a bad batch that has just begun; docs/LOG.md has how often it is found
_MOST_ROWS: Final = 2_000  # whose look-alikes are searched, the newest


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelNoise:
    """An estimate of the share of wrong labels."""

    rate: Measure
    labels: int
    pairs: int

    def exceeds(self, limit: float) -> bool:
        """Say whether the labels are noisier than the limit even at the low end of the interval."""
        return self.rate.low is not None and self.rate.low > limit


def worst(
    features: Floats,
    entity: Ints,
    time: Ints,
    label: Floats,
    *,
    merge: int | None,
    classes: int = 2,
) -> LabelNoise | None:
    """Estimate the noise of every thousand labels in the order of time, and of the newest few.

    Wrong labels come in batches: a new shift, a broken script. Among thousands of good labels
    from before and after, a bad batch would vanish in the average, and so would the first few
    hundred of one that has just begun. The noisiest batch counts.

    Args:
        features: As for `estimate`, and so are the others.
        entity: [N].
        time: [N].
        label: [N].
        merge: See `estimate`.
        classes: See `estimate`.

    Returns:
        The estimate whose interval lies highest, or None when there are too few pairs.
    """
    order = np.argsort(time, kind="stable")
    batches = [*np.array_split(order, max(1, len(order) // _BATCH)), order[-_NEWEST:]]
    found = [
        estimate(
            *(column[rows] for column in (features, entity, time, label)),
            merge=merge,
            classes=classes,
        )
        for rows in batches
    ]
    known = [noise for noise in found if noise is not None]
    return max(known, key=lambda noise: noise.rate.low or 0.0, default=None)


def estimate(
    features: Floats,
    entity: Ints,
    time: Ints,
    label: Floats,
    *,
    merge: int | None,
    classes: int = 2,
) -> LabelNoise | None:
    """Estimate the share of wrong labels in a batch.

    Args:
        features: What the rows look like [N, F]: readings and score; NaN counts as zero.
        entity: [N].
        time: [N].
        label: Class number [N].
        merge: Rows of one entity at most so far apart in time are one episode; None where rows
            that follow each other have nothing to do with each other, as images of parts.
        classes: How many there are, at least 2.

    Returns:
        The estimate, or None when there are too few pairs to say anything.
    """
    order = np.lexsort((time, entity))
    entity, time, label = entity[order], time[order], label[order]
    looks = _standardise(features[order])
    starts = (np.diff(entity) != 0) | (np.diff(time) > (-1 if merge is None else merge))
    episode = np.concatenate([[0], np.cumsum(starts)]).astype(np.int64)[: len(label)]
    kinds = [
        (_within(looks, episode), 0.0),
        (_across(looks, episode, time), AMBIGUITY),
    ]
    rates = [_rate(pairs, episode, label, less, classes) for pairs, less in kinds]
    known = [rate for rate in rates if rate is not None]
    if not known:
        return None
    worst = max(known, key=lambda m: m.low or 0.0)
    return LabelNoise(rate=worst, labels=len(label), pairs=sum(m.n or 0 for m in known))


def _standardise(features: Floats) -> Floats:
    known = np.nan_to_num(features, posinf=0.0, neginf=0.0)
    if not len(known):
        return known
    return np.asarray((known - known.mean(axis=0)) / (known.std(axis=0) + 1e-9), dtype=np.float64)


def _within(looks: Floats, episode: Ints) -> Ints:
    """Return the half of neighbouring rows of an episode that look most alike [pairs, 2]."""
    at = np.flatnonzero(np.diff(episode) == 0)
    apart = np.abs(looks[at] - looks[at + 1]).max(axis=1, initial=0.0)
    alike = at[apart <= np.median(apart)] if len(at) else at
    return np.stack([alike, alike + 1], axis=1)


def _across(looks: Floats, episode: Ints, time: Ints) -> Ints:
    """Return each row with the row of another episode that looks most like it [pairs, 2]."""
    rows: Ints = np.sort(np.argsort(time, kind="stable")[-_MOST_ROWS:])
    chosen, group = looks[rows], episode[rows]
    square = (chosen**2).sum(axis=1)
    distance = square[:, None] + square[None] - 2.0 * (chosen @ chosen.T)
    distance[group[:, None] == group[None]] = np.inf
    if not len(rows) or not np.isfinite(distance).any():
        return np.zeros((0, 2), dtype=np.int64)
    nearest = distance.argmin(axis=1)
    found = np.isfinite(distance.min(axis=1))
    return np.stack([rows[found], rows[nearest[found]]], axis=1)


def _rate(pairs: Ints, episode: Ints, label: Floats, less: float, classes: int) -> Measure | None:
    """Return the noise rate that explains how often pairs differ, with its interval."""
    if len(pairs) < _FEWEST_PAIRS:
        return None
    differs = label[pairs[:, 0]] != label[pairs[:, 1]]
    blocks = np.unique(episode[pairs[:, 0]], return_inverse=True)[1].astype(np.int64)
    sums = sums_by_block(blocks, differs, np.ones(len(pairs)))
    value, low, high = interval(ratio(0, 1), sums)
    if low is None or high is None:
        low, high = 0.0, 1.0
    found = (_noise(d, classes) - less for d in (value, low, high))
    rate, bottom, top = (max(0.0, one) for one in found)
    return Measure(value=rate, low=bottom, high=top, method="estimated", n=len(pairs))


def _noise(differing: float, classes: int = 2) -> float:
    """Solve d = 2 p - p^2 k / (k - 1) for p.

    Example:
        >>> round(_noise(0.18), 6), round(_noise(0.18, 10), 6)
        (0.1, 0.095016)
    """
    most = (classes - 1) / classes
    return float(most * (1.0 - np.sqrt(max(0.0, 1.0 - differing / most))))
