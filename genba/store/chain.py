"""The hash chain: each event carries the digest of the one before it.

`digest` = sha256 of the canonical JSON list [previous, seq, time_ms, kind, line, subject, key,
body], where `body` is the stored text. Whoever edits, removes, inserts or swaps an event has to
compute every later digest anew, and then the head no longer agrees with any signed checkpoint.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from genba.core.digest import canonical_json, digest_bytes
from genba.core.values import Event
from genba.store import tables
from genba.store.database import Database

_EVENT = tables.event.c
#: The columns of an event in the order in which they are hashed, then its own digest.
COLUMNS = (
    _EVENT.previous,
    _EVENT.seq,
    _EVENT.time_ms,
    _EVENT.kind,
    _EVENT.line,
    _EVENT.subject,
    _EVENT.key,
    _EVENT.body,
    _EVENT.digest,
)

_INSERT = tables.event.insert()
_MOVE_HEAD = tables.head.update().values(seq=bindparam("new_seq"), digest=bindparam("new_digest"))

EventRow = Row[str, int, int, str, str, str, str | None, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """An event that has no place in the chain yet."""

    kind: str
    body: Mapping[str, Any]
    line: str = ""
    subject: str = ""
    key: str | None = None
    now_ms: int | None = None


def append(database: Database, connection: Connection, drafts: Iterable[Draft]) -> list[Event]:
    """Add events to the end of the chain inside the caller's transaction.

    An event whose key is already in the chain is not added again; the first one is returned.
    """
    drafts = list(drafts)
    if not drafts:
        return []
    seq, digest = database.lock(connection)
    events: list[Event] = []
    rows: list[dict[str, Any]] = []
    new: dict[str, Event] = {}
    for draft in drafts:
        known = _known(connection, draft.key, new)
        if known is None:
            time_ms = database.now_ms(connection) if draft.now_ms is None else draft.now_ms
            known, row = link(digest, seq + 1, time_ms, draft)
            seq, digest = known.seq, known.digest
            rows.append(row)
            if draft.key is not None:
                new[draft.key] = known
        events.append(known)
    if rows:
        connection.execute(_INSERT, rows)
        connection.execute(_MOVE_HEAD, {"new_seq": seq, "new_digest": digest})
    return events


def _known(connection: Connection, key: str | None, new: Mapping[str, Event]) -> Event | None:
    """Return the event that has a key already, in the chain or among those being added."""
    if key is None:
        return None
    if key in new:
        return new[key]
    row = connection.execute(select(*COLUMNS).where(_EVENT.key == key)).first()
    return of_row(row) if row else None


def link(previous: str, seq: int, time_ms: int, draft: Draft) -> tuple[Event, dict[str, Any]]:
    """Return an event with its digest, and its row.

    Raises:
        ValueError: If the body holds NaN or infinity, which JSON cannot carry.
    """
    body = canonical_json(draft.body).decode()
    row: dict[str, Any] = {
        "previous": previous,
        "seq": seq,
        "time_ms": time_ms,
        "kind": draft.kind,
        "line": draft.line,
        "subject": draft.subject,
        "key": draft.key,
        "body": body,
    }
    row["digest"] = digest_bytes(canonical_json(list(row.values())))
    event = Event(
        seq=seq,
        time_ms=time_ms,
        kind=draft.kind,
        line=draft.line,
        subject=draft.subject,
        body=json.loads(body),
        previous=previous,
        digest=row["digest"],
    )
    return event, row


def of_row(row: EventRow) -> Event:
    """Return the event of a row of `COLUMNS`."""
    return Event(
        seq=row.seq,
        time_ms=row.time_ms,
        kind=row.kind,
        line=row.line,
        subject=row.subject,
        body=json.loads(row.body),
        previous=row.previous,
        digest=row.digest,
    )


def digest_of(row: EventRow) -> str:
    """Compute anew what the digest of a row of `COLUMNS` must be."""
    return digest_bytes(canonical_json(list(row[:-1])))
