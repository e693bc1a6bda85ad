"""What the server logs: one line of JSON for each event, and nothing that a client sent.

Every line has `time`, `level` and `event`; the others where they are known: `line`, `package`,
`trace` (W3C trace id), `route`, `status`, `code`, `duration_ms`, `rows`, `left_out` (events of this
kind that were not logged, because there were too many), `error` and `at` (type of an exception and
where it was raised). Bodies, header fields, addresses with their queries and keys are never logged.
The text of an exception is left out too: libraries quote in it what they could not read.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.serve.http.responses import Refusal
from genba.serve.lanes.jobs import Part

_log = logging.getLogger("genba.serve")
_FIELDS: Final = "genba"  # attribute of a log record that has fields
_FRAMES: Final = 6
_SLOW_S: Final = 1.0
_PER_SECOND: Final = 10  # lines of one kind of event


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON.

    Example:
        >>> record = logging.LogRecord("x", logging.WARNING, "f.py", 1, "refused", None, None)
        >>> record.genba = {"code": "G705"}
        >>> json.loads(JsonLines().format(record))["code"]
        'G705'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            told |= _raised(record.exc_info[1], record.exc_info[2])
        return json.dumps(told, ensure_ascii=False, default=str)


def _raised(error: BaseException, trace: TracebackType | None) -> dict[str, Any]:
    """Return the type of an exception and where it was raised, not what it says."""
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    told: dict[str, Any] = {"error": type(error).__name__, "at": places}
    return {**told, "code": error.code} if isinstance(error, Problem) else told


def install(level: int = logging.WARNING) -> None:
    """Have everything that is logged written to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class Journal:
    """Logs refusals and slow requests, so many a second and no more. Belongs to the event loop.

    Args:
        slow_s: A request that takes longer is worth a line.
        per_second: Lines of one kind of event.
    """

    def __init__(self, slow_s: float = _SLOW_S, per_second: int = _PER_SECOND) -> None:
        self.slow_s = slow_s
        self._most = per_second
        self._seconds: dict[str, tuple[int, int]] = {}  # event -> second, lines in it
        self._left_out: dict[str, int] = {}

    def refused(self, route: str, refusal: Refusal, *, line: str = "", trace: str = "") -> None:
        """Log that a request was refused."""
        if self._may("refused"):
            fields = {"status": refusal.status, "code": refusal.code, "route": route}
            self._write("refused", {**fields, "line": line, "trace": trace})

    def slow(self, line: str, part: Part, latencies_s: Sequence[float]) -> None:
        """Log the slowest request of a part, and what it did meanwhile.

        Args:
            line: Its line.
            part: What was computed together with it.
            latencies_s: Of the requests of the part.
        """
        if not self._may("slow"):
            return
        place = int(np.argmax(latencies_s))
        job = part.jobs[place]
        took_s = {
            "duration": latencies_s[place],
            "queue": part.started - job.received,
            "compute": part.seconds,
            "write": part.finished - part.started - part.seconds,
        }
        took = {f"{name}_ms": round(seconds * 1e3, 3) for name, seconds in took_s.items()}
        known = {"line": line, "package": part.model.package, "trace": job.trace, "rows": job.rows}
        self._write("slow", {**known, **took})

    def _may(self, event: str) -> bool:
        """Say whether an event may be logged; if not it is counted."""
        second = int(time.monotonic())
        at, lines = self._seconds.get(event, (second, 0))
        lines = lines + 1 if at == second else 1
        self._seconds[event] = second, lines
        if lines <= self._most:
            return True
        self._left_out[event] = self._left_out.get(event, 0) + 1
        return False

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        known = {name: value for name, value in fields.items() if value != ""}
        if left_out := self._left_out.pop(event, 0):
            known["left_out"] = left_out
        _log.warning(event, extra={_FIELDS: known})
