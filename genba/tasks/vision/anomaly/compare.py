"""Two models on the same images: paired differences with intervals, against stated margins."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.core.task import Comparison, Scores
from genba.core.values import Method
from genba.learn.bootstrap import sums_by_block
from genba.learn.compare import paired
from genba.learn.ranking import rejecting

Evidence = Mapping[str, Array]
Floats = npt.NDArray[np.float64]

_MARGIN: Final = 0.02  # share of good parts, or of defects, by which a challenger may be worse
_RATE: Final = 0.01  # of overkill, at which what is missed is compared
_FEWEST: Final = 3  # images, below which nothing is compared


def compare(champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
    """Compare two models image by image.

    Overkill is compared at the thresholds that hold; what is missed at thresholds that reject the
    same share of these good parts, since whoever rejects everything misses nothing. Simulated
    defects count only where nobody has labelled any.
    """
    if not champion.evidence or not challenger.evidence:
        return ()
    old, new = _shared(champion.evidence, challenger.evidence, ("row", "label", "score", "alarm"))
    good = old["label"] == 0.0
    if not np.isfinite(old["label"]).any():
        good = np.isnan(old["label"])
    bad = old["label"] > 0.0
    found: list[Comparison] = []
    if good.sum() >= _FEWEST:
        found.append(_difference("overkill", where, old["alarm"][good], new["alarm"][good]))
        bars = [float(rejecting(e["score"][good], _RATE)) for e in (old, new)]
        if bad.sum() >= _FEWEST:
            before, after = (
                e["score"][bad] <= bar for e, bar in zip((old, new), bars, strict=True)
            )
            found.append(_difference("missed_at_equal_overkill", where, before, after))
        else:
            found += _simulated(champion.evidence, challenger.evidence, bars, where)
    return tuple(found)


def _simulated(
    champion: Evidence, challenger: Evidence, bars: list[float], where: str
) -> list[Comparison]:
    names = ("injected_row", "injected_score")
    old, new = _shared(champion, challenger, names)
    if len(old["injected_row"]) < _FEWEST:
        return []
    before, after = (e["injected_score"] <= b for e, b in zip((old, new), bars, strict=True))
    name = "simulated_missed_at_equal_overkill"
    return [_difference(name, where, before, after, "modelled")]


def _difference(
    name: str, where: str, old: Array, new: Array, method: Method = "measured"
) -> Comparison:
    before = old.astype(np.float64)
    change = new.astype(np.float64) - before
    sums = sums_by_block(np.arange(len(change)), change, np.ones(len(change)))
    return paired(name, where, sums, margin=_MARGIN, before=float(before.mean()), method=method)


def _shared(
    champion: Evidence, challenger: Evidence, names: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the evidence of both on the images that both have seen; the first name is the key."""
    key = names[0]
    _, first, second = np.intersect1d(champion[key], challenger[key], return_indices=True)
    return {n: champion[n][first] for n in names}, {n: challenger[n][second] for n in names}
