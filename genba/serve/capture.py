"""From answered requests to capture records, off the event loop and within a bound.

The event loop only appends. A thread of its own turns what was appended into rows and writes
them. When that thread cannot keep up, rows are dropped and counted; the counts of errors and
latencies are never dropped, since the decision to roll back is made on them.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.serve import images
from genba.serve.batch import Job, Part
from genba.serve.limits import Limits
from genba.store.captures import ERROR, NOT_A_NUMBER, OK, CapturedRows, CaptureWriter, Interval
from genba.store.home import Store

_log = logging.getLogger("genba.serve")
_ATTEMPTS: Final = 3
_RETRY_S: Final = 1.0


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

    def add(self, part: Part, latencies_s: Iterable[float]) -> None:
        """Count one computed part; what was given up meanwhile has been counted already."""
        self.role = part.jobs[-1].role
        self.compute_s += part.seconds
        before = self.n
        for job, latency_s in zip(part.jobs, latencies_s, strict=True):
            if not job.given_up:
                self._answered(job.rows, latency_s)
        if part.error is not None:
            self.errors += self.n - before
            return
        if part.bad_rows is not None:
            self.not_a_number += int(np.count_nonzero(part.bad_rows & part.in_time))
        alarm = part.model.schema.alarm
        if alarm is not None:
            self.alarms += int(np.count_nonzero(part.outputs[alarm][part.in_time]))

    def give_up(self, job: Job, latency_s: float) -> None:
        """Count one request that passed its deadline; it is an error of the package."""
        self.role = job.role
        self.errors += job.rows
        self._answered(job.rows, latency_s)

    def _answered(self, rows: int, latency_s: float) -> None:
        self.n += rows
        self.rows.append(rows)
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
    rows: int


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
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._writers: dict[str, CaptureWriter] = {}
        self._thread = threading.Thread(target=self._run, name="genba-capture", daemon=True)
        self._stopping = threading.Event()
        self._held = [0, 0]  # event loop only: rows and bytes admitted so far
        self._released = [0, 0]  # writer thread only: rows and bytes no longer held
        self.written = 0
        self.dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def admit(self, part: Part) -> bool:
        """Say whether a part may be kept; if not its rows are counted as dropped."""
        rows = self._held[0] + part.rows
        size = self._held[1] + part.nbytes
        if (
            rows - self._released[0] > self._limits.capture_rows
            or size - self._released[1] > self._limits.capture_bytes
        ):
            self.dropped += part.rows
            return False
        self._held = [rows, size]
        return True

    def hand_over(self, batch: Batch) -> None:
        """Give an interval to the writer."""
        self._queue.put(batch)

    def stop(self) -> None:
        """Write everything that was handed over and end the thread."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            written = self._write(batch)
            self.written += written
            self.dropped += batch.rows - written
            self._released[0] += batch.rows
            self._released[1] += sum(part.nbytes for part in batch.parts)

    def _write(self, batch: Batch) -> int:
        """Write an interval; return how many of its rows are safe."""
        rows = _rows_of(batch)
        writer = self._writers.setdefault(
            batch.line, CaptureWriter(self._store, batch.line, self._server)
        )
        interval = Interval(
            from_ms=batch.from_ms,
            to_ms=batch.to_ms,
            packages={name: tally.summary(cpu) for name, (tally, cpu) in batch.tallies.items()},
            rows=rows,
        )
        for attempt in range(_ATTEMPTS):
            try:
                writer.write(interval)
            except Exception as error:  # noqa: BLE001  # without this thread nothing is captured
                _log.error("captures of line %s are not written: %s", batch.line, error)
                if attempt + 1 < _ATTEMPTS:
                    self._stopping.wait(_RETRY_S)
            else:
                return sum(len(block.n) for block in rows)
        return 0


def _rows_of(batch: Batch) -> list[CapturedRows]:
    """Return the rows of an interval, none when they cannot be put together: the counts go on."""
    try:
        return as_rows(batch.parts)
    except Exception:  # noqa: BLE001  # what a graph gives is not ours
        _log.exception("predictions of line %s cannot be captured", batch.line)
        return []


def as_rows(parts: Sequence[Part]) -> list[CapturedRows]:
    """Turn computed parts into rows: one block for what has the same package, shapes and fate."""
    groups: dict[Any, list[Part]] = {}
    for part in parts:
        tensors = (*part.tensors.values(), *part.outputs.values())
        shapes = tuple(tensor.shape[1:] for tensor in tensors)
        groups.setdefault((part.model.package, part.error is None, shapes), []).append(part)
    return [_block(group) for group in groups.values()]


def _block(parts: Sequence[Part]) -> CapturedRows:
    schema = parts[0].model.schema
    jobs = [job for part in parts for job in part.jobs]
    counts = np.array([job.rows for job in jobs])
    starts = np.array([job.first for job in jobs]) - (np.cumsum(counts) - counts)
    latencies = [(part.finished - job.received) * 1e6 for part in parts for job in part.jobs]
    made = schema.kept_outputs if parts[0].error is None else ()
    return CapturedRows(
        package=parts[0].model.package,
        n=np.repeat(starts, counts) + np.arange(counts.sum()),
        received_ms=np.repeat([job.received_ms for job in jobs], counts),
        role=np.repeat([job.role for job in jobs], counts).tolist(),
        entity=_entities(parts, jobs),
        time=_times(jobs),
        latency_us=np.repeat(np.array(latencies, dtype=np.int64), counts),
        status=_states(parts),
        features=_given(parts, jobs),
        outputs={name: np.concatenate([part.outputs[name] for part in parts]) for name in made},
    )


def _given(parts: Sequence[Part], jobs: Sequence[Job]) -> Mapping[str, Array]:
    """Return what the package was given to predict from; images as files."""
    schema = parts[0].model.schema
    given: dict[str, Array] = {}
    for name in (*schema.features, *schema.parameters):
        if name == schema.image:
            given[name] = images.kept([picture for job in jobs for picture in job.pictures])
        else:
            given[name] = np.concatenate([part.tensors[name] for part in parts])
    return given


def _entities(parts: Sequence[Part], jobs: Sequence[Job]) -> Sequence[str | None]:
    schema = parts[0].model.schema
    names: list[str | None] = [None] * sum(job.rows for job in jobs)
    if schema.entity is not None:
        names = schema.names(np.concatenate([part.tensors[schema.entity] for part in parts]))
    start = 0
    for job in jobs:
        if job.entity_names is not None:  # as the client wrote it, also when it is a new one
            names[start : start + job.rows] = job.entity_names
        start += job.rows
    return names


def _times(jobs: Sequence[Job]) -> Sequence[int | None]:
    times: list[int | None] = []
    for job in jobs:
        times.extend([None] * job.rows if job.time is None else job.time.tolist())
    return times


def _states(parts: Sequence[Part]) -> Sequence[str]:
    states: list[str] = []
    for part in parts:
        if part.error is not None:
            states.extend([ERROR] * part.rows)
        elif part.bad_rows is None:
            states.extend([OK] * part.rows)
        else:
            states.extend(NOT_A_NUMBER if bad else OK for bad in part.bad_rows.tolist())
    return states


def now_ms() -> int:
    """Return the time in ms since 1970 UTC."""
    return time.time_ns() // 1_000_000
