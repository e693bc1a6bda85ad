"""Intervals of proportions of independent things, exact enough for few and for none."""

import math
from typing import Final

from genba.core.values import Measure, Method

_Z: Final = 1.959964  # of a 95 % interval


def proportion(hits: float, count: int, *, method: Method = "measured") -> Measure:
    """Return a share with its 95 % interval by Wilson (1927): three of three is no certainty.

    Args:
        hits: How many.
        count: Of how many, at least 1.
        method: How it is known.

    Example:
        >>> str(proportion(3, 3))
        '1 [0.4385 to 1]'
    """
    share = hits / count
    low, high = wilson(share, count)
    return Measure(value=share, low=low, high=high, method=method, n=count)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share seen in `count` trials (Wilson, JASA 1927).

    Example:
        >>> low, high = wilson(0.0, 20)
        >>> low, round(high, 3)
        (0.0, 0.161)
    """
    square = _Z * _Z
    centre = (share + square / (2 * count)) / (1 + square / count)
    spread = share * (1 - share) / count + square / (4 * count * count)
    half = _Z * math.sqrt(spread) / (1 + square / count)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
