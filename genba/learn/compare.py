"""Paired differences between two models, judged against a stated margin."""

import numpy as np
import numpy.typing as npt

from genba.core.task import Comparison
from genba.core.values import Measure, Method
from genba.learn.bootstrap import interval, ratio


def paired(
    name: str,
    where: str,
    sums: npt.NDArray[np.float64],
    *,
    margin: float,
    before: float,
    method: Method = "measured",
) -> Comparison:
    """Judge a paired difference, challenger minus champion, of something that should be small.

    The challenger is worse when the whole interval lies beyond the margin, and better when the
    whole interval lies below zero.

    Args:
        name: Of the measure.
        where: On which rows.
        sums: As `bootstrap.sums_by_block(block, difference, weight)` gives them.
        margin: How much worse is still as good.
        before: The champion's value, for the sentence.
        method: How the difference is known.
    """
    value, low, high = interval(ratio(0, 1), sums)
    difference = Measure(value=value, low=low, high=high, method=method, n=len(sums))
    worse = low is not None and low > margin
    better = high is not None and high < 0.0
    word = "worse" if worse else "better" if better else "no worse"
    return Comparison(
        name=name,
        where=where,
        difference=difference,
        worse=worse,
        better=better,
        reason=(
            f"On the {where} the challenger is {word} in {name}: it differs by {difference} from "
            f"the champion's {before:.4g}; up to {margin:+.2g} is allowed."
        ),
    )
