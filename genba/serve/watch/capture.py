"""From answered requests to capture records, off the event loop and within a bound.

The event loop only appends. A thread of its own turns what was appended into columns, as soon as
there is enough of it, and writes them. When that thread cannot keep up, rows are dropped and
counted; the counts of errors and latencies are never dropped, since the decision to roll back is
made on them: they wait until they can be written.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from genba.core.codec import decode
from genba.core.line import Capture, Line
from genba.core.problem import Problem
from genba.runs.lines import newest_line
from genba.serve.lanes.jobs import Job, Part
from genba.serve.limits import Limits
from genba.serve.watch.columns import EVERYTHING, as_rows
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store

_log = logging.getLogger("genba.serve")
_ATTEMPTS: Final = 3
_RETRY_S: Final = 1.0
_CHUNK_ROWS: Final = 4_096  # that wait as parts; more are made into columns, which take less memory
_RULE_S: Final = 5.0  # between two looks at what the line file says
_OWED: Final = 4_096  # intervals whose counts wait for a disk that takes nothing


@dataclass(kw_only=True, slots=True)
class Tally:
    """What one package did in one interval, or since it was loaded."""

    role: str = "stable"
    n: int = 0
    errors: int = 0
    not_a_number: int = 0
    alarms: int = 0
    compute_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)  # one per request
    rows: list[int] = field(default_factory=list)  # predictions of each of these requests

    def add(self, part: Part, latencies_s: Sequence[float]) -> None:
        """Count one computed part; what was given up meanwhile has been counted already."""
        jobs = part.jobs
        self.role = jobs[-1].role
        self.compute_s += part.seconds if part.charge_s is None else part.charge_s
        late = any([job.given_up for job in jobs])  # a list is faster than a generator
        rows = [job.rows for job in jobs]
        if late:
            rows = [0 if job.given_up else job.rows for job in jobs]
        n = sum(rows) if late else part.rows
        self.n += n
        self.rows.extend(rows)
        self.latencies_s.extend(latencies_s)
        if part.error is not None:
            self.errors += n
        else:
            self._look(part, late=late)

    def _look(self, part: Part, *, late: bool) -> None:
        """Count what is wrong or found in the outputs of a part."""
        alarm = part.model.schema.alarm
        if part.bad_rows is None and alarm is None:
            return
        answered = part.in_time if late else True
        if part.bad_rows is not None:
            blamed = part.bad_rows if part.blameless is None else part.bad_rows & ~part.blameless
            self.not_a_number += int(np.count_nonzero(blamed & answered))
        if alarm is not None:
            self.alarms += int(np.count_nonzero(part.outputs[alarm] & answered))

    def give_up(self, job: Job, latency_s: float) -> None:
        """Count one request that passed its deadline; it is an error of the package."""
        self.role = job.role
        self.n += job.rows
        self.errors += job.rows
        self.rows.append(job.rows)
        self.latencies_s.append(latency_s)

    def summary(self, cpu_seconds: float) -> dict[str, Any]:
        """Return the entry of the package in a capture record; latencies are of predictions."""
        waits = np.repeat(self.latencies_s, self.rows)
        p50, p99 = np.quantile(waits, (0.5, 0.99)) if len(waits) else (0.0, 0.0)
        return {
            "role": self.role,
            "n": self.n,
            "errors": self.errors,
            "not_a_number": self.not_a_number,
            "alarms": self.alarms,
            "latency_ms_p50": round(float(p50) * 1e3, 4),
            "latency_ms_p99": round(float(p99) * 1e3, 4),
            "cpu_seconds": round(cpu_seconds, 6),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One line's interval as the event loop hands it over."""

    line: str
    from_ms: int
    to_ms: int
    tallies: Mapping[str, tuple[Tally, float]]  # package -> counts and CPU seconds
    parts: Sequence[Part]
    rows: int  # of the parts
    nbytes: int = 0  # of what is held of them
    dropped: int = 0  # rows that were not admitted


