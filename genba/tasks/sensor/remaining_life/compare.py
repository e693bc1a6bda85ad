"""Two models on the same rows: paired differences with intervals over units."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.core.task import Comparison, Scores
from genba.learn.bootstrap import sums_by_block
from genba.learn.compare import paired

Evidence = Mapping[str, Array]

#: How much worse a challenger may be, as a share of what the champion has.
_MARGIN: Final = 0.02


def compare(champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
    """Compare two models on the rows that both were measured on, unit by unit.

    A challenger is worse when the whole interval of the difference lies beyond the margin. Cost is
    compared as in `policy.py`: a unit's cost less what its cycles of service are worth at the
    champion's cost per cycle, so that thrown-away life counts.
    """
    if not champion.evidence or not challenger.evidence:
        return ()
    old, new = _shared(champion.evidence, challenger.evidence)
    found = [_errors(old, new, where), _costs(old, new, champion, where)]
    return tuple(c for c in found if c is not None)


def _shared(champion: Evidence, challenger: Evidence) -> tuple[Evidence, Evidence]:
    _, first, second = np.intersect1d(champion["row"], challenger["row"], return_indices=True)
    return (
        {n: column[first] for n, column in champion.items()},
        {n: column[second] for n, column in challenger.items()},
    )


def _errors(old: Evidence, new: Evidence, where: str) -> Comparison | None:
    good = np.isfinite(old["loss"]) & np.isfinite(new["loss"])
    if not good.any():
        return None
    before = float(old["loss"][good].mean())
    difference = (new["loss"] - old["loss"])[good]
    block = np.unique(old["block"][good], return_inverse=True)[1].astype(np.int64)
    sums = sums_by_block(block, difference, np.ones(len(difference)))
    return paired("squared error", where, sums, margin=_MARGIN * before, before=before)


def _costs(old: Evidence, new: Evidence, champion: Scores, where: str) -> Comparison | None:
    _, at = np.unique(old["block"], return_index=True)
    at = at[np.isfinite(old["unit_end"][at]) & np.isfinite(new["unit_end"][at])]
    told = champion.measures.get("cost_per_unit")
    if not len(at) or told is None:
        return None
    per_cycle = told.value / float(old["unit_end"][at].mean())
    difference = new["unit_cost"][at] - old["unit_cost"][at]
    difference = difference - per_cycle * (new["unit_used"][at] - old["unit_used"][at])
    sums: npt.NDArray[np.float64] = np.stack([difference, np.ones(len(at))], axis=1)
    return paired("cost_per_unit", where, sums, margin=_MARGIN * told.value, before=told.value)
