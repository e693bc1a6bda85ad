"""Spans of requests for whoever collects traces; nothing here is done unless somebody does.

The event loop only picks requests and puts them into a bounded queue: those whose caller traces
them first, then as many others as a second has room for. What is too much is counted, not waited
for. A thread gives them to the exporter, which arrives through the catalog.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from genba.core.resolve import resolve
from genba.serve.lanes.jobs import Job, Part

_log = logging.getLogger("genba.serve")
_WAITING: Final = 2_048  # spans
_PER_SECOND: Final = 100
#: Environment variables of OpenTelemetry that say where traces go.
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One request as it went through the server; times in ns since 1970 UTC."""

    trace: str  # W3C trace id; empty for a request that is traced nowhere else
    parent: str  # W3C id of the caller's span
    line: str
    package: str
    role: str
    prediction: str
    rows: int
    error: str  # type of what the model raised, if it did
    received_ns: int
    started_ns: int
    computed_ns: int
    finished_ns: int


class Exporter(Protocol):
    """Takes spans; may wait for a network, since it has a thread of its own."""

    def export(self, served: Served) -> None:
        """Take one request."""
        ...

    def close(self) -> None:
        """Send what waits and end."""
        ...


class Tracing:
    """Picks requests and hands them to an exporter.

    Args:
        exporter: Takes them.
        server: Id of this server.
        per_second: Requests at most.
        waiting: Requests that may wait for the exporter.
    """

    def __init__(
        self,
        exporter: Exporter,
        server: str,
        per_second: int = _PER_SECOND,
        waiting: int = _WAITING,
    ) -> None:
        self._exporter = exporter
        self._server = server
        self._most = per_second
        self._queue: queue.Queue[Served | None] = queue.Queue(waiting)
        self._second = 0
        self._room = per_second
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        self._thread = threading.Thread(target=self._run, name="genba-traces", daemon=True)
        self.exported = 0
        self.dropped = 0  # requests whose caller traces them, but there were too many

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._exporter.close()

    def look(self, line: str, part: Part) -> None:
        """Pick requests of a part that was answered; called on the event loop."""
        second = int(part.finished)
        if second != self._second:
            self._second, self._room = second, self._most
        answered = [job for job in part.jobs if job.role != "shadow"]
        traced = [job for job in answered if job.parent]
        picked = (traced or answered[:1])[: self._room]
        self._room -= len(picked)
        self.dropped += max(0, len(traced) - len(picked))
        for job in picked:
            try:
                self._queue.put_nowait(self._served(line, part, job))
            except queue.Full:
                self.dropped += 1

    def _served(self, line: str, part: Part, job: Job) -> Served:
        return Served(
            trace=job.trace,
            parent=job.parent,
            line=line,
            package=part.model.package,
            role=job.role,
            prediction=f"{self._server}-{job.first}",
            rows=job.rows,
            error="" if part.error is None else type(part.error).__name__,
            received_ns=self._ns(job.received),
            started_ns=self._ns(part.started),
            computed_ns=self._ns(part.started + part.seconds),
            finished_ns=self._ns(part.finished),
        )

    def _ns(self, at_s: float) -> int:
        return int(at_s * 1e9) + self._offset_ns

    def _run(self) -> None:
        while (served := self._queue.get()) is not None:
            try:
                self._exporter.export(served)
                self.exported += 1
            except Exception:  # noqa: BLE001  # whoever collects traces must not stop us
                _log.exception("a trace was not exported")
                self.dropped += 1


def wanted(environment: Callable[[str], str | None]) -> bool:
    """Say whether somebody collects traces: the endpoint is set, and the SDK is not disabled.

    Example:
        >>> wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}.get), wanted({}.get)
        (True, False)
    """
    disabled = (environment("OTEL_SDK_DISABLED") or "").lower() == "true"
    return not disabled and any(environment(name) for name in ENDPOINTS)


def open_tracing(environment: Callable[[str], str | None], server: str) -> Tracing | None:
    """Return what exports traces, started; None where nobody collects them.

    Args:
        environment: Reads a variable.
        server: Id of this server.

    Raises:
        Problem: G901 when OpenTelemetry is not installed.
    """
    if not wanted(environment):
        return None
    tracing = Tracing(resolve("telemetry", "otlp")(server), server)
    tracing.start()
    return tracing