@dataclass(frozen=True, slots=True)
class Chunk:
    """Parts of an interval that is not over."""

    line: str
    parts: Sequence[Part]
    rows: int
    nbytes: int


class Buffer:
    """What one line answered since the last cut. Belongs to the event loop."""

    __slots__ = ("_dropped", "_line", "_nbytes", "_parts", "_recorder", "_rows")

    def __init__(self, line: str, recorder: "Recorder") -> None:
        self._line = line
        self._recorder = recorder
        self._parts: list[Part] = []
        self._rows = 0
        self._nbytes = 0
        self._dropped = 0

    def add(self, part: Part) -> None:
        """Keep a part, if there is room for it."""
        nbytes = part.nbytes
        if not self._recorder.admit(part.rows, nbytes):
            self._dropped += part.rows
            return
        self._parts.append(part)
        self._rows += part.rows
        self._nbytes += nbytes
        if self._rows >= _CHUNK_ROWS:
            chunk = Chunk(self._line, self._parts, self._rows, self._nbytes)
            self._recorder.hand_over(chunk)
            self._parts, self._rows, self._nbytes = [], 0, 0

    def cut(
        self, from_ms: int, to_ms: int, tallies: Mapping[str, tuple[Tally, float]]
    ) -> Batch | None:
        """Return the interval that ends now; None when nothing was answered in it."""
        if not tallies:
            return None
        batch = Batch(
            line=self._line,
            from_ms=from_ms,
            to_ms=to_ms,
            tallies=tallies,
            parts=self._parts,
            rows=self._rows,
            nbytes=self._nbytes,
            dropped=self._dropped,
        )
        self._parts, self._rows, self._nbytes, self._dropped = [], 0, 0, 0
        return batch


class _Waiting:
    """What of one line is ready to be written; belongs to the writer thread."""

    def __init__(self, writer: CaptureWriter) -> None:
        self.writer = writer
        self.rule = EVERYTHING
        self.looked = -_RULE_S  # at the rule, monotonic seconds
        self.blocks: list[CapturedRows] = []
        self.held = [0, 0]  # rows and bytes admitted
        self.lost = 0  # rows that could not be put together


