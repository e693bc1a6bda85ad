"""The file behind the buffer: SQLite in WAL mode, on a disk that fills up, fails or loses bytes.

A write-ahead log with `synchronous = FULL` makes a commit survive a power cut once it returned
(https://www.sqlite.org/pragma.html#pragma_synchronous). Deleting on a full disk needs room too: the
log must be written into the file before it can be used again. So a reserve, larger than the log,
lies beside the file and is given up when the disk is full; from then on the file may not grow, and
all that happens, happens in the room it has.
"""

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from genba.core.io import disk, write_durable
from genba.core.problem import Problem

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY, hash INTEGER NOT NULL UNIQUE, kind TEXT NOT NULL,
    sequence INTEGER NOT NULL, key TEXT NOT NULL, time_ms INTEGER NOT NULL,
    age_ms INTEGER NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS records_of_kind ON records (kind);
CREATE TABLE IF NOT EXISTS delivered (hash INTEGER PRIMARY KEY, turn INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS delivered_by_turn ON delivered (turn);
CREATE TABLE IF NOT EXISTS kinds (
    kind TEXT PRIMARY KEY, sequence INTEGER NOT NULL, pending INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS classes (priority INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dropped (
    kind TEXT NOT NULL, reason TEXT NOT NULL, records INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (kind, reason));
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 128",  # pages: the log stays near 0.5 MiB
    "PRAGMA journal_size_limit = 524288",
    "PRAGMA secure_delete = OFF",
)
_BUSY_S: Final = 5.0  # another process (the agent, a status command) may hold the file so long
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WHY: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk does not take what is written",
    sqlite3.SQLITE_READONLY: "the disk is read-only",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_PERM: "the file may not be opened",
    sqlite3.SQLITE_AUTH: "the file may not be opened",
    sqlite3.SQLITE_BUSY: "another process holds the file",
    sqlite3.SQLITE_LOCKED: "another process holds the file",
    sqlite3.SQLITE_NOMEM: "there is no memory",
}
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SPARE: Final = 64 << 10  # bytes that are left when the reserve is made
_MOST_PAGES: Final = 4_294_967_294  # SQLite's own limit
_ASIDE: Final = ".damaged"


class Unwritable(Exception):
    """What was to be written is not; nothing of it is.

    Args:
        why: In a few words.
        full: Whether more room would help.
    """

    def __init__(self, why: str, *, full: bool = False) -> None:
        super().__init__(why)
        self.full = full


class BufferFile:
    """One SQLite file with a reserve beside it; opened again whenever that is worth a try.

    Args:
        path: The file.
        reserve_bytes: Room that is kept for the moment when the disk is full.

    Raises:
        Problem: G690 when there is no file yet and none can be made.
    """

    def __init__(self, path: Path, *, reserve_bytes: int) -> None:
        self.path = path
        self.damaged = 0  # times a damaged file was put aside
        self._reserve = path.with_name(path.name + ".reserve")
        self._reserve_bytes = reserve_bytes
        self._db: sqlite3.Connection | None = None
        existed = path.exists()
        try:
            self._opened()
        except Unwritable as error:
            if not existed:
                raise _no_buffer(path, str(error)) from error
        self.keep_reserve()

    def write(self, work: Work[T]) -> T:
        """Do some work in one transaction: all of it is safe on the disk, or nothing of it is.

        Raises:
            Unwritable: With the reason.
        """
        try:
            return self._transact(work)
        except sqlite3.DatabaseError as error:
            if not _is_damaged(error):
                raise
        self._put_aside()
        return self._transact(work)

    def read(self, work: Work[T]) -> T:
        """Do some work that only reads.

        Raises:
            Unwritable: When the file cannot be opened or read.
        """
        try:
            return work(self._opened())
        except sqlite3.DatabaseError as error:
            if _is_damaged(error):
                self._put_aside()
                return work(self._opened())
            raise _unwritable(error) from error

    def give_up_reserve(self) -> bool:
        """Free the reserve, and let the log be used again; say whether there was a reserve."""
        had = self._reserve.exists()
        with suppress(OSError):
            disk().remove(self._reserve)
        self.checkpoint()
        self._limit()
        return had

    def keep_reserve(self) -> bool:
        """Make the reserve again where it was given up; say whether it is there."""
        there = self._reserve.exists()
        if not there and self._has_room():
            with suppress(OSError, Problem):  # random bytes: some disks keep zeros for nothing
                write_durable(self._reserve, os.urandom(self._reserve_bytes))
                there = True
        self._limit()
        return there

    def _has_room(self) -> bool:
        """Say whether a reserve would leave something; a full disk is not worn by trying."""
        try:
            found = os.statvfs(self.path.parent)
        except OSError:
            return False
        return found.f_bavail * found.f_frsize > self._reserve_bytes + _SPARE

    def checkpoint(self) -> None:
        """Write the log into the file, so that the log is used again and does not grow."""
        with suppress(sqlite3.Error, Unwritable):
            self._opened().execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _limit(self) -> None:
        """Let the file grow only while there is a reserve."""
        with suppress(sqlite3.Error, Unwritable):
            db = self._opened()
            pages = _MOST_PAGES
            if not self._reserve.exists():
                pages = max(1, int(db.execute("PRAGMA page_count").fetchone()[0]))
            db.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    def close(self) -> None:
        """Close the file; everything that was acknowledged is in it."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _transact(self, work: Work[T]) -> T:
        db = self._opened()
        try:
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
            disk().commit(db.commit)
        except (sqlite3.OperationalError, OSError) as error:
            self._roll_back(db)
            raise _unwritable(error) from error
        except BaseException:
            self._roll_back(db)
            raise
        return result

    def _roll_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.rollback()
        except sqlite3.Error:  # what is half done is undone when the file is opened again
            self.close()

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = self._open()
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise _unwritable(error) from error
                self._put_aside()
        if self._db is None:
            raise Unwritable("the file cannot be opened")
        return self._db

    def _open(self) -> sqlite3.Connection:
        new = not self.path.exists()
        db = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            for setting in _SETTINGS:
                db.execute(setting)
            db.executescript(_SCHEMA)
            if not new and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise _malformed()
            if new:
                disk().sync_directory(self.path.parent)
        except BaseException:
            db.close()
            raise
        return db

    def _put_aside(self) -> None:
        """Begin a new file and save from the damaged one what can still be read."""
        self.close()
        self.damaged += 1
        aside = self.path.with_name(self.path.name + _ASIDE)
        try:
            for suffix in ("", "-wal", "-shm"):
                here, there = Path(f"{self.path}{suffix}"), Path(f"{aside}{suffix}")
                disk().remove(there)
                if here.exists():
                    disk().rename(here, there)
            self._db = self._open()
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(error) from error
        with suppress(sqlite3.Error, OSError, Unwritable):
            self._transact(lambda db: _salvage(aside, db))


def _salvage(aside: Path, db: sqlite3.Connection) -> None:
    old = sqlite3.connect(f"{aside.as_uri()}?mode=ro", uri=True)
    try:
        for table in ("facts", "state", "kinds", "classes", "dropped", "delivered"):
            _copy(old, db, table, "rowid")
        for order in ("id", "id DESC"):  # from both ends, up to where it is torn
            _copy(old, db, "records", order)
    finally:
        old.close()
    # What was torn away is not pending any more; the counts follow what is there.
    db.execute(
        "UPDATE kinds SET pending = (SELECT count(*) FROM records r WHERE r.kind = kinds.kind)"
    )
    db.execute(
        "UPDATE classes SET bytes = (SELECT coalesce(sum(size), 0) FROM records "
        "WHERE id >> 48 = classes.priority)"
    )


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str, order: str) -> None:
    with suppress(sqlite3.DatabaseError):
        for row in old.execute(f"SELECT * FROM {table} ORDER BY {order}"):  # noqa: S608  # no value of anybody is in it
            marks = ", ".join("?" * len(row))
            new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608  # as above: our own names


def _malformed() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("quick_check found damage")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _is_damaged(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _unwritable(error: Exception) -> Unwritable:
    if isinstance(error, OSError):
        full = error.errno in _FULL
        why = "the disk is full" if full else "the disk does not take what is written"
        return Unwritable(why, full=full)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return Unwritable(_WHY.get(code, f"SQLite says: {error}"), full=code in _NO_ROOM)


def _no_buffer(path: Path, why: str) -> Problem:
    return Problem(
        "G690",
        f"No buffer can be made at {path}.",
        where=str(path),
        why=f"{why[:1].upper()}{why[1:]}. Without one, answers would be lost while a link is down.",
        tries=[f"df -h {path.parent}", f"ls -ld {path.parent}", "genba explain G690"],
    )
