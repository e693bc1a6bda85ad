"""What people said about images, in the numbers of the classes that a version is going to have."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from genba.core.problem import Problem
from genba.core.task import Lesson, Task
from genba.data.roles import ONLY_ENTITY

_NEW: Final = "new:"
#: The class of what somebody called wrong without saying of which kind.
UNNAMED: Final = "defect"


class Meant:
    """Lessons by what they are about.

    Args:
        classes: Of the version, and behind them those that lessons name for the first time.
        lessons: With labels that count in `classes`.
    """

    def __init__(self, classes: tuple[str, ...], lessons: Iterable[Lesson]) -> None:
        self.classes = classes
        self._by_prediction: dict[str, list[Lesson]] = {}
        self._by_moment: dict[tuple[str, int], list[Lesson]] = {}
        for lesson in lessons:
            if lesson.prediction is not None:
                self._by_prediction.setdefault(lesson.prediction, []).append(lesson)
            elif lesson.time_ms is not None:
                moment = (lesson.entity or ONLY_ENTITY, lesson.time_ms)
                self._by_moment.setdefault(moment, []).append(lesson)

    def about(self, prediction: str, entity: str, time: int | None) -> list[Lesson]:
        """Return what was said about a prediction, or about its moment."""
        said = self._by_prediction.get(prediction, [])
        return said or ([] if time is None else self._by_moment.get((entity, time), []))

    def redirect(self, prediction: str, other: str) -> None:
        """Let what was said about a prediction count for one of the very same image."""
        said = self._by_prediction.pop(prediction, [])
        own = self._by_prediction.setdefault(other, [])
        own[:0] = [replace(lesson, prediction=other) for lesson in said]


def meant(task: Task, lessons: Iterable[Lesson], classes: tuple[str, ...]) -> Meant:
    """Give lessons the labels of a version's classes; what names a class first appends it.

    Args:
        task: Understands what was said.
        lessons: Their labels may count in the classes of another version.
        classes: Of the version; () where labels are numbers.
    """
    names, kept = list(classes), []
    for lesson in lessons:
        kept.append(replace(lesson, label=_label(task, lesson, names)))
    return Meant(tuple(names), kept)


def _label(task: Task, lesson: Lesson, names: list[str]) -> float:
    """Return the number of the class a lesson names; a new class is appended to the names."""
    named = lesson.value.strip().lower().startswith(_NEW)
    try:
        label = task.label(lesson.value, names)
    except Problem:  # a class of a later version, which this one has not
        label, named = float(len(names)), True
    if label < len(names):
        return label
    word = lesson.value.strip()
    name = word[len(_NEW) :].strip() if word.lower().startswith(_NEW) else word
    name = name if named else UNNAMED
    if name not in names:
        names.append(name)
    return float(names.index(name))
