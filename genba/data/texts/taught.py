"""What people said about answers and classes, as rows to learn from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from genba.core.task import Lesson, Task
from genba.data.feedback.vetting import Asked, Held, Rules, vetted
from genba.data.images.lessons import Meant, meant
from genba.data.texts.gather import Came

_NAME: Final = "feedback:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Taught:
    """A row that somebody's words became."""

    came: Came
    messages: str
    text: str
    answer: str
    rejected: str
    weight: float
    label: float  # NaN where it is an answer
    name: str  # "feedback:ID"
    replaces: bool  # somebody said what would have been right: it counts more than the source


def from_answers(
    came: Sequence[Came], lessons: Iterable[Lesson], known: tuple[str, ...]
) -> tuple[list[Taught], tuple[Held, ...]]:
    """Return what was said about answers; what must not be learnt is held back with its reason.

    Args:
        came: Questions that were judged.
        lessons: What people agreed on.
        known: Texts whose contacts are the house's own.
    """
    by_id = {one.prediction: one for one in came}
    asked = [
        Asked(
            prediction=one.prediction,
            messages=one.messages,
            text=one.text,
            answer=one.answer,
            time_ms=one.received_ms,
        )
        for one in came
    ]
    found = vetted(asked, lessons, Rules(known=known))
    rows = [
        Taught(
            came=by_id[pair.prediction],
            messages=pair.messages,
            text=pair.text,
            answer=pair.answer,
            rejected=pair.rejected,
            weight=pair.weight,
            label=float("nan"),
            name=pair.name,
            replaces=bool(pair.answer) and pair.answer != by_id[pair.prediction].answer,
        )
        for pair in found.pairs
    ]
    return rows, found.held


def from_classes(came: Sequence[Came], said: Meant) -> list[Taught]:
    """Return what was said about classes.

    Args:
        came: Questions that were judged.
        said: Lessons in the numbers of the classes the version is going to have.
    """
    rows = []
    for one in came:
        heard = said.about(one.prediction, one.entity, one.time)
        if not heard:
            continue
        lesson = heard[-1]
        rows.append(
            Taught(
                came=one,
                messages=one.messages,
                text=one.text,
                answer="",
                rejected="",
                weight=1.0,
                label=lesson.label,
                name=_NAME + ("+".join(lesson.feedback) or one.prediction),
                replaces=one.answered is not None and lesson.label != one.answered,
            )
        )
    return rows


def heard(task: Task, lessons: Sequence[Lesson], classes: tuple[str, ...]) -> Meant:
    """Return lessons by what they are about; about answers, their labels stay as they are."""
    return meant(task, lessons, classes) if classes else Meant((), lessons)


def completed(rows: Iterable[Taught], right: dict[str, str]) -> list[Taught]:
    """Give answers that are only known to be bad the right one, where the source has it.

    Args:
        rows: What was taught.
        right: Answers of the source, by the messages they answer.
    """
    return [
        replace(row, answer=right[row.messages])
        if not row.answer and right.get(row.messages, row.rejected) != row.rejected
        else row
        for row in rows
    ]
