"""What happens to the rows of a buffer inside one transaction: taken, delivered, dropped."""

import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

LOW, NORMAL, HIGH, VITAL = 0, 1, 2, 3

Outcome = Literal["kept", "duplicate", "dropped", "refused"]

_CLASS: Final = 48  # bits of an id below its priority, so that a class lies together in the file
_ROW: Final = 224  # bytes of a row besides key and body, its share of the indexes included
_PAGE: Final = 4_096
_REMEMBERED: Final = 65_536  # delivered keys
_AT_ONCE: Final = 500  # values in one statement
_PRUNED: Final = 4_096  # so many deliveries pass before old keys are forgotten


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is to be kept."""

    kind: str
    key: str  # the same whenever the same thing is given again
    body: bytes
    priority: int = NORMAL
    time_ms: int = 0  # what it is about, ms since 1970 UTC

    @property
    def size(self) -> int:
        """Bytes it takes in the file: a large body has pages of its own."""
        inside = _ROW + 2 * len(self.key.encode()) + len(self.body)
        return inside if inside < _PAGE else _ROW + (inside // _PAGE + 1) * _PAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What waits."""

    id: int
    kind: str
    sequence: int  # of its kind in this buffer, from 1
    key: str
    priority: int
    time_ms: int
    body: bytes


def keep(db: sqlite3.Connection, entry: Entry, age_ms: int, most_bytes: int) -> Outcome:
    """Take one record; the oldest of the lowest priority make room for it."""
    hashed = hash_of(entry.kind, entry.key)
    if is_known(db, hashed):
        return "duplicate"
    if not _room(db, entry, most_bytes):
        drop(db, entry.kind, "no room for its priority", 1, entry.size)
        return "dropped"
    number = _next(db)
    sequence = _sequence(db, entry.kind)
    db.execute(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.priority << _CLASS | number, hashed, entry.kind, sequence, entry.key,
            entry.time_ms, age_ms, entry.size, entry.body,
        ),
    )  # fmt: skip
    db.execute(
        "INSERT INTO classes VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
        (entry.priority, entry.size),
    )
    return "kept"


