"""The ledger: events in a chain, records of what was made, and from what."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from genba.core.digest import canonical_json, digest_json
from genba.core.values import Event
from genba.store import chain, tables
from genba.store.chain import Draft
from genba.store.database import Database

_EVENT, _RECORD, _EDGE = tables.event.c, tables.record.c, tables.edge.c
_PAGE = 5_000  # rows held in memory while the chain is verified


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Something that was made; its id says what it is, forever."""

    id: str
    kind: str
    line: str
    body: Mapping[str, Any]
    seq: int
    time_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """`dst` was made from `src`, which played `role`."""

    src: str
    dst: str
    role: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainReport:
    """Whether the ledger is what it was when it was written."""

    ok: bool
    events: int
    first_bad: int | None = None  # sequence number
    reason: str = ""


class Ledger:
    """An append-only list of events and the records they created.

    Example:
        >>> import tempfile
        >>> database = Database(f"sqlite:///{tempfile.mkdtemp()}/ledger.db")
        >>> database.prepare()
        >>> ledger = Ledger(database)
        >>> ledger.append("note", {"text": "hello"}, line="pump").seq
        1
        >>> ledger.record("model", "m1", {"r2": 0.9}, line="pump", inputs=[("dataset", "d1")])
        True
        >>> ledger.parents("m1")
        [Edge(src='d1', dst='m1', role='dataset')]
        >>> ledger.verify().ok
        True
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractContextManager[Connection]:
        """Group everything that is written inside the block into one commit."""
        return self._database.transaction()

    def append(
        self,
        kind: str,
        body: Mapping[str, Any],
        *,
        line: str = "",
        subject: str = "",
        key: str | None = None,
        now_ms: int | None = None,
    ) -> Event:
        """Add one event, durable on return.

        Args:
            kind: What happened, `noun.verb`.
            body: JSON object; NaN and infinity are refused with ValueError.
            line: Name of the line it belongs to, if any.
            subject: Id of what it is about, if any.
            key: Idempotency key: the second append with the same key adds nothing.
            now_ms: Time in ms since 1970 UTC; the database's clock if not given.

        Returns:
            The event; with a known key, the first one that had it.
        """
        draft = Draft(kind=kind, body=body, line=line, subject=subject, key=key, now_ms=now_ms)
        return self.append_all([draft])[0]

    def append_all(self, drafts: Iterable[Draft]) -> list[Event]:
        """Add several events in one commit."""
        with self._database.transaction() as connection:
            return chain.append(self._database, connection, drafts)

    def record(
        self,
        kind: str,
        id: str,  # the word of the house; the builtin is not needed here
        body: Mapping[str, Any],
        *,
        line: str = "",
        inputs: Iterable[tuple[str, str]] = (),
        now_ms: int | None = None,
    ) -> bool:
        """Record that something was made: its row, where it came from and the event, at once.

        Args:
            kind: line, dataset, run, model, package or capture.
            id: Unique over all kinds.
            body: JSON object.
            line: Name of the line it belongs to.
            inputs: (role, id) of everything it was made from.
            now_ms: Time in ms since 1970 UTC; the database's clock if not given.

        Returns:
            Whether it is new; what exists is left as it is.
        """
        edges = sorted({(role, src) for role, src in inputs})
        with self._database.transaction() as connection:
            self._database.lock(connection)
            if connection.execute(select(_RECORD.id).where(_RECORD.id == id)).first():
                return False
            draft = Draft(
                kind=f"{kind}.created",
                body=body,
                line=line,
                subject=id,
                key=_created_key(id, edges),
                now_ms=now_ms,
            )
            (event,) = chain.append(self._database, connection, [draft])
            row = {"id": id, "kind": kind, "line": line, "seq": event.seq, "time_ms": event.time_ms}
            row["body"] = canonical_json(body).decode()
            connection.execute(tables.record.insert().values(row))
            if edges:
                rows = [{"src": src, "dst": id, "role": role} for role, src in edges]
                connection.execute(tables.edge.insert(), rows)
        return True

    def get(self, kind: str, id: str) -> dict[str, Any] | None:
        """Return the body of a record, or None."""
        statement = select(_RECORD.body).where(_RECORD.id == id, _RECORD.kind == kind)
        with self._database.read() as connection:
            text = connection.execute(statement).scalar()
        return None if text is None else json.loads(text)

    def lookup(self, id: str) -> Record | None:
        """Return a record of any kind, or None."""
        statement = select(tables.record).where(_RECORD.id == id)
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        return _record(row) if row else None

    def find(self, kind: str, *, line: str | None = None, limit: int | None = None) -> list[Record]:
        """Return the records of a kind, newest first."""
        statement = select(tables.record).where(_RECORD.kind == kind)
        if line is not None:
            statement = statement.where(_RECORD.line == line)
        statement = statement.order_by(_RECORD.seq.desc()).limit(limit)
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(statement)]

    def events(
        self,
        *,
        after: int = 0,
        line: str | None = None,
        kinds: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Return events behind a sequence number, oldest first."""
        wanted: list[ColumnElement[bool]] = [_EVENT.seq > after]
        if line is not None:
            wanted.append(_EVENT.line == line)
        if kinds is not None:
            wanted.append(_EVENT.kind.in_(list(kinds)))
        statement = select(*chain.COLUMNS).where(*wanted).order_by(_EVENT.seq).limit(limit)
        with self._database.read() as connection:
            return [chain.of_row(row) for row in connection.execute(statement)]

    def head(self) -> tuple[int, str]:
        """Return the sequence number and the digest of the newest event; 0 before the first."""
        statement = select(tables.head.c.seq, tables.head.c.digest)
        with self._database.read() as connection:
            seq, digest = connection.execute(statement).one()
        return seq, digest

    def parents(self, id: str) -> list[Edge]:
        """Return what `id` was made from."""
        statement = select(_EDGE.src, _EDGE.dst, _EDGE.role).where(_EDGE.dst == id)
        statement = statement.order_by(_EDGE.role, _EDGE.src)
        with self._database.read() as connection:
            return [Edge(src=s, dst=d, role=r) for s, d, r in connection.execute(statement)]

    def verify(self, pinned: Iterable[tuple[int, str]] = ()) -> ChainReport:
        """Compute the whole chain anew and compare.

        Args:
            pinned: (seq, digest) known from elsewhere, such as a signed checkpoint. Only a pinned
                head shows that the newest events were cut off and the head set back.

        Returns:
            The report; `first_bad` is the first event that is not what was written.
        """
        pins: dict[int, set[str]] = {}
        for place, expected in pinned:
            pins.setdefault(place, set()).add(expected)
        with self._database.read() as connection:
            seq, digest = 0, tables.GENESIS
            while rows := _page(connection, seq):
                for row in rows:
                    reason = _fault(row, seq, digest, pins)
                    if reason:
                        return ChainReport(ok=False, events=seq, first_bad=seq + 1, reason=reason)
                    seq, digest = row.seq, row.digest
            reason = _cut(connection, seq, digest, pins)
            if reason:
                return ChainReport(ok=False, events=seq, first_bad=seq + 1, reason=reason)
            bad = _altered_record(connection)
        if bad:
            return ChainReport(ok=False, events=seq, first_bad=bad[0], reason=bad[1])
        return ChainReport(ok=True, events=seq)


