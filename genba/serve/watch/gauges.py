"""What is read when somebody asks for it: gauges and counters that the server keeps elsewhere."""

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from genba.serve.lanes.lines import LineService
from genba.serve.watch.capture import Recorder
from genba.serve.watch.metrics import Metrics

_STATM: Final = Path("/proc/self/statm")


class Connected(Protocol):
    """A connection of a client."""

    @property
    def owed(self) -> int:
        """Requests that await their answers."""
        ...


class Published(Protocol):
    """What the gauges are read from."""

    @property
    def connections(self) -> Collection[Connected]:
        """Open connections."""
        ...

    @property
    def lines(self) -> Mapping[str, LineService]:
        """The lines in service."""
        ...


def publish(metrics: Metrics, app: Published, recorder: Recorder) -> None:
    """Let metrics show what connections, lines, the recorder and the process are doing."""
    metrics.gauges = {
        "genba_connections": ("Open connections.", lambda: len(app.connections)),
        "genba_inflight": (
            "Requests by HTTP that await their answers.",
            lambda: sum(connection.owed for connection in app.connections),
        ),
        "genba_lines_ready": (
            "Lines that can answer.",
            lambda: sum(line.ready for line in app.lines.values()),
        ),
        "genba_capture_waiting_rows": (
            "Predictions in memory that are not written yet.",
            lambda: recorder.waiting,
        ),
        "genba_capture_behind_seconds": (
            "How long the oldest of them that could be written waits for the disk.",
            lambda: recorder.behind_s,
        ),
        "genba_process_resident_memory_bytes": ("Memory of the server.", resident_bytes),
    }
    metrics.counters = {
        "genba_capture_rows": ("Predictions captured.", lambda: recorder.written),
        "genba_capture_rows_sampled_out": (
            "Predictions not captured because the line keeps a sample.",
            lambda: recorder.skipped,
        ),
        "genba_capture_rows_dropped": (
            "Predictions answered but not captured, because the disk was too slow.",
            lambda: recorder.dropped,
        ),
        "genba_capture_bytes": ("Bytes of captures written.", lambda: recorder.nbytes),
        "genba_traces_exported": (
            "Requests whose spans were handed to the exporter.",
            lambda: metrics.tracing.exported if metrics.tracing else 0,
        ),
        "genba_traces_dropped": (
            "Requests whose caller traces them, but there were too many.",
            lambda: metrics.tracing.dropped if metrics.tracing else 0,
        ),
        "genba_process_cpu_seconds": ("CPU time of the server.", time.process_time),
    }
    metrics.roles = lambda: {
        (line.name, package): role
        for line in app.lines.values()
        for package, role in line.roles().items()
    }
    metrics.rollbacks = lambda: {
        line.name: len(line.rollout.condemned) for line in app.lines.values()
    }


def resident_bytes() -> int:
    """Return the memory of this process in bytes; 0 where the system does not say."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
