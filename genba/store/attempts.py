"""Attempts at stages: leases with heartbeat, fencing by (owner, attempt), results.

A row per attempt. The newest attempt of a key is the only one that may complete; everybody who
held an older one finds out at the next heartbeat or at completion, and its result is dropped.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, bindparam, select, update

from genba.core.digest import canonical_json
from genba.store import chain, owner, tables
from genba.store.chain import Draft
from genba.store.database import Database

_ATTEMPT = tables.attempt.c
# Built once: to build a statement takes longer than SQLite needs to answer it.
_NEWEST = (
    select(tables.attempt)
    .where(_ATTEMPT.key == bindparam("of_key"))
    .order_by(_ATTEMPT.attempt.desc())
    .limit(1)
)
_INSERT = tables.attempt.insert()
_MINE = update(tables.attempt).where(
    _ATTEMPT.key == bindparam("of_key"),
    _ATTEMPT.attempt == bindparam("of_attempt"),
    _ATTEMPT.owner == bindparam("of_owner"),
    _ATTEMPT.state == "running",
)
_EXTEND = _MINE.values(lease_until_ms=bindparam("new_lease_until_ms"))
_END = _MINE.values(
    state=bindparam("new_state"),
    finished_ms=bindparam("new_finished_ms"),
    result=bindparam("new_result"),
)
EventParts = tuple[str, Mapping[str, Any], str, str]  # kind, body, line, subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What came of asking for a stage."""

    state: Literal["mine", "done", "held"]
    attempt: int
    result: dict[str, Any] | None = None  # when done
    holder: str = ""  # when held
    lease_until_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptRow:
    """One attempt, for people who look."""

    key: str
    attempt: int
    name: str
    run: str
    owner: str
    state: str
    started_ms: int
    finished_ms: int | None


