"""What all that was said amounts to: one label per row of data, or none."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.feedback.join import find_seen
from genba.data.feedback.rows import Label
from genba.runs.lines import newest_line
from genba.store.feedback import FeedbackRow
from genba.store.home import Store

#: ("moment", entity, ms), or ("prediction", id) where the prediction has no time.
Target = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Opinion:
    """What one author says about one target; the newest of what they said."""

    author: str
    label: float
    row: FeedbackRow


def labeller(store: Store, line: str) -> Label:
    """Return the function that turns a word into a label, from the task of the line.

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
    found: Label = resolve("task", str(record.body["task"]))().label
    return found


def target_of(prediction: str | None, entity: str | None, time_ms: int | None) -> Target:
    """Name what a row is about, the same for every way of saying it."""
    if time_ms is not None:
        return ("moment", entity, time_ms)
    return ("prediction", prediction)


def opinions(rows: Iterable[FeedbackRow], label: Label) -> dict[Target, dict[str, Opinion]]:
    """Return the newest label of every author for every target.

    Args:
        rows: Oldest first.
        label: Turns a value into a label; what it no longer knows is left out.
    """
    found: dict[Target, dict[str, Opinion]] = {}
    for row in rows:
        if row.kind == "comment" or row.value is None:
            continue
        try:
            said = Opinion(author=row.author, label=label(row.value), row=row)
        except Problem:
            continue
        found.setdefault(target_of(row.prediction, row.entity, row.time_ms), {})[row.author] = said
    return found


def majority(labels: Iterable[float]) -> float | None:
    """Return the label most authors agree on; None on a tie.

    Example:
        >>> majority([1.0, 0.0, 1.0]), majority([1.0, 0.0])
        (1.0, None)
    """
    ranked = Counter(labels).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def effective_labels(
    store: Store, line: str, *, label: Label | None = None
) -> list[dict[str, Any]]:
    """Return the labels that may be trained on.

    The newest word of each author counts once; the majority decides; a tie is left out and goes to
    the labelling queue. Late labels count: they are true, if old. Rows whose prediction was unknown
    when they came are looked up again.

    Args:
        store: Where the feedback is.
        line: Name of the line.
        label: Turns a value into a label; the task's own by default.

    Returns:
        Mappings with `entity`, `time_ms`, `value` (the label as a number) and `prediction`, oldest
        moment first.
    """
    rows = known(store, line, store.feedback.all(line))
    effective = []
    for voices in opinions(rows, label or labeller(store, line)).values():
        agreed = majority(o.label for o in voices.values())
        if agreed is None:
            continue
        row = next(iter(voices.values())).row
        effective.append(
            {
                "entity": row.entity,
                "time_ms": row.time_ms,
                "value": agreed,
                "prediction": row.prediction,
            }
        )
    return sorted(effective, key=_order)


def _order(row: Mapping[str, Any]) -> tuple[int, str, str]:
    return (row["time_ms"] or 0, row["entity"] or "", row["prediction"] or "")


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
