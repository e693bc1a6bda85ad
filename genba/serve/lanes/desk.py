"""Where the answers of one line leave, and what every line of a server has in common."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genba.serve.http.responses import MISTAKE, Refusal
from genba.serve.lanes.calls import Call
from genba.serve.lanes.jobs import Part
from genba.serve.lanes.pool import Pool
from genba.serve.limits import Limits
from genba.serve.watch.capture import Batch, Buffer, Recorder, Tally
from genba.serve.watch.metrics import Metrics

_log = logging.getLogger("genba.serve")


class Numbers:
    """The running numbers of a server's predictions."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._next = 0

    def take(self, rows: int) -> int:
        """Return the first of so many new numbers."""
        first = self._next
        self._next = first + rows
        return first


def _let_sleep(line: str, package: str) -> None:
    """Wake nobody: for a server whose packages never sleep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """What all lines of a server share."""

    pool: Pool  # the threads, and the event loop
    limits: Limits
    numbers: Numbers  # where prediction numbers come from
    recorder: Recorder  # where captures go
    metrics: Metrics  # where counts go
    #: Called with line and package when somebody asks a package that is not in memory.
    wake: Callable[[str, str], None] = _let_sleep


class Desk:
    """Answers and refuses the calls of one line, counts them, and keeps what was computed.

    Args:
        line: Its name.
        floor: What it shares with the other lines.
    """

    __slots__ = ("_buffer", "floor", "line", "server")

    def __init__(self, line: str, floor: Floor) -> None:
        self.line = line
        self.floor = floor
        self.server = floor.numbers.server
        self._buffer = Buffer(line, floor.recorder)

    def answer(self, call: Call, written: Any) -> bool:
        """Send an answer; say whether that went well. The client may be gone, which is well."""
        try:
            call.answer(written)
        except Exception:  # noqa: BLE001  # the others in the batch want their answers too
            _log.exception("an answer of line %s was not sent", self.line)
            return False
        return True

    def answered(self, count: int) -> None:
        """Count answers that were sent."""
        self.floor.metrics.answered("infer", 200, count)

    def refuse(self, call: Call, refusal: Refusal) -> None:
        """Count and send a refusal."""
        self.floor.metrics.refused("infer", refusal, line=self.line, trace=call.trace)
        try:
            call.refuse(refusal)
        except Exception:  # noqa: BLE001  # the same
            _log.exception("a refusal of line %s was not sent", self.line)

    def shed(self, why: str) -> None:
        """Count a request that was turned away to protect the others."""
        self.floor.metrics.shed(why)

    def attempt(self, call: Call, work: Callable[[], None]) -> None:
        """Do something for a call outside of its own turn; whatever happens it gets an answer."""
        try:
            work()
        except Refusal as refusal:
            self.refuse(call, refusal)
        except Exception:  # noqa: BLE001  # our mistake must not leave the client waiting
            _log.exception("an error in the server")
            self.refuse(call, MISTAKE)

    def keep(self, part: Part) -> None:
        """Have a part captured."""
        part.let_go()
        self._buffer.add(part)

    def cut(
        self, from_ms: int, to_ms: int, tallies: Mapping[str, tuple[Tally, float]]
    ) -> Batch | None:
        """Return the interval that ends now; None when nothing was answered in it."""
        return self._buffer.cut(from_ms, to_ms, tallies)
