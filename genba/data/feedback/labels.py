"""What all that was said amounts to: one lesson per row of data, or none."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Final

from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.task import Lesson, Task
from genba.data.feedback import regions, texts
from genba.data.feedback.join import find_seen
from genba.data.feedback.rows import Label
from genba.runs.lines import newest_line
from genba.store.feedback import FeedbackRow
from genba.store.home import Store

#: ("moment", entity, ms), or ("prediction", id) where the prediction has no time; of numbers that
#: name their column ("load = 12.5"), the column behind it.
Target = tuple[Any, ...]
Judge = Callable[[Mapping[str, Any], float, Mapping[str, Any]], str]
_IMAGES: Final = "image"  # the modality in which places can be marked
_TEXTS: Final = "text"
_BLOCK: Final = 5_000  # events looked through at a time
_COLUMN: Final = re.compile(r"\s*([^=]+?)\s*=[^=]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Opinion:
    """What one author says about one target; the newest of what they said."""

    author: str
    label: float
    row: FeedbackRow
    mask: str | None = None  # blob; the newest that went with this label


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What the task of a line makes of what people say."""

    label: Label  # a value as the label of a sample
    judge: Judge  # `Task.outcome`: how a label judges an answer
    marks: bool  # whether places can be marked: the line is about images
    numbers: bool = True  # whether labels are quantities rather than classes
    words: bool = False  # whether labels are answers in words; see `genba.data.feedback.texts`

    def against(self, one: float, other: float) -> bool:
        """Say whether two labels contradict each other."""
        return texts.against(one, other) if self.words else one != other

    def settle(self, labels: Iterable[float]) -> float | None:
        """Return the label that authors agree on; None where they do not."""
        return texts.settled(labels) if self.words else majority(labels, numbers=self.numbers)


def task_of(store: Store, line: str) -> Task:
    """Return the task of a line.

    Raises:
        Problem: G810 when the store knows no such line.
    """
    record = newest_line(store, line)
    if record is None:
        raise Problem(
            "G810",
            f"There is no line {line} in this store.",
            where=str(store.path),
            tries=["genba status", f"genba run {line}.toml"],
        )
    found: Task = resolve("task", str(record.body["task"]))()
    return found


def classes_of(store: Store, line: str) -> tuple[str, ...]:
    """Return what the labels 0, 1, 2, ... of the newest dataset mean; () where they are numbers."""
    newest = store.ledger.find("dataset", line=line, limit=1)
    return tuple(str(name) for record in newest for name in record.body.get("classes") or ())


def meaning_of(store: Store, line: str) -> Meaning:
    """Return what the task of a line makes of what people say.

    Raises:
        Problem: G810 when the store knows no such line.
    """
    task, classes = task_of(store, line), classes_of(store, line)
    words = task.modality == _TEXTS and not classes
    return Meaning(
        label=partial(task.label, classes=classes),
        judge=task.outcome,
        marks=task.modality == _IMAGES,
        numbers=not classes and not words,
        words=words,
    )


def target_of(prediction: str | None, entity: str | None, time_ms: int | None) -> Target:
    """Name what a row is about, the same for every way of saying it."""
    if time_ms is not None:
        return ("moment", entity, time_ms)
    return ("prediction", prediction)


def within(target: Target, value: str | None, *, numbers: bool) -> Target:
    """Return the target of a value: of a number that names its column, that column.

    Example:
        >>> within(("moment", "a", 0), "load = 12.5", numbers=True)
        ('moment', 'a', 0, 'load')
    """
    named = _COLUMN.match(value or "") if numbers else None
    return (*target, named[1]) if named else target


def opinions(
    rows: Iterable[FeedbackRow], label: Label, *, numbers: bool = True
) -> dict[Target, dict[str, Opinion]]:
    """Return the newest label of every author for every target.

    Args:
        rows: Oldest first.
        label: Turns a value into a label; what it no longer knows is left out.
        numbers: Whether labels are quantities rather than classes.
    """
    found: dict[Target, dict[str, Opinion]] = {}
    for row in rows:
        if row.kind == "comment" or row.value is None:
            continue
        try:
            said = Opinion(author=row.author, label=label(row.value), row=row, mask=row.mask)
        except Problem:
            continue
        target = target_of(row.prediction, row.entity, row.time_ms)
        voices = found.setdefault(within(target, row.value, numbers=numbers), {})
        voices[row.author] = heard(voices.get(row.author), said)
    return found


