"""`genba up`: serve, watch, retrain, promote, roll back, until somebody stops it."""

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.loop.decide import Action
from genba.loop.runner import Runner, Tick
from genba.store.signing import write_checkpoint
from genba.ui.cli.answer import Answer, facts, heading, make_console
from genba.ui.cli.crash import keep_traceback
from genba.ui.cli.figures import seconds, short
from genba.ui.cli.lookup import line_names, open_home
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.server import Address, ServerProcess

DEFAULT_PORT: Final = 8080
_TICK_S: Final = 0.5
_REPEAT_S: Final = 60.0  # the same trouble is not shown more often than this


def up(
    *,
    port: int = DEFAULT_PORT,
    host: str = "127.0.0.1",
    seconds_: float | None = None,
    options: Options = DEFAULT,
) -> Answer:
    """Serve every deployed package and keep the lines good.

    Answers the Open Inference Protocol on one port, watches for drift and trouble, retrains when a
    line's triggers say so, and takes new packages through a canary. Ctrl-C stops it; nothing is
    lost.

    Args:
        port: Where to answer; 0 takes a free one.
        host: Address to bind; anything but loopback needs a key in GENBA_SERVE_KEY, and TLS in
            front of it (GENBA_SERVE_BEHIND_TLS=1).
        seconds_: Stop by itself after so long.
        options: Common options.
    """
    began = time.monotonic()
    console = make_console(stderr=True)
    with open_home(options) as store, Runner(store) as runner, _stop_signal() as stopped:
        server = ServerProcess(store.path, Address(host=host, port=port))
        ready = server.start()
        try:
            lines = line_names(store)
            _greet(console, server, lines, ready)
            done = Loop(runner, server, _Teller(console), partial(write_checkpoint, store)).run(
                stopped, None if seconds_ is None else began + seconds_
            )
        finally:
            server.stop()
    lasted = time.monotonic() - began
    return Answer(
        data={
            "url": server.address.url,
            "lines": lines,
            "seconds": lasted,
            "restarts": server.restarts,
            "actions": [encode(action) for action in done],
        },
        blocks=[
            heading(f"Stopped after {seconds(lasted)}", mark="yes"),
            facts([("actions", str(len(done))), ("server restarts", str(server.restarts))]),
        ],
        next=("genba up", "genba status"),
    )


class Loop:
    """The foreground of `genba up`: tick, look after the server, say what happened.

    Args:
        runner: The controller.
        server: The child that answers.
        tell: Called with each sentence worth showing.
        sign: Called after the controller has changed something, to sign the ledger's head.
    """

    def __init__(
        self,
        runner: Runner,
        server: ServerProcess,
        tell: Callable[[str, str], None],
        sign: Callable[[], object],
    ) -> None:
        self._runner = runner
        self._server = server
        self._tell = tell
        self._sign = sign
        self._kept: dict[str, str] = {}  # what broke the controller -> where its traceback is

    def run(self, stopped: threading.Event, until: float | None = None) -> list[Action]:
        """Go on until stopped, or until a moment of the monotonic clock; return the actions."""
        done: list[Action] = []
        while not stopped.is_set() and (until is None or time.monotonic() < until):
            for tick in self._tick():
                done += tick.actions
                self._report(tick)
                self._sign_after(tick)
            news = self._server.look_after()
            if news:
                self._tell("server", news)
            stopped.wait(_TICK_S)
        return done

    def _tick(self) -> tuple[Tick, ...]:
        try:
            return self._runner.tick()
        except Exception as error:  # noqa: BLE001  whatever breaks the controller, serving goes on
            told = f"{type(error).__name__}: {error}"
            if told not in self._kept:
                self._kept[told] = keep_traceback(traceback.format_exc(), sys.argv)
            self._tell("controller", f"{told}; serving goes on, details in {self._kept[told]}")
            return ()

    def _sign_after(self, tick: Tick) -> None:
        if not tick.actions:
            return
        try:
            self._sign()
        except Problem as problem:  # serving goes on; the next signature covers this one as well
            self._tell(tick.line, f"{problem.code} {problem.what}")

    def _report(self, tick: Tick) -> None:
        if tick.held_by:
            self._tell(tick.line, f"is looked after by another controller ({tick.held_by})")
        for action in tick.actions:
            package = f" {short(action.package)}" if action.package else ""
            would = "would " if action.would else ""
            self._tell(
                tick.line, f"{would}{action.kind.replace('_', ' ')}{package}: {action.reason}"
            )
        for problem in tick.problems:
            self._tell(tick.line, f"{problem.code} {problem.what}")


class _Teller:
    """Prints one line per event, and a trouble that stays the same only now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[tuple[str, str], float] = {}

    def __call__(self, who: str, what: str) -> None:
        now = time.monotonic()
        if now - self._last.get((who, what), -_REPEAT_S) < _REPEAT_S:
            return
        self._last[who, what] = now
        self._console.print(
            Text.assemble((time.strftime("%H:%M:%S  "), "dim"), (f"{who}  ", "bold"), what),
            soft_wrap=True,
        )


def _greet(
    console: Console, server: ServerProcess, lines: list[str], ready: dict[str, Any]
) -> None:
    console.print(heading(f"Genba answers at {server.address.url}", mark="yes"))
    pairs = [("lines", ", ".join(lines) or "none yet; genba run LINE makes one")]
    pairs.append(("server", str(ready.get("server", ""))))
    if lines:
        where = "" if server.address.port == DEFAULT_PORT else f" --url {server.address.url}"
        pairs.append(("ask", f"genba predict {lines[0]} --input FILE{where}"))
    pairs.append(("stop", "Ctrl-C"))
    console.print(facts(pairs))


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Turn Ctrl-C and a service manager's SIGTERM into an event, once; the second one insists."""
    stopped = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        del number
        stopped.set()

    for wanted in (signal.SIGINT, signal.SIGTERM):
        before[wanted] = signal.signal(wanted, stop)
    try:
        yield stopped
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
