"""Two models from the same origins: paired differences with intervals, against stated margins."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from genba.core.protocols import Array
from genba.core.task import Comparison, Scores
from genba.learn.bootstrap import sums_by_block
from genba.learn.compare import paired

#: How much worse a challenger may be, as a share of the champion's loss.
_MARGIN: Final = 0.02


def compare(champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
    """Compare two models forecast by forecast, from the same origins over the same horizon.

    Compared are the mean absolute error (`loss`) and, where both answer intervals, the mean
    pinball loss of what they answer, so that one does not win by intervals that promise nothing.
    Both are measured in the challenger's scale of each output: each model has scales of its own.
    """
    old, new = champion.evidence, challenger.evidence
    if not old or not new or int(old["horizon"][0]) != int(new["horizon"][0]):
        return ()
    _, first, second = np.intersect1d(old["row"], new["row"], return_indices=True)
    if not len(first):
        return ()
    found = []
    for name, sums in (("loss", "absolute_by"), ("pinball", "pinball_by")):
        if sums in old and sums in new:
            found.append(_paired(name, where, sums, (old, first), (new, second)))
    return tuple(found)


def _paired(
    name: str,
    where: str,
    sums: str,
    champion: tuple[Mapping[str, Array], Array],
    challenger: tuple[Mapping[str, Array], Array],
) -> Comparison:
    (old, first), (new, second) = champion, challenger
    count = np.maximum(old["count"][first], 1.0)
    scale = new["scale_by"][second]
    before, after = ((e[sums][at] / scale).sum(axis=1) for e, at in (champion, challenger))
    mean = float(before.sum() / count.sum())
    blocks = sums_by_block(old["block"][first], after - before, count)
    return paired(name, where, blocks, margin=_MARGIN * mean, before=mean)