def heard(before: Opinion | None, now: Opinion) -> Opinion:
    """Return what an author is taken to say: who repeats a label keeps the mask given with it."""
    if before and now.mask is None and before.label == now.label:
        return replace(now, mask=before.mask)
    return now


def majority(labels: Iterable[float], *, numbers: bool = False) -> float | None:
    """Return the label most authors agree on; None on a tie.

    Args:
        labels: The last word of each author.
        numbers: Whether labels are quantities, so that one may lie between others. Where no two
            agree, the middle one of an odd number of them counts then: one author who is far off
            cannot move it far, and two who differ are asked again.

    Example:
        >>> majority([1.0, 0.0, 1.0]), majority([1.0, 0.0])
        (1.0, None)
        >>> majority([12.4, 90.0, 12.6], numbers=True)
        12.6
    """
    given = list(labels)
    ranked = Counter(given).most_common(2)
    if not ranked:
        return None
    if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
        return ranked[0][0]
    return median(given) if numbers and len(given) % 2 else None


def effective_labels(store: Store, line: str, *, label: Label | None = None) -> list[Lesson]:
    """Return what may be learned.

    The newest word of each author counts once; the majority decides; a tie is left out and goes to
    the labelling queue. Of those who agree on the label, what at least half marked is the mask.
    Late labels count: they are true, if old. Rows whose prediction was unknown when they came are
    looked up again. Who spoke first makes no difference.

    Args:
        store: Where the feedback is.
        line: Name of the line.
        label: Turns a value into a label; the task's own by default.

    Returns:
        Lessons, oldest moment first.
    """
    rows = known(store, line, store.feedback.all(line))
    numbers = not classes_of(store, line)
    means = (
        Meaning(label=label, judge=lambda *_: "", marks=False, numbers=numbers)
        if label
        else meaning_of(store, line)
    )
    if means.words:
        rows = _with_callers(store, line, rows)
    lessons = []
    for voices in opinions(rows, means.label, numbers=means.numbers).values():
        agreed = means.settle(o.label for o in voices.values())
        if agreed is not None:
            lessons.append(_lesson(store, agreed, voices.values()))
    return sorted(lessons, key=_order)


def _with_callers(store: Store, line: str, rows: Iterable[FeedbackRow]) -> list[FeedbackRow]:
    """Return rows whose authors bear the key that spoke for them, so that no key is another."""
    callers, after = {}, 0
    while events := store.ledger.events(
        after=after, line=line, kinds=("feedback.received",), limit=_BLOCK
    ):
        callers.update({e.subject: e.body["caller"] for e in events if e.body.get("caller")})
        after = events[-1].seq
    return [
        replace(row, author=f"{row.author}@{callers[row.batch]}") if row.batch in callers else row
        for row in rows
    ]


def _lesson(store: Store, agreed: float, voices: Collection[Opinion]) -> Lesson:
    rows = [o.row for o in voices if o.label == agreed]
    masks = sorted({o.author: o.mask for o in voices if o.label == agreed and o.mask}.items())
    return Lesson(
        value=min(str(row.value) for row in rows),
        label=agreed,
        prediction=min((o.row.prediction for o in voices if o.row.prediction), default=None),
        entity=rows[0].entity,
        time_ms=rows[0].time_ms,
        mask=regions.agreed([store.blobs.read(mask) for _, mask in masks]),
        authors=tuple(sorted(row.author for row in rows)),
        feedback=tuple(sorted(row.id for row in rows)),
    )


def _order(lesson: Lesson) -> tuple[int, str, str, str]:
    return (lesson.time_ms or 0, lesson.entity or "", lesson.prediction or "", lesson.value)


def known(store: Store, line: str, rows: Iterable[FeedbackRow]) -> list[FeedbackRow]:
    """Return the rows whose prediction is known, joined again where it was not at first."""
    given = list(rows)
    waiting = [r for r in given if r.status == "unknown"]
    found = find_seen(
        store,
        line,
        [r.prediction for r in waiting if r.prediction],
        [(r.entity, r.time_ms) for r in waiting if not r.prediction and r.time_ms is not None],
    )
    joined = []
    for row in given:
        if row.status != "unknown":
            joined.append(row)
            continue
        seen = (
            found.by_id.get(row.prediction)
            if row.prediction
            else found.by_moment.get((row.entity, row.time_ms or 0))
        )
        if seen:
            joined.append(
                replace(row, prediction=seen.prediction, entity=seen.entity, time_ms=seen.time_ms)
            )
    return joined
