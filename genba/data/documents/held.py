"""Which documents a line answers from: a fold over the ledger's `documents.…` events."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba.core.ids import check_name
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.values import Event
from genba.data.documents.sources import open_source
from genba.store.home import Store

ADDED: Final = "documents.added"
REMOVED: Final = "documents.removed"
OPTION: Final = "documents"  # of a line: sources that everybody may see
QUESTIONS: Final = "questions"  # of a line: a file that its search is measured with
AROUND: Final = (OPTION, QUESTIONS)  # they change no model


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A source of documents of a line."""

    source: str  # files:…, package:…
    access: tuple[str, ...] = ()  # tags, sorted; none: for everybody
    until_ms: int | None = None  # from then on they are not found any more
    by: str = ""  # who added it; "" for the line file
    added_ms: int | None = None


def held(store: Store, line: Line) -> list[Held]:
    """Return the sources of a line: those of its file, and those that were added."""
    named = [str(source) for source in line.options.get(OPTION, ()) if source]
    return fold(
        store.ledger.events(line=line.name, kinds=(ADDED, REMOVED)),
        [Held(source=source) for source in named],
    )


def fold(events: Iterable[Event], start: Sequence[Held] = ()) -> list[Held]:
    """Fold events, oldest first; adding a source again changes who may see it, and until when."""
    found = {one.source: one for one in start}
    for event in events:
        if event.kind == REMOVED:
            found.pop(event.subject, None)
        elif event.kind == ADDED:
            body: Mapping[str, Any] = event.body
            until = body.get("until_ms")
            found[event.subject] = Held(
                source=event.subject,
                access=tuple(sorted(map(str, body.get("access", ())))),
                until_ms=None if until is None else int(until),
                by=str(body.get("by", "")),
                added_ms=event.time_ms,
            )
    return list(found.values())


def add(store: Store, line: str, one: Held) -> None:
    """Record that a line answers from a source; what is in it is read by `refresh`.

    Raises:
        Problem: G652 when it is no address of documents, G104 for a tag that is no name.
    """
    open_source(one.source)
    access = sorted({check_name(tag, "tag") for tag in one.access})
    body = {"access": access, "until_ms": one.until_ms, "by": one.by}
    store.ledger.append(ADDED, body, line=line, subject=one.source)


def remove(store: Store, line: Line, source: str, *, by: str, reason: str = "") -> None:
    """Record that a line answers from a source no more.

    Raises:
        Problem: G654 when it does not.
    """
    known = [one.source for one in held(store, line)]
    if source not in known:
        raise Problem(
            "G654",
            f"The line {line.name} does not answer from {source}.",
            where=line.name,
            why=f"It answers from {', '.join(known)}." if known else "It has no documents.",
            tries=[f"genba documents list {line.name}", "genba explain G654"],
        )
    store.ledger.append(REMOVED, {"by": by, "reason": reason}, line=line.name, subject=source)
