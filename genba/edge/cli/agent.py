"""`genba-edge agent`: keep this device on the release that its factory wants, until stopped."""

import argparse
import random
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from genba.core.problem import Problem
from genba.edge.agent import enrolment as enrolments
from genba.edge.agent.fetching import Limits
from genba.edge.agent.runner import Agent
from genba.edge.agent.upload import note_changes, report_of, send
from genba.edge.buffer import Buffer
from genba.edge.cli.answer import Said, fact

BUFFER_FILE: Final = "buffer.db"
_DAYS: Final = 30.0
_MOST_BYTES: Final = 256 << 20
_LONGEST_S: Final = 3_600.0
_MIB: Final = 1 << 20


class RunAgent:
    """Ask the factory, take what is new, try it, send what waits; again and again."""

    help: ClassVar[str] = "Keep this device on the release that its factory wants."

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Add how often, and how much it may use."""
        parser.add_argument("--enrol", type=Path, metavar="FILE", help="of `genba edge enrol`")
        parser.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds (60)")
        parser.add_argument("--once", action="store_true", help="do it once, then stop")
        parser.add_argument("--most-mib", type=int, default=1_024, help="of one release (1024)")
        add_buffer(parser)

    @staticmethod
    def run(given: argparse.Namespace) -> Said:
        """Run until SIGTERM or SIGINT.

        Raises:
            Problem: G687 when this device is not enrolled; with `--once`, whatever stopped it.
        """
        if given.enrol is not None:
            took = enrolments.enrol(given.state, _read(given.enrol))
            if not given.once:
                _say(f"enrolled as {took.device}, for the line {took.line}")
        agent = open_agent(given)
        with open_buffer(given) as buffer, _stopping() as stop:
            rounds = Rounds(agent, buffer, given.state)
            if given.once:
                rounds.once()
            else:
                rounds.until(stop, given.every)
        state = agent.state
        running = "nothing yet" if state.active is None else f"release {state.active.release}"
        return Said(
            data={"device": agent.enrolment.device, "line": state.line, "rounds": rounds.count},
            lines=(
                f"✓ {agent.enrolment.device} runs {running} of {state.line}",
                fact("rounds", rounds.count),
                fact("sent", f"{rounds.sent} records"),
            ),
            next=("genba-edge status",),
        )


class Rounds:
    """What an agent does again and again.

    Args:
        agent: Of the device.
        buffer: What waits for the factory.
        state: The folder of the device.
    """

    def __init__(self, agent: Agent, buffer: Buffer, state: Path) -> None:
        self._agent = agent
        self._buffer = buffer
        self._state = state
        self._told = ""
        self._trouble = ""  # of the round before
        self.count = 0
        self.sent = 0

    def once(self) -> None:
        """Ask, work, send.

        Raises:
            Problem: The first that stopped one of them; the others were done all the same.
        """
        problems = []
        self.count += 1
        for part in (self._agent.ask, self._agent.work, self._send):
            try:
                part()
            except Problem as problem:
                problems.append(problem)
        self._trouble = "; ".join(f"{p.code} {p.what}" for p in problems)
        if problems:
            raise problems[0]

    def until(self, stop: threading.Event, every_s: float) -> None:
        """Go on until stopped; where the factory is gone, ask less and less often."""
        failed = 0
        while not stop.is_set():
            before = self._agent.record.read().number
            try:
                self.once()
                failed = 0
            except (Problem, OSError) as problem:
                failed += 1
                self._tell(str(problem))
            for change in self._agent.record.read().changes:
                if change.number > before:
                    self._tell(change.what)
            wait_s = min(_LONGEST_S, every_s * 2 ** min(failed, 6)) if failed else every_s
            stop.wait(wait_s * random.uniform(0.9, 1.1))  # noqa: S311  # not all devices at once

    def _send(self) -> None:
        if self._agent.factory is None:
            return
        recorded = self._agent.record.read()
        note_changes(recorded, self._buffer)
        more: dict[str, Any] = {"buffer": _watermark(self._buffer), "trouble": self._trouble}
        report = report_of(
            self._agent.enrolment, recorded, self._agent.folder, self._agent.time, more
        )
        sent = send(self._agent.factory, self._agent.enrolment, self._state, report, self._buffer)
        self.sent += sent.accepted
        for why in sorted(set(sent.refused)):
            self._tell(f"the factory does not take a record: {why}")

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            _say(text)


def add_buffer(parser: argparse.ArgumentParser) -> None:
    """Add how much may wait for the factory."""
    parser.add_argument("--buffer-days", type=float, default=_DAYS, help="records wait (30)")
    parser.add_argument(
        "--buffer-mib", type=int, default=_MOST_BYTES // _MIB, help="of waiting records (256)"
    )


def open_buffer(given: argparse.Namespace) -> Buffer:
    """Open what waits for the factory."""
    most = given.buffer_mib * _MIB
    return Buffer(given.state / BUFFER_FILE, days=given.buffer_days, most_bytes=most)


def open_agent(given: argparse.Namespace) -> Agent:
    """Open the agent of the device that a command is for.

    Raises:
        Problem: G687 when it is not enrolled.
    """
    most = getattr(given, "most_mib", 1_024) * _MIB
    return Agent(given.state, enrolments.read(given.state), limits=Limits(most_bytes=most))


def _watermark(buffer: Buffer) -> dict[str, Any]:
    mark = buffer.watermark()
    return {
        "pending": dict(mark.pending),
        "dropped": dict(mark.dropped),
        "bytes": mark.bytes,
        "oldest_ms": mark.oldest_ms,
        "trouble": mark.trouble,
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise enrolments.not_enrolled(f"{path} cannot be read: {error.strerror}.") from error


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
