"""Two chat models on the same questions: paired differences with intervals, and stated margins."""

from typing import Final

import numpy as np

from genba.core.protocols import Array
from genba.core.task import Comparison, Scores
from genba.learn.bootstrap import sums_by_block
from genba.learn.compare import paired

_LOSS_MARGIN: Final = 0.05  # nats per token that still count as no worse
_UNLIKE_MARGIN: Final = 0.05  # of the cosine


def compare(champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
    """Compare two models on the questions that both were asked.

    Returns:
        `loss` of right answers (nats per token), and `unlike`: how far written answers are from
        the right ones (1 less the cosine). Empty where there are no common rows.
    """
    old, new = champion.evidence, challenger.evidence
    found: list[Comparison] = []
    first, second = _common(old.get("row"), new.get("row"))
    if len(first):
        tokens = new["tokens"][second]
        before, after = old["loss"][first] * tokens, new["loss"][second] * tokens
        block = np.unique(new["block"][second], return_inverse=True)[1].astype(np.int64)
        sums = sums_by_block(block, after - before, tokens)
        mean = float(before.sum() / tokens.sum())
        found.append(paired("loss", where, sums, margin=_LOSS_MARGIN, before=mean))
    first, second = _common(old.get("written_row"), new.get("written_row"))
    if len(first):
        before = 1.0 - old["written_similarity"][first]
        after = 1.0 - new["written_similarity"][second]
        sums = np.stack([after - before, np.ones(len(after))], axis=1)
        mean = float(before.mean())
        found.append(paired("unlike", where, sums, margin=_UNLIKE_MARGIN, before=mean))
    return tuple(found)


def _common(old: Array | None, new: Array | None) -> tuple[Array, Array]:
    if old is None or new is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, first, second = np.intersect1d(old, new, return_indices=True)
    return first, second