def deliver(db: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Let go of records and remember their keys; return how many there were."""
    gone = 0
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        rows = db.execute(
            f"SELECT id, hash, kind, size FROM records WHERE id IN ({marks})",  # noqa: S608  # question marks only
            some,
        ).fetchall()
        for _, hashed, kind, _ in rows:
            turn = _next(db)
            db.execute("INSERT OR REPLACE INTO delivered VALUES (?, ?)", (hashed, turn))
            db.execute("UPDATE kinds SET acknowledged = acknowledged + 1 WHERE kind = ?", (kind,))
            if turn % _PRUNED == 0:
                _forget(db)
        _remove(db, [(row[0], row[2], row[3]) for row in rows])
        gone += len(rows)
    return gone


def thin(db: sqlite3.Connection, below: int, need: int, reason: str) -> int:
    """Drop the oldest of the lowest priorities; return the bytes that were freed.

    Args:
        db: The file.
        below: Only priorities lower than this.
        need: Bytes to free.
        reason: As it is counted.
    """
    freed = 0
    while freed < need:
        rows = db.execute(
            "SELECT id, kind, size FROM records WHERE id < ? ORDER BY id LIMIT 32",
            (below << _CLASS,),
        ).fetchall()
        if not rows:
            break
        victims = []
        for row in rows:
            victims.append(row)
            freed += row[2]
            if freed >= need:
                break
        _dropped(db, victims, reason)
    return freed


def expire(db: sqlite3.Connection, horizon_ms: int) -> int:
    """Drop what is older than an age; return how many records.

    Args:
        db: The file.
        horizon_ms: Ages before this, in time that the device was on.
    """
    gone = 0
    for (priority,) in db.execute("SELECT priority FROM classes").fetchall():
        low, high = priority << _CLASS, (priority + 1) << _CLASS
        while True:
            rows = db.execute(
                "SELECT id, kind, size, age_ms FROM records WHERE id >= ? AND id < ? "
                "ORDER BY id LIMIT 256",
                (low, high),
            ).fetchall()
            old = [row[:3] for row in rows if row[3] < horizon_ms]
            _dropped(db, old, "too old")
            gone += len(old)
            if len(old) < 256:
                break
    return gone


def waiting(db: sqlite3.Connection, kinds: Collection[str], limit: int) -> list[Record]:
    """Return what waits: the highest priority first, then the oldest."""
    found: list[Record] = []
    chosen = sorted(kinds)
    only = f"kind IN ({', '.join('?' * len(chosen))}) AND" if chosen else ""
    for (priority,) in db.execute("SELECT priority FROM classes ORDER BY priority DESC").fetchall():
        low, high = priority << _CLASS, (priority + 1) << _CLASS
        rows = db.execute(
            f"SELECT id, kind, sequence, key, time_ms, body FROM records "  # noqa: S608  # question marks only
            f"WHERE {only} id >= ? AND id < ? ORDER BY id LIMIT ?",
            (*chosen, low, high, limit - len(found)),
        ).fetchall()
        found += [
            Record(id=i, kind=k, sequence=s, key=y, priority=priority, time_ms=t, body=b)
            for i, k, s, y, t, b in rows
        ]
        if len(found) >= limit:
            break
    return found


def drop(db: sqlite3.Connection, kind: str, reason: str, records: int, size: int) -> None:
    """Count what was dropped."""
    db.execute(
        "INSERT INTO dropped VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "records = records + excluded.records, bytes = bytes + excluded.bytes",
        (kind, reason, records, size),
    )


def hash_of(kind: str, key: str) -> int:
    """Return 63 bits of what a record is known by."""
    digest = hashlib.sha256(f"{kind}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def fact(db: sqlite3.Connection, name: str, default: str = "") -> str:
    """Return a fact about the buffer."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return default if row is None else str(row[0])


def set_fact(db: sqlite3.Connection, name: str, value: str) -> None:
    """Write a fact about the buffer."""
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def is_known(db: sqlite3.Connection, hashed: int) -> bool:
    """Say whether a record with this hash waits or was delivered."""
    row = db.execute(
        "SELECT 1 FROM records WHERE hash = ? UNION ALL SELECT 1 FROM delivered WHERE hash = ?",
        (hashed, hashed),
    ).fetchone()
    return row is not None


def used(db: sqlite3.Connection) -> int:
    """Return the bytes of all records."""
    return int(db.execute("SELECT coalesce(sum(bytes), 0) FROM classes").fetchone()[0])


def _room(db: sqlite3.Connection, entry: Entry, most_bytes: int) -> bool:
    need = used(db) + entry.size - most_bytes
    if need <= 0:
        return True
    row = db.execute(
        "SELECT coalesce(sum(bytes), 0) FROM classes WHERE priority <= ?", (entry.priority,)
    ).fetchone()
    if int(row[0]) < need:
        return False
    thin(db, entry.priority + 1, need, "the ring is full")
    return True


def _next(db: sqlite3.Connection) -> int:
    number = int(fact(db, "number", "0")) + 1
    set_fact(db, "number", str(number))
    return number


def _sequence(db: sqlite3.Connection, kind: str) -> int:
    db.execute(
        "INSERT INTO kinds VALUES (?, 1, 1, 0) "
        "ON CONFLICT DO UPDATE SET sequence = sequence + 1, pending = pending + 1",
        (kind,),
    )
    return int(db.execute("SELECT sequence FROM kinds WHERE kind = ?", (kind,)).fetchone()[0])


def _dropped(db: sqlite3.Connection, rows: Sequence[tuple[int, str, int]], reason: str) -> None:
    for _, kind, size in rows:
        drop(db, kind, reason, 1, size)
    _remove(db, rows)


def _remove(db: sqlite3.Connection, rows: Iterable[tuple[int, str, int]]) -> None:
    for number, kind, size in rows:
        db.execute("DELETE FROM records WHERE id = ?", (number,))
        db.execute("UPDATE kinds SET pending = pending - 1 WHERE kind = ?", (kind,))
        db.execute(
            "UPDATE classes SET bytes = bytes - ? WHERE priority = ?", (size, number >> _CLASS)
        )


def _forget(db: sqlite3.Connection) -> None:
    row = db.execute(
        "SELECT turn FROM delivered ORDER BY turn DESC LIMIT 1 OFFSET ?", (_REMEMBERED,)
    ).fetchone()
    if row is not None:
        db.execute("DELETE FROM delivered WHERE turn <= ?", (row[0],))