def _record(row: Row[Any]) -> Record:
    return Record(
        id=row.id,
        kind=row.kind,
        line=row.line,
        body=json.loads(row.body),
        seq=row.seq,
        time_ms=row.time_ms,
    )


def _created_key(id: str, edges: Sequence[tuple[str, str]]) -> str:
    # The key is part of what the chain hashes, so lineage is tamper-evident as well.
    return f"created/{id}/{digest_json([list(e) for e in edges])}"


def _page(connection: Connection, after: int) -> Sequence[chain.EventRow]:
    statement = select(*chain.COLUMNS).where(_EVENT.seq > after).order_by(_EVENT.seq).limit(_PAGE)
    return connection.execute(statement).all()


def _fault(row: chain.EventRow, seq: int, digest: str, pins: Mapping[int, set[str]]) -> str:
    if row.seq != seq + 1:
        return f"Event {seq + 1} is missing; event {row.seq} follows {seq}."
    if row.previous != digest:
        return f"Event {row.seq} does not follow the event before it."
    if chain.digest_of(row) != row.digest:
        return f"Event {row.seq} is not what was written."
    if pins.get(row.seq, {row.digest}) != {row.digest}:
        return f"Event {row.seq} is not the one that was pinned; the chain was rewritten."
    return ""


def _cut(connection: Connection, seq: int, digest: str, pins: Mapping[int, set[str]]) -> str:
    row = connection.execute(select(tables.head.c.seq, tables.head.c.digest)).one()
    if (row.seq, row.digest) != (seq, digest):
        return f"The chain ends at event {seq}, its head says {row.seq}: events were cut off."
    last = max(pins, default=0)
    if last > seq:
        return f"The chain ends at event {seq}, event {last} was pinned: events were cut off."
    return ""


def _altered_record(connection: Connection) -> tuple[int, str] | None:
    """Compare every record and its edges with the event that created it."""
    edges: dict[str, list[tuple[str, str]]] = {}
    for src, dst, role in connection.execute(select(_EDGE.src, _EDGE.dst, _EDGE.role)):
        edges.setdefault(dst, []).append((role, src))
    columns = (_RECORD.id, _RECORD.kind, _RECORD.line, _RECORD.body, _RECORD.seq, _RECORD.time_ms)
    event = (_EVENT.kind, _EVENT.line, _EVENT.body, _EVENT.time_ms, _EVENT.subject, _EVENT.key)
    joined = tables.record.outerjoin(tables.event, _RECORD.seq == _EVENT.seq)
    for row in connection.execute(select(*columns, *event).select_from(joined)):
        id, kind, line, body, seq, time_ms = row[:6]
        key = _created_key(id, sorted(edges.pop(id, [])))
        if tuple(row[6:]) != (f"{kind}.created", line, body, time_ms, id, key):
            return seq, f"Record {id} is not what event {seq} created."
    if edges:
        return 0, f"{next(iter(edges))} has parents but was never recorded."
    created = select(_EVENT.seq, _EVENT.subject).where(_EVENT.key.like("created/%"))
    lost = created.where(_EVENT.subject.not_in(select(_RECORD.id))).order_by(_EVENT.seq).limit(1)
    missing = connection.execute(lost).first()
    return (missing.seq, f"Record {missing.subject} is missing.") if missing else None
