"""In which order predictions are worth a label: pure functions of what is known about them.

The same functions rank what a factory has served and, in `benchmarks/labels`, what a test pool
holds, so that what is measured is what is used.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.learn.clusters import representatives

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Candidates per question: of so many of the most worth, those are asked that stand for others.
CHOICE: Final = 10
#: What a candidate must be worth to be asked because it stands for others, relative to the last
#: question if only worth counted. Chosen on `benchmarks/labels`: below, where few rows matter
#: (rare faults) the queue wanders off to rows that do not; products did as well at 0 as at 0.9.
AS_GOOD: Final = 0.9


def worth(uncertainty: Floats, novelty: Floats, disagreement: Floats) -> Floats:
    """Return what an answer is worth: the sum of its reasons.

    Args:
        uncertainty: How unsure the model is, 0 to 1 [N].
        novelty: How unlike every known case it is, 0 to 1 [N].
        disagreement: How many kinds of judges, models or people, disagree about it [N].
    """
    return np.asarray(uncertainty) + np.asarray(novelty) + np.asarray(disagreement)


def first(worths: Floats, disagreement: Floats, looks: Floats | None, count: int) -> Indices:
    """Return which candidates to ask about, best first.

    What is disputed comes first. For the rest, the most worth, as far as they are about as much
    worth, are put into as many clusters as there are questions left, by what they look like, and
    of each cluster the candidate in the middle is asked, since its answer says most about the
    others (after F. Zhdanov, "Diverse mini-batch active learning", arXiv:1901.05954, 2019).

    Args:
        worths: [N].
        disagreement: [N]; above 0 where somebody disagrees.
        looks: What candidates look like, [N, D]: near each other = alike. None: not known.
        count: How many questions there may be.

    Returns:
        Indices int64, at most `count`.

    Example:
        >>> first(np.array([0.9, 0.89, 0.88]), np.zeros(3), np.array([[0.0], [0.0], [5.0]]), 2)
        array([0, 2])
        >>> first(np.array([0.9, 0.89, 0.1]), np.zeros(3), np.array([[0.0], [0.0], [5.0]]), 2)
        array([0, 1])
    """
    ranked = np.argsort(-worths, kind="stable")
    disputed = ranked[disagreement[ranked] > 0][:count]
    rest = ranked[disagreement[ranked] <= 0]
    left = count - len(disputed)
    top = rest[: CHOICE * left]
    if len(top) > left > 0:
        top = top[worths[top] >= AS_GOOD * worths[top[left - 1]]]
    if looks is None or len(top) <= left:
        chosen = top[:left]
    else:
        chosen = top[np.sort(representatives(looks[top], worths[top], left))]
    return np.concatenate([disputed, chosen]).astype(np.int64)


def one_per_episode(
    owners: Sequence[str | None], times: Sequence[int | None], ranked: Indices, gap: int
) -> Indices:
    """Return the best of each episode: of consecutive predictions, one answer settles the others.

    Args:
        owners: Entity of each candidate.
        times: Of each candidate, None where it has none: then it is its own episode.
        ranked: Indices of candidates, best first.
        gap: Predictions of an entity nearer than this belong to one episode, in the unit of time.
    """
    taken: dict[tuple[str | None, int], int] = {}  # a cell is as long as the gap, so it holds one
    kept = []
    for index in ranked.tolist():
        time, owner = times[index], owners[index]
        if time is not None:
            cell = time // max(gap, 1)
            around = (taken.get((owner, c)) for c in (cell - 1, cell, cell + 1))
            if any(t is not None and abs(time - t) < gap for t in around):
                continue
            taken[owner, cell] = time
        kept.append(index)
    return np.array(kept, dtype=np.int64)
