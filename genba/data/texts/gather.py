"""One way through captured predictions, newest first: what was asked and answered."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genba.core.problem import Problem
from genba.core.task import Task
from genba.data.roles import ONLY_ENTITY
from genba.data.served import Packages, Served, served
from genba.edge.texts import as_text, content_of, messages_of, written
from genba.store.captures import inputs_kept, read_capture
from genba.store.home import Store
from genba.store.ledger import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Came:
    """A question that was served and that somebody judged."""

    prediction: str
    entity: str
    time: int | None
    received_ms: int
    messages: str  # JSON: role and content only
    text: str
    answer: str  # as it was served
    answered: int | None  # class as it was served


@dataclass
class Gathered:
    """What was found."""

    came: list[Came] = field(default_factory=list)  # newest first
    counts: Counter[str] = field(default_factory=Counter)


def gather(
    store: Store,
    task: Task,
    captures: Sequence[Record],
    judged: Callable[[str, str, int | None], bool],
    *,
    entities: bool,
) -> Gathered:
    """Return the questions that people judged, and count the others.

    Args:
        store: Where captures are.
        task: Finds the questions in what its packages were given.
        captures: Records of captured predictions, oldest first.
        judged: Says whether somebody spoke about a prediction, its entity and time.
        entities: Whether the line tells entities apart.
    """
    found, packages = Gathered(), Packages(store)
    for record in reversed(captures):
        if inputs_kept(record.body) != "all":
            found.counts["inputs_not_kept"] += int(record.body["rows"])
            continue
        try:
            table = read_capture(store, record)
        except Problem:
            found.counts["damaged_batches"] += 1  # it hides its own rows and no others
            continue
        for part in served(packages, table):
            _take(found, part, task, str(record.body["server"]), judged, entities)
    return found


def _take(
    found: Gathered,
    part: Served,
    task: Task,
    server: str,
    judged: Callable[[str, str, int | None], bool],
    entities: bool,
) -> None:
    if not any(t.get("role") == "text" for t in part.package.inputs.values()):
        return
    rows = part.rows.select(["n", "received_ms", "entity", "time"]).to_pylist()
    recovered = task.rows(part.tensors, part.package.settings)
    for at in range(len(recovered.of) - 1, -1, -1):
        place = int(recovered.of[at])
        row = rows[place]
        prediction = f"{server}-{row['n']}"
        entity = (row["entity"] if entities else None) or ONLY_ENTITY
        found.counts["captured"] += 1
        if not judged(prediction, entity, row["time"]):
            found.counts["unjudged"] += 1
            continue
        messages = plain_messages(recovered.columns["messages"][at])
        found.came.append(
            Came(
                prediction=prediction,
                entity=entity,
                time=row["time"],
                received_ms=int(row["received_ms"]),
                messages=messages,
                text=as_text(recovered.columns["text"][at]),
                answer=_said(part, "text", place),
                answered=_class(part, place),
            )
        )


def plain_messages(value: Any) -> str:
    """Return messages with nothing but role and content, up to the last one of the user.

    Example:
        >>> plain_messages('[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]')
        '[{"role":"user","content":"Hi"}]'
        >>> plain_messages("Hi")
        '[{"role":"user","content":"Hi"}]'
    """
    kept: list[Mapping[str, str]] = [
        {"role": str(m["role"]), "content": content_of(m)}
        for m in messages_of(value)
        if m["role"] in ("system", "user", "assistant")
    ]
    while kept and kept[-1]["role"] != "user":
        kept.pop()
    return written(kept).decode()


def _said(part: Served, role: str, place: int) -> str:
    name = part.package.output(role)
    return as_text(part.outputs[name][place]) if name and name in part.outputs else ""


def _class(part: Served, place: int) -> int | None:
    name = part.package.output("class")
    return int(part.outputs[name][place]) if name and name in part.outputs else None