class Attempts:
    """The stages that were done, are being done, or were given up.

    Example:
        >>> import tempfile
        >>> database = Database(f"sqlite:///{tempfile.mkdtemp()}/ledger.db")
        >>> database.prepare()
        >>> attempts = Attempts(database)
        >>> key = "0" * 64
        >>> claim = attempts.claim(key, name="train", run="run-1", owner="me", lease_s=30)
        >>> attempts.claim(key, name="train", run="run-2", owner="you", lease_s=30).state
        'held'
        >>> attempts.complete(key, "me", claim.attempt, {"model": "m1"})
        True
        >>> attempts.claim(key, name="train", run="run-2", owner="you", lease_s=30).result
        {'model': 'm1'}
    """

    def __init__(
        self, database: Database, *, is_gone: Callable[[str], bool] = owner.is_gone
    ) -> None:
        self._database = database
        self._is_gone = is_gone

    def result(self, key: str) -> dict[str, Any] | None:
        """Return the result of a stage that is done, or None; takes no lease."""
        with self._database.read() as connection:
            row = _newest(connection, key)
        return json.loads(row.result) if row is not None and row.state == "done" else None

    def claim(self, key: str, *, name: str, run: str, owner: str, lease_s: float) -> Claim:
        """Ask to do a stage.

        Args:
            key: The stage key.
            name: The stage.
            run: The run that asks.
            owner: Who asks; see `store.owner.new_owner`.
            lease_s: For how many seconds, unless a heartbeat extends it.

        Returns:
            mine: do it, under this attempt number. done: here is the result. held: another owner
            is doing it, its lease has not expired and its process is not known to be gone.
        """
        with self._database.transaction(durable=False) as connection:
            self._database.lock(connection)
            now_ms = self._database.now_ms(connection)
            row = _newest(connection, key)
            if row is not None and row.state == "done":
                return Claim(state="done", attempt=row.attempt, result=json.loads(row.result))
            if row is not None and row.state == "running":
                if row.lease_until_ms > now_ms and not self._is_gone(row.owner):
                    return Claim(
                        state="held",
                        attempt=row.attempt,
                        holder=row.owner,
                        lease_until_ms=row.lease_until_ms,
                    )
                _finish(connection, row, state="lost", finished_ms=now_ms)
            attempt = 1 if row is None else row.attempt + 1
            until_ms = now_ms + int(lease_s * 1000)
            row_of = {"key": key, "attempt": attempt, "name": name, "run": run, "owner": owner}
            times = {"lease_until_ms": until_ms, "started_ms": now_ms}
            connection.execute(_INSERT, {**row_of, **times, "state": "running"})
        return Claim(state="mine", attempt=attempt, lease_until_ms=until_ms)

    def heartbeat(self, key: str, owner: str, attempt: int, *, lease_s: float) -> bool:
        """Extend a lease; False when the stage is no longer this owner's.

        An expired lease that nobody took is extended: a laptop that slept loses nothing.
        """
        with self._database.transaction(durable=False) as connection:
            until_ms = self._database.now_ms(connection) + int(lease_s * 1000)
            values = {**_lease(key, owner, attempt), "new_lease_until_ms": until_ms}
            return connection.execute(_EXTEND, values).rowcount == 1

    def complete(
        self,
        key: str,
        owner: str,
        attempt: int,
        result: Mapping[str, Any],
        *,
        event: EventParts | None = None,
        durable: bool = True,
    ) -> bool:
        """Store the result and its event in one commit.

        Args:
            key: The stage key.
            owner: Who did it.
            attempt: The number the claim gave.
            result: JSON object.
            event: What the ledger is to say of it.
            durable: Whether it must survive a power cut on return; see `Database.transaction`.

        Returns:
            False, and nothing is stored, when the stage is no longer this owner's.
        """
        text = canonical_json(result).decode()
        with self._database.transaction(durable=durable):
            return self._end(key, owner, attempt, state="done", text=text, event=event)

    def fail(
        self,
        key: str,
        owner: str,
        attempt: int,
        problem: Mapping[str, Any],
        *,
        cancelled: bool = False,
        event: EventParts | None = None,
    ) -> bool:
        """Give a stage up and release the lease; the next claim starts a new attempt."""
        text = canonical_json(problem).decode()
        state = "cancelled" if cancelled else "failed"
        return self._end(key, owner, attempt, state=state, text=text, event=event)

    def history(self, *, key: str | None = None, run: str | None = None) -> list[AttemptRow]:
        """Return the attempts at a stage or of a run, oldest first."""
        statement = select(tables.attempt).order_by(_ATTEMPT.started_ms, _ATTEMPT.attempt)
        if key is not None:
            statement = statement.where(_ATTEMPT.key == key)
        if run is not None:
            statement = statement.where(_ATTEMPT.run == run)
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return [
            AttemptRow(
                key=row.key,
                attempt=row.attempt,
                name=row.name,
                run=row.run,
                owner=row.owner,
                state=row.state,
                started_ms=row.started_ms,
                finished_ms=row.finished_ms,
            )
            for row in rows
        ]

    def _end(
        self,
        key: str,
        owner: str,
        attempt: int,
        *,
        state: str,
        text: str,
        event: EventParts | None,
    ) -> bool:
        with self._database.transaction() as connection:
            now_ms = self._database.now_ms(connection)
            end = {"new_state": state, "new_finished_ms": now_ms, "new_result": text}
            if connection.execute(_END, {**_lease(key, owner, attempt), **end}).rowcount != 1:
                return False
            if event is not None:
                kind, body, line, subject = event
                draft = Draft(kind=kind, body=body, line=line, subject=subject)
                chain.append(self._database, connection, [draft])
        return True


def _newest(connection: Connection, key: str) -> Row[Any] | None:
    return connection.execute(_NEWEST, {"of_key": key}).first()


def _lease(key: str, owner: str, attempt: int) -> dict[str, Any]:
    return {"of_key": key, "of_owner": owner, "of_attempt": attempt}


def _finish(connection: Connection, row: Row[Any], *, state: str, finished_ms: int) -> None:
    statement = update(tables.attempt).where(
        _ATTEMPT.key == row.key, _ATTEMPT.attempt == row.attempt
    )
    connection.execute(statement.values(state=state, finished_ms=finished_ms))
