"""Everything that is true of SQLite only: how it is opened, locked, guarded and what it reports."""

import sqlite3
import time
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import DDL, URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from genba.store import tables

BUSY_S: Final = 30.0  # how long a writer waits for the others
_FULL: Final = 13  # SQLITE_FULL; sqlite3 names these codes only from Python 3.11 on some builds
_BUSY: Final = (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
_READ_ONLY: Final = (3, 8, 14)  # SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN
_DAMAGED: Final = (11, 26)  # SQLITE_CORRUPT, SQLITE_NOTADB
_IO_ERROR: Final = 10

ERRORS: Final = (DBAPIError, sqlite3.Error)
_GUARDED: Final = (tables.event, tables.record, tables.edge)


def open_engine(path: Path) -> Engine:
    """Return an engine for a database file; writers lock at BEGIN, commits survive a power cut."""
    url = URL.create("sqlite", database=str(path))  # a path may hold any character
    engine = create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})
    event.listen(engine, "connect", _connected)
    event.listen(engine, "begin", _begin)
    return engine


def _connected(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below and nowhere else
    cursor = connection.cursor()
    _set_synchronous(cursor, record.info, "FULL")
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A writer that begins as a reader cannot wait for its turn: SQLite would refuse it at once.
    options = connection.get_execution_options()
    write = options.get("write", False)
    raw = connection.connection
    cursor = raw.cursor()
    if write:
        _set_synchronous(cursor, raw.info, "FULL" if options.get("durable", True) else "NORMAL")
    cursor.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    cursor.close()


def _set_synchronous(cursor: Any, info: dict[Any, Any], level: Literal["FULL", "NORMAL"]) -> None:
    """Say whether a commit waits for the disk (FULL); NORMAL is never torn, only later."""
    if info.get("synchronous") != level:
        cursor.execute(f"PRAGMA synchronous={level}")
        info["synchronous"] = level


def use_wal(engine: Engine) -> None:
    """Switch a new database to the write-ahead log; kept in the file from then on."""
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                cursor.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError:
                # Two processes create the same home: this switch does not wait by itself.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        cursor.close()
    finally:
        raw.close()


def failure(error: Exception) -> str | None:
    """Say which kind of trouble SQLite reported: full, busy, read-only, damaged, io, or None."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) & 0xFF
    if code == _FULL:
        return "full"
    if code in _BUSY:
        return "busy"
    if code in _READ_ONLY:
        return "read-only"
    if code in _DAMAGED:
        return "damaged"
    return "io" if code == _IO_ERROR else None


def _guards() -> None:
    for table in _GUARDED:
        for action in ("UPDATE", "DELETE"):
            statement = DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
                f"CREATE TRIGGER {table.name}_no_{action.lower()} BEFORE {action} ON {table.name} "
                f"BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )
            event.listen(table, "after_create", statement.execute_if(dialect="sqlite"))


_guards()