class Recorder:
    """The writer thread and the bound on what waits for it.

    Args:
        store: Where captures go.
        server: Id of this server.
        limits: Say how many rows and bytes may be held in memory, over all lines.
    """

    def __init__(self, store: Store, server: str, limits: Limits) -> None:
        self._store = store
        self._server = server
        self._limits = limits
        self._queue: queue.SimpleQueue[Batch | Chunk | None] = queue.SimpleQueue()
        self._lines: dict[str, _Waiting] = {}
        self._owed: deque[tuple[str, Interval]] = deque(maxlen=_OWED)
        self._thread = threading.Thread(target=self._run, name="genba-capture", daemon=True)
        self._stopping = threading.Event()
        self._handed: deque[float] = deque()  # when the intervals came that are not written yet
        self._held = [0, 0]  # event loop only: rows and bytes admitted so far
        self._released = [0, 0]  # writer thread only: rows and bytes no longer held
        self.written = 0
        self.skipped = 0  # rows beyond the sample that the line file asks for
        self.dropped = 0

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return sum(line.writer.nbytes for line in list(self._lines.values()))

    @property
    def waiting(self) -> int:
        """Rows in memory."""
        return self._held[0] - self._released[0]

    @property
    def behind_s(self) -> float:
        """How long the oldest interval that is not written waits for the disk."""
        try:
            return time.monotonic() - self._handed[0]
        except IndexError:
            return 0.0

    def start(self) -> None:
        """Start the thread.

        Arrow takes memory from the system from now on, which gets it back after each interval; the
        pools that it has by itself keep what the largest one needed.
        """
        pa.set_memory_pool(pa.system_memory_pool())
        self._thread.start()

    def admit(self, rows: int, nbytes: int) -> bool:
        """Say whether so many rows may be kept; if not they are counted as dropped."""
        held, released = self._held, self._released
        if (
            held[0] + rows - released[0] > self._limits.capture_rows
            or held[1] + nbytes - released[1] > self._limits.capture_bytes
        ):
            self.dropped += rows
            return False
        held[0] += rows
        held[1] += nbytes
        return True

    def hand_over(self, batch: Batch | Chunk) -> None:
        """Give an interval, or a part of the one that goes on, to the writer."""
        if isinstance(batch, Batch):
            self._handed.append(time.monotonic())
        self._queue.put(batch)

    def stop(self) -> None:
        """Write everything that was handed over and end the thread."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (given := self._queue.get()) is not None:
            line = self._line(given.line)
            self._prepare(line, given)
            if isinstance(given, Batch):
                self._write(line, given)
                self._handed.popleft()

    def _line(self, name: str) -> _Waiting:
        line = self._lines.get(name)
        if line is None:
            writer = CaptureWriter(self._store, name, self._server)
            line = self._lines[name] = _Waiting(writer)
        now = time.monotonic()
        # An interval is kept by one rule, so it changes between two of them.
        if not line.held[0] and now - line.looked >= _RULE_S:
            line.looked = now
            line.rule = _rule(self._store, name) or line.rule
        return line

    def _prepare(self, line: _Waiting, given: Batch | Chunk) -> None:
        """Make parts into columns; what they held of requests can go then."""
        line.held[0] += given.rows
        line.held[1] += given.nbytes
        try:
            line.blocks += as_rows(given.parts, line.rule)
        except Exception:  # noqa: BLE001  # what a graph gives is not ours; the counts go on
            _log.exception("predictions cannot be captured")
            line.lost += given.rows

    def _write(self, line: _Waiting, batch: Batch) -> None:
        """Write an interval and count what became of its rows."""
        interval = Interval(
            from_ms=batch.from_ms,
            to_ms=batch.to_ms,
            packages={name: tally.summary(cpu) for name, (tally, cpu) in batch.tallies.items()},
            rows=line.blocks,
            inputs=line.rule.inputs,
            sample=line.rule.sample,
            dropped=batch.dropped + line.lost,
        )
        rows, lost, (held, size) = sum(len(b.n) for b in line.blocks), line.lost, line.held
        line.blocks, line.held, line.lost = [], [0, 0], 0
        if self._written(batch.line, interval):
            self.written += rows
            self.skipped += held - rows - lost
            self.dropped += lost
        else:
            self.dropped += held
            self._owed.append((batch.line, _without_rows(interval, rows)))
        self._released[0] += held
        self._released[1] += size

    def _written(self, line: str, interval: Interval) -> bool:
        """Write what is owed and then an interval; say whether that worked."""
        for attempt in range(_ATTEMPTS):
            try:
                while self._owed:
                    name, owed = self._owed[0]
                    self._lines[name].writer.write(owed)
                    self._owed.popleft()
                self._lines[line].writer.write(interval)
            except Exception as error:  # noqa: BLE001  # without this thread nothing is captured
                _log.error("captures of line %s are not written: %s", line, error)
                if attempt + 1 < _ATTEMPTS:
                    self._stopping.wait(_RETRY_S)
            else:
                return True
        return False


def _rule(store: Store, name: str) -> Capture | None:
    """Return what a line file says about capture; None where it cannot be read now."""
    try:
        record = newest_line(store, name)
        return EVERYTHING if record is None else decode(Line, record.body).capture
    except Problem as problem:  # a line of a newer Genba, or a database that is busy
        _log.error("what line %s keeps is not known: %s", name, problem)
        return None


def _without_rows(interval: Interval, rows: int) -> Interval:
    return replace(interval, rows=(), dropped=interval.dropped + rows)


def now_ms() -> int:
    """Return the time in ms since 1970 UTC."""
    return time.time_ns() // 1_000_000
