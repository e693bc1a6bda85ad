"""Probabilities that mean what they say, and the bar below which the model does not answer."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.learn.classes.heads import losses

Floats = npt.NDArray[np.float64]

_RANGE: Final = 4.0  # of the logarithm of the temperature, both ways
_ROUNDS: Final = 60
_DOUBT: Final = 0.1  # probability with which the promise about errors may fail
_SETS: Final = 40  # of answered images, from the most confident to all
_MOST_ABSTAINED: Final = 0.5


def temperature(logits: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> float:
    """Return what to divide logits by so that they fit labels best.

    Guo et al., "On calibration of modern neural networks", ICML 2017. A weak prior (standard normal
    in the logarithm) keeps it near 1 where there are few images.
    """

    def loss(power: float) -> float:
        cooled = logits.astype(np.float64) / math.exp(power)
        return float(losses(cooled.astype(np.float32), label).sum()) + power * power / 2

    low, high, ratio = -_RANGE, _RANGE, (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(_ROUNDS):  # golden section: the loss has one minimum
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The confidence below which the model abstains, and what is known about it."""

    value: float
    images: int  # that it was computed from
    abstained: float  # share of them below it
    wrong: float  # share of wrong answers among the others
    guaranteed: bool


def bar(confidence: Floats, correct: npt.NDArray[np.bool_], allowed: float) -> Bar:
    """Choose the lowest bar that keeps wrong answers, among those given, at an allowed share.

    Bars are tried from the highest down, and each is taken while the hypothesis that more than the
    allowed share is wrong can be rejected (binomial, at one in ten): fixed-sequence testing as in
    Angelopoulos et al., "Learn then test", 2021. Where there are too few images to reject anything
    the share that was seen decides, and nothing is guaranteed. At most half of the images are
    abstained from; a model that needs more is not calibrated but bad, and the gates shall say so.

    Args:
        confidence: Probability of the likeliest class [N].
        correct: Whether it was the right one [N].
        allowed: Share of wrong answers among those given; 0: abstain from nothing.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, wrong = confidence[order], np.cumsum(~correct[order])
    count = len(order)
    if not count or allowed <= 0.0:
        error = float(wrong[-1] / count) if count else 0.0
        return Bar(value=0.0, images=count, abstained=0.0, wrong=error, guaranteed=False)
    first = math.ceil(math.log(_DOUBT) / math.log1p(-allowed))  # images that can prove anything
    first = max(first, round(count * (1.0 - _MOST_ABSTAINED)))
    taken = 0
    for answered in np.unique(np.linspace(first, count, _SETS).astype(np.int64)):
        if answered > count or _at_most(int(wrong[answered - 1]), int(answered), allowed) > _DOUBT:
            break
        taken = int(answered)
    guaranteed = taken > 0
    if not guaranteed:
        good = np.flatnonzero(wrong / np.arange(1, count + 1) <= allowed)
        taken = max(int(good[-1]) + 1 if len(good) else 0, round(count * (1.0 - _MOST_ABSTAINED)))
    taken = max(1, taken)
    return Bar(
        value=_between(sure, taken),
        images=count,
        abstained=1.0 - taken / count,
        wrong=float(wrong[taken - 1] / taken),
        guaranteed=guaranteed,
    )


def _between(sure: Floats, taken: int) -> float:
    """Return a value between the last confidence that answers and the first that does not."""
    if taken >= len(sure):
        return 0.0
    return float(sure[taken - 1] + sure[taken]) / 2


def _at_most(wrong: int, count: int, rate: float) -> float:
    """Return the probability of at most so many wrong of `count` if each is wrong at this rate.

    Example:
        >>> round(_at_most(1, 2, 0.5), 6)
        0.75
    """
    k = np.arange(wrong + 1)
    log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    terms = log[count] - log[k] - log[count - k] + k * np.log(rate) + (count - k) * np.log1p(-rate)
    return float(min(1.0, np.exp(terms).sum()))
