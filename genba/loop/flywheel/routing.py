"""Learning when the student may answer: from questions that both have answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.edge.assistant.seams import Embed
from genba.edge.student import FEATURES, Known, Route, Student, normalised, vectors_of
from genba.learn.logistic import logistic, rising
from genba.loop.flywheel.asked import Asked
from genba.loop.flywheel.elsewhere import ELSEWHERE
from genba.loop.flywheel.trial import quality

Floats = npt.NDArray[np.float64]

_SAME: Final = 1e-6  # of qualities: from here on two answers are as good
_WRONG: Final = -1.0  # what an answer is worth to a question about something else
NEVER: Final = Route(bar=2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lessons:
    """What a router learns from."""

    features: Floats  # [N, 3]
    difference: Floats  # quality of the student's answer less that of the large model's [N]


def lessons(known: Known, asked: Sequence[Asked], answers: Sequence[str], embed: Embed) -> Lessons:
    """Put together what a router learns from.

    Every question counts twice: as it is, and as if nobody had approved an answer to it, which is
    what questions will be like that nobody has thought of. Besides, questions about something else
    are to be left alone.

    Args:
        known: What the student knows.
        asked: Questions that the large model has answered.
        answers: What it said.
        embed: Of the encoder.
    """
    student = Student(known, NEVER, embed)
    vectors = vectors_of([one.text for one in asked], embed)
    model = quality(answers, asked, embed)
    features, difference = [], []
    for hidden in (False, True):
        places = []
        for one, vector in zip(asked, vectors, strict=True):
            without = _place(known, one.right) if hidden else None
            place, looked = student.look(one.text, vector, without=without)
            places.append(place)
            features.append(looked)
        said = [known.answers[place] for place in places]
        difference.append(quality(said, asked, embed) - model)
    far = vectors_of(ELSEWHERE, embed)
    features += [student.look(t, v)[1] for t, v in zip(ELSEWHERE, far, strict=True)]
    difference.append(np.full(len(ELSEWHERE), _WRONG))
    return Lessons(
        features=np.array(features).reshape(-1, len(FEATURES)),
        difference=np.concatenate(difference),
    )


def learn_route(features: Floats, difference: Floats) -> Route:
    """Learn when the student's answer is as good.

    The probability that it is comes from logistic regression; the bar is the lowest probability
    from which on the expected difference, made monotone, is not below zero. So a question is taken
    over only where it is expected to be answered as well, not where others make up for it.

    Args:
        features: What the router looks at [N, 3].
        difference: Quality of the student's answer less that of the large model's [N].

    Returns:
        The route; one that never answers where no part of the questions is answered as well.

    Example:
        >>> near = np.linspace(0.2, 1.0, 40)
        >>> features = np.column_stack([near, near, near])
        >>> route = learn_route(features, near - 0.6)
        >>> (route.confidence(features) >= route.bar).tolist() == (near > 0.6).tolist()
        True
    """
    good = difference >= -_SAME
    if not good.any():
        return NEVER
    if good.all():
        return Route(bar=0.0)
    weight, offset = logistic(features, good, np.full(len(good), 1.0 / len(good)))
    route = Route(weight=tuple(float(w) for w in weight), offset=offset, bar=2.0)
    sure = route.confidence(features)
    order = np.lexsort((-difference, sure))  # what is equally sure becomes one step
    taken = np.flatnonzero(rising(difference[order]) >= -_SAME)
    if not len(taken):
        return NEVER
    first = int(taken[0])
    below = float(sure[order[first - 1]]) if first else 0.0
    bar = (below + float(sure[order[first]])) / 2
    return Route(weight=route.weight, offset=offset, bar=bar)


def _place(known: Known, answer: str) -> int | None:
    """Return which of the known answers an answer is, None for none of them."""
    wanted = normalised(answer)
    return next((at for at, text in enumerate(known.answers) if normalised(text) == wanted), None)
