"""Store and forward: what a device has to say waits here until the other side has it.

A ring in one file, sized in days and bytes. A record that was taken is on the disk; it leaves when
the other side acknowledged it, or when the ring is full or it is too old, by a stated policy:
the oldest of the lowest priority first, and every drop is counted by kind and reason. On a full
disk, records of lower priority make room; where there are none, the new record is refused, which
its giver is told, and what was taken before stays.

The receiver may get a record twice (the device was killed between sending and hearing back), so
each has a key that is the same both times, and a sequence number of its kind, without gaps but for
what was dropped. A key that was given before is a duplicate, also after it was delivered, for the
last 65,536 of them.

Ages are counted in time that this device was seen to be on: a clock that is years off and then set
right makes nothing old.
"""

import secrets
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from genba.edge import buffer_rows as rows
from genba.edge.buffer_file import BufferFile, Unwritable
from genba.edge.buffer_rows import HIGH, LOW, NORMAL, VITAL, Entry, Outcome, Record
from genba.edge.clocks import Clock, SystemClock

__all__ = [
    "HIGH", "LOW", "NORMAL", "PREDICTION", "SAMPLE", "TELEMETRY", "VITAL",
    "Buffer", "Entry", "Outcome", "Record", "Watermark",
]  # fmt: skip

TELEMETRY: Final = "telemetry"
PREDICTION: Final = "prediction"
SAMPLE: Final = "sample"  # for labelling

T = TypeVar("T")

_DAY_MS: Final = 86_400_000
_LEAST_BYTES: Final = 64 << 10
_RESERVE: Final = 1 << 20  # twice what the log holds at most
_TEND_MS: Final = 30_000  # between looks at ages and at the reserve


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermark:
    """How full the buffer is, for telemetry, health and the person who asks."""

    buffer: str  # which buffer: sequences begin again in another
    pending: Mapping[str, int]  # records by kind
    sequence: Mapping[str, int]  # last one given out, by kind
    acknowledged: Mapping[str, int]
    dropped: Mapping[str, int]  # records by "kind: reason"
    refused: int  # since this process began
    damaged: int  # times since this process began that a damaged file was put aside
    bytes: int
    most_bytes: int
    oldest_ms: int | None  # what the oldest record is about, ms since 1970 UTC
    trouble: str  # why nothing can be written right now, or ""


