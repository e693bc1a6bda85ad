"""What people said about predictions, one row each, with what became of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select

from genba.core.digest import digest_json
from genba.core.values import Event
from genba.store import chain, tables
from genba.store.chain import Draft
from genba.store.database import Database

_ROW = tables.feedback.c
Kind = Literal["label", "correction", "comment"]
Status = Literal["accepted", "duplicate", "contradictory", "unknown", "late"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedbackRow:
    """One thing that one person said."""

    id: str
    line: str
    prediction: str | None = None
    entity: str | None = None
    time_ms: int | None = None
    kind: Kind
    value: str | None = None
    author: str = ""
    comment: str = ""
    received_ms: int
    status: Status
    batch: str
    mask: str | None = None  # blob: grey PNG, not zero where something was marked


def rows_digest(rows: Sequence[FeedbackRow]) -> str:
    """Return what the event of a batch says about its rows.

    A field that came later counts only where it is set, so that rows stored before it existed keep
    their digest.
    """
    plain = [asdict(row) for row in rows]
    return digest_json([{k: v for k, v in p.items() if k != "mask" or v} for p in plain])


class FeedbackTable:
    """Feedback in the ledger's database.

    Example:
        >>> import tempfile
        >>> database = Database(f"sqlite:///{tempfile.mkdtemp()}/ledger.db")
        >>> database.prepare()
        >>> table = FeedbackTable(database)
        >>> row = FeedbackRow(id="f1", line="pump", prediction="s1-7", kind="label", value="normal",
        ...                   received_ms=1, status="accepted", batch="b1")
        >>> table.add([row], Draft(kind="feedback", body={"rows": 1}, line="pump")).seq
        1
        >>> table.by_prediction("s1-7")[0].value
        'normal'
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, rows: Sequence[FeedbackRow], batch_event: Draft) -> Event:
        """Store rows and the event of their batch in one commit.

        The event's body gets `rows_digest`, so that a changed row can be told. A batch whose event
        key is known adds nothing and returns the first event.
        """
        plain = [asdict(row) for row in rows]
        body = {**batch_event.body, "rows_digest": rows_digest(rows)}
        draft = Draft(
            kind=batch_event.kind,
            body=body,
            line=batch_event.line,
            subject=batch_event.subject,
            key=batch_event.key,
            now_ms=batch_event.now_ms,
        )
        with self._database.transaction() as connection:
            before, _ = self._database.lock(connection)
            (event,) = chain.append(self._database, connection, [draft])
            if event.seq > before and plain:
                connection.execute(tables.feedback.insert(), plain)
        return event

    def get(self, id: str) -> FeedbackRow | None:
        """Return a row by its id, None where there is none."""
        return next(iter(self._select(_ROW.id == id)), None)

    def by_prediction(self, prediction: str) -> list[FeedbackRow]:
        """Return everything that was said about a prediction, oldest first."""
        return self._select(_ROW.prediction == prediction)

    def by_entity_time(self, line: str, entity: str | None, time_ms: int) -> list[FeedbackRow]:
        """Return everything that was said about one entity at one moment, oldest first."""
        return self._select(_ROW.line == line, _ROW.entity == entity, _ROW.time_ms == time_ms)

    def all(self, line: str) -> list[FeedbackRow]:
        """Return every row of a line, oldest first."""
        return self._select(_ROW.line == line)

    def counts(self, line: str, *, after_ms: int = 0) -> dict[str, int]:
        """Return how many rows of a line have each status."""
        statement = (
            select(_ROW.status, func.count())
            .where(_ROW.line == line, _ROW.received_ms > after_ms)
            .group_by(_ROW.status)
            .order_by(_ROW.status)
        )
        with self._database.read() as connection:
            return {status: n for status, n in connection.execute(statement)}

    def _select(self, *where: ColumnElement[Any]) -> list[FeedbackRow]:
        statement = select(tables.feedback).where(*where).order_by(_ROW.received_ms, _ROW.id)
        with self._database.read() as connection:
            return [FeedbackRow(**row._mapping) for row in connection.execute(statement)]
