"""Two classifiers on the same images: paired differences with intervals, against stated margins."""

from typing import Final

import numpy as np

from genba.core.protocols import Array
from genba.core.task import Comparison, Scores
from genba.learn.bootstrap import sums_by_block
from genba.learn.compare import paired

_ERROR_MARGIN: Final = 0.01  # more wrong answers, as a share, that still count as no worse
_CLASS_MARGIN: Final = 0.05  # the same of one class: a class has fewer images
_FEWEST: Final = 20  # images of a class that can say anything

Evidence = dict[str, Array]


def compare(champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
    """Compare two models image by image on the rows that both have judged.

    Returns:
        `error` (share of wrong answers, abstaining not counted) and `worst_class_error`: that of
        the class in which the challenger has lost most. Empty where there are no common rows.
    """
    old, new = _common(dict(champion.evidence), dict(challenger.evidence))
    if not len(old["row"]):
        return ()
    everything = np.ones(len(old["row"]), dtype=bool)
    found = [_paired("error", where, old, new, everything, _ERROR_MARGIN)]
    kinds, count = np.unique(new["label"], return_counts=True)
    lost = {
        int(kind): float((old["correct"] - new["correct"])[new["label"] == kind].mean())
        for kind, n in zip(kinds, count, strict=True)
        if n >= _FEWEST
    }
    if lost:
        kind = max(lost, key=lambda k: lost[k])
        rows = new["label"] == kind
        found.append(_paired("worst_class_error", where, old, new, rows, _CLASS_MARGIN))
    return tuple(found)


def _paired(
    name: str, where: str, old: Evidence, new: Evidence, rows: Array, margin: float
) -> Comparison:
    before, after = 1.0 - old["correct"][rows], 1.0 - new["correct"][rows]
    block = np.unique(new["block"][rows], return_inverse=True)[1].astype(np.int64)
    sums = sums_by_block(block, after - before, np.ones(len(before)))
    return paired(name, where, sums, margin=margin, before=float(before.mean()))


def _common(old: Evidence, new: Evidence) -> tuple[Evidence, Evidence]:
    _, first, second = np.intersect1d(old["row"], new["row"], return_indices=True)
    names = ("row", "correct", "label", "block")
    if not len(first):
        return {"row": first}, {"row": second}
    return {n: old[n][first] for n in names}, {n: new[n][second] for n in names}