class Buffer:
    """The ring; any number of threads and processes may use one file.

    Args:
        path: The file; its folder must exist.
        days: How long a record may wait.
        most_bytes: How large the ring may become on the disk, at least 64 KiB; besides it, about
            2 MiB for the log and a reserve.
        clock: Where the time comes from.

    Raises:
        Problem: G690 when there is no file yet and none can be made.

    Example:
        >>> import tempfile
        >>> buffer = Buffer(Path(tempfile.mkdtemp()) / "ring.db", days=10, most_bytes=1 << 20)
        >>> buffer.put(PREDICTION, HIGH, "r1", b"{}"), buffer.put(PREDICTION, HIGH, "r1", b"{}")
        ('kept', 'duplicate')
        >>> [record.key for record in buffer.pending()]
        ['r1']
        >>> buffer.acknowledge([record.id for record in buffer.pending()])
        1
        >>> buffer.put(PREDICTION, HIGH, "r1", b"{}"), buffer.pending()
        ('duplicate', [])
    """

    def __init__(
        self, path: Path, *, days: float, most_bytes: int, clock: Clock | None = None
    ) -> None:
        self.days = days
        self.most_bytes = max(most_bytes, _LEAST_BYTES)
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._refused = 0
        self._trouble = ""
        self._full = False  # whether room would have helped
        self._owed: set[int] = set()  # acknowledged, but not yet written down
        self._file = BufferFile(path, reserve_bytes=_RESERVE)
        self._age_ms: int | None = None  # not known before the file could be written
        self._seen_ms = self._clock.elapsed_ms()
        self._tended_ms: int | None = None
        self._tend()

    @property
    def trouble(self) -> str:
        """Why nothing can be written right now, or ""."""
        return self._trouble

    def put(self, kind: str, priority: int, key: str, body: bytes, *, time_ms: int = 0) -> Outcome:
        """Keep one record; see `put_all`."""
        entry = Entry(kind=kind, priority=priority, key=key, body=body, time_ms=time_ms)
        return self.put_all([entry])[0]

    def put_all(
        self, entries: Sequence[Entry], state: Mapping[str, bytes | None] | None = None
    ) -> tuple[Outcome, ...]:
        """Keep records, together with what their giver must remember: all at once.

        On a disk that takes only some of it, the highest priority goes first, and the state with
        it.

        Args:
            entries: What to keep; priorities from LOW to VITAL.
            state: Named bytes that replace what had those names; None forgets them.

        Returns:
            For each entry "kept" (it is on the disk and will be delivered or counted as dropped),
            "duplicate" (its key was given before), "dropped" (by policy: there is no room for its
            priority, which is counted), or "refused" (the disk does not take it now; give it again
            later, and do not acknowledge what it came from).
        """
        with self._lock:
            self._tend()
            taken = self._put(entries, state or {})
            if taken is not None:
                return taken
            if len(entries) > 1:
                return self._one_by_one(entries, state or {})
            self._refused += len(entries)
            return tuple("refused" for _ in entries)

    def pending(
        self, kinds: Collection[str] = (), *, limit: int = 100, without: Collection[int] = ()
    ) -> list[Record]:
        """Return what waits: the highest priority first, then the oldest.

        Args:
            kinds: Only these; all if none is named.
            limit: At most so many.
            without: Ids to leave out, such as those that were sent and not yet acknowledged.
        """
        with self._lock:
            left_out = self._owed.union(without)
            most = limit + len(left_out)
            nothing: list[Record] = []
            found = self._read(lambda db: rows.waiting(db, kinds, most), nothing)
        return [record for record in found if record.id not in left_out][:limit]

    def acknowledge(self, ids: Iterable[int]) -> int:
        """Let go of records that the other side has; say how many there were.

        Where that cannot be written down, it is remembered and done later; a kill before that
        means that the other side gets them again.
        """
        with self._lock:
            self._owed.update(ids)
            owed = sorted(self._owed)
            gone = self._write(lambda db: rows.deliver(db, owed))
            if gone is None and self._full:
                self._file.give_up_reserve()
                gone = self._write(lambda db: rows.deliver(db, owed))
                self._file.keep_reserve()
            if gone is None:
                return 0
            self._owed.clear()
            return gone

    def knows(self, kind: str, key: str) -> bool:
        """Say whether a key was given before: it waits, or it was delivered not long ago."""
        with self._lock:
            return self._read(lambda db: rows.is_known(db, rows.hash_of(kind, key)), False)

    def recall(self, prefix: str) -> dict[str, bytes]:
        """Return what was remembered under names that begin so."""
        asked = "SELECT name, body FROM state WHERE substr(name, 1, ?) = ?"
        with self._lock:
            return self._read(
                lambda db: dict(db.execute(asked, (len(prefix), prefix)).fetchall()), {}
            )

    def watermark(self) -> Watermark:
        """Return how full the buffer is; zeros where the file cannot be read."""
        with self._lock:
            found = self._read(_measured, None)
            id_, kinds, dropped, size, oldest = found or ("", [], [], 0, None)
            return Watermark(
                buffer=id_,
                pending={kind: pending for kind, _, pending, _ in kinds},
                sequence={kind: sequence for kind, sequence, _, _ in kinds},
                acknowledged={kind: acknowledged for kind, _, _, acknowledged in kinds},
                dropped={f"{kind}: {reason}": records for kind, reason, records in dropped},
                refused=self._refused,
                damaged=self._file.damaged,
                bytes=size,
                most_bytes=self.most_bytes,
                oldest_ms=oldest,
                trouble=self._trouble,
            )

    def close(self) -> None:
        """Close the file; what waits stays in it."""
        with self._lock:
            if self._owed:
                self.acknowledge(())
            self._write(self._pass)
            self._file.close()

    def __enter__(self) -> "Buffer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(
        self, entries: Sequence[Entry], state: Mapping[str, bytes | None]
    ) -> tuple[Outcome, ...] | None:
        """Keep all of it, at the expense of lower priorities where need be; None if it cannot."""
        taken = self._write(lambda db: self._keep(db, entries, state))
        if taken is not None or not self._full:
            return taken
        why = self._trouble
        if not self._file.keep_reserve():  # where it is made again just now, there is room again
            self._file.give_up_reserve()
        taken = self._write(lambda db: self._keep(db, entries, state))
        if taken is None:
            self._file.give_up_reserve()
            taken = self._write(
                lambda db: self._keep(db, entries, state)
            )  # delivered ones left room
        if taken is None:
            floor = max((entry.priority for entry in entries), default=LOW)
            need = 2 * sum(entry.size for entry in entries)
            freed = self._write(lambda db: rows.thin(db, floor, need, "the disk is full"))
            self._file.checkpoint()
            if freed:
                taken = self._write(lambda db: self._keep(db, entries, state))
        self._file.keep_reserve()
        if taken is None:
            self._trouble = why
        return taken

    def _one_by_one(
        self, entries: Sequence[Entry], state: Mapping[str, bytes | None]
    ) -> tuple[Outcome, ...]:
        found: dict[int, Outcome] = {}
        for at in sorted(range(len(entries)), key=lambda at: -entries[at].priority):
            taken = self._put([entries[at]], {} if found else state)
            found[at] = "refused" if taken is None else taken[0]
            self._refused += taken is None
        return tuple(found[at] for at in range(len(entries)))

    def _keep(
        self, db: sqlite3.Connection, entries: Sequence[Entry], state: Mapping[str, bytes | None]
    ) -> tuple[Outcome, ...]:
        age_ms = self._pass(db)
        found = tuple(rows.keep(db, entry, age_ms, self.most_bytes) for entry in entries)
        for name, body in state.items():
            if body is None:
                db.execute("DELETE FROM state WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, body))
        return found

    def _tend(self) -> None:
        """From time to time, drop what is too old and make the reserve again."""
        now_ms = self._clock.elapsed_ms()
        if self._tended_ms is not None and now_ms - self._tended_ms < _TEND_MS:
            return
        self._tended_ms = now_ms
        most_ms = int(self.days * _DAY_MS)
        self._write(lambda db: rows.expire(db, self._pass(db) - most_ms))
        self._file.keep_reserve()

    def _pass(self, db: sqlite3.Connection) -> int:
        """Return the age of the buffer and write down that the device was seen to be on.

        The time it was off is believed as far as the wall clock went on by no more than the days
        a record may wait; anything else is a clock that was set.
        """
        now_ms, wall_ms = self._clock.elapsed_ms(), self._clock.now_ms()
        if self._age_ms is None:
            if not rows.fact(db, "buffer"):
                rows.set_fact(db, "buffer", secrets.token_hex(8))
            off_ms = wall_ms - int(rows.fact(db, "wall_ms", str(wall_ms)))
            believed = off_ms if 0 <= off_ms <= self.days * _DAY_MS else 0
            self._age_ms = int(rows.fact(db, "age_ms", "0")) + believed
        self._age_ms += max(0, now_ms - self._seen_ms)
        self._seen_ms = now_ms
        age_ms = max(self._age_ms, int(rows.fact(db, "age_ms", "0")))
        rows.set_fact(db, "age_ms", str(age_ms))
        rows.set_fact(db, "wall_ms", str(wall_ms))
        return age_ms

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what the work returns, None when nothing could be written."""
        try:
            result = self._file.write(work)
        except Unwritable as error:
            self._trouble, self._full = str(error), error.full
            return None
        self._trouble, self._full = "", False
        return result

    def _read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        try:
            return self._file.read(work)
        except Unwritable as error:
            self._trouble = str(error)
            return otherwise


def _measured(
    db: sqlite3.Connection,
) -> tuple[str, list[tuple[str, int, int, int]], list[tuple[str, str, int]], int, int | None]:
    kinds = db.execute("SELECT kind, sequence, pending, acknowledged FROM kinds").fetchall()
    dropped = db.execute("SELECT kind, reason, records FROM dropped").fetchall()
    oldest = db.execute(
        "SELECT min((SELECT time_ms FROM records WHERE id >= priority << 48 "
        "AND id < (priority + 1) << 48 ORDER BY id LIMIT 1)) FROM classes"
    ).fetchone()
    return rows.fact(db, "buffer"), kinds, dropped, rows.used(db), oldest[0]
