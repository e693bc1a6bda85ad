"""How bad a failure rate can still be, given what was seen."""

import math
from typing import Final

_ERROR: Final = 0.05
_STEPS: Final = 60


def upper_bound(failed: int, count: int, error: float = _ERROR) -> float:
    """Return the upper end of the one-sided interval of a rate (Clopper and Pearson, 1934).

    The largest rate with which so few failures would still be seen with probability `error`. With
    no failure of n it is 1 - error^(1/n), the rule of three: about 3 / n (Hanley and
    Lippman-Hand, JAMA 1983).

    Args:
        failed: How many failed.
        count: Of how many independent trials; of none nothing is known.
        error: One minus the confidence.

    Example:
        >>> round(upper_bound(0, 100), 4), round(upper_bound(3, 100), 4), upper_bound(0, 0)
        (0.0295, 0.0757, 1.0)
    """
    if failed >= count:
        return 1.0
    low, high = failed / count, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _at_most(failed, count, middle) > error:
            low = middle
        else:
            high = middle
    return high


def _at_most(failed: int, count: int, rate: float) -> float:
    """Return the probability of at most so many failures."""
    if rate >= 1.0:
        return 0.0
    logs = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + (k * math.log(rate) if k else 0.0) + (count - k) * math.log1p(-rate)
        for k in range(failed + 1)
    )  # fmt: skip
    return math.fsum(math.exp(value) for value in logs)
