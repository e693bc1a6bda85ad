"""`genba up`: serve, watch, retrain, promote, roll back, until somebody stops it."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.loop.decide import Action
from genba.loop.runner import Runner, Tick
from genba.serve.access.callers import is_loopback
from genba.serve.access.tls import Tls
from genba.serve.process.fleet import Fleet
from genba.serve.settings import DEFAULT_PORT, Settings
from genba.store.home import Store
from genba.store.keys import all_keys
from genba.store.signing import write_checkpoint
from genba.ui.cli.answer import Answer, facts, heading, make_console
from genba.ui.cli.crash import keep_traceback
from genba.ui.cli.figures import seconds, short
from genba.ui.cli.lookup import line_names, open_home
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.up_on import fleet_on

_TICK_S: Final = 0.5
_HIGHEST_PORT: Final = 65_535
_REPEAT_S: Final = 60.0  # the same trouble is not shown more often than this


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """How it answers, and to whom."""

    host: str = "127.0.0.1"
    """Address to bind; anything but loopback needs a key (genba keys add) and TLS."""

    grpc_port: int | None = None
    """Answer gRPC there as well; 0 takes a free one (default: no gRPC)."""

    processes: str = "1"
    """How many processes share the port: a number, or auto."""

    tls_cert: Path | None = None
    """Certificate to speak TLS with: PEM, its chain behind it."""

    tls_key: Path | None = None
    """Its private key: PEM."""

    behind_proxy: bool = False
    """A proxy in front speaks TLS, and others reach it; a key is needed."""

    allow_origin: tuple[str, ...] = ()
    """Origin of a page elsewhere that may ask, such as https://board.example; repeatable."""

    on: str = ""
    """Answer on a cluster: ray, or ray:ADDRESS; --processes are replicas then."""

    def settings(self, home: Path, port: int) -> Settings:
        """Return the settings of the server."""
        given = self.tls_cert or self.tls_key
        if given and not (self.tls_cert and self.tls_key):
            missing = "--tls-key" if self.tls_cert else "--tls-cert"
            raise Problem(
                "G110",
                f"TLS needs a certificate and its key; {missing} is missing.",
                where="genba up",
                tries=["genba up --tls-cert FILE --tls-key FILE"],
            )
        tls = Tls(cert=self.tls_cert, key=self.tls_key) if self.tls_cert and self.tls_key else None
        return Settings(
            home=home,
            host=self.host,
            port=port,
            grpc_port=self.grpc_port,
            tls=tls,
            behind_proxy=self.behind_proxy,
            origins=self.allow_origin,
        )


AS_USUAL: Final = Serving()


class Answering(Protocol):
    """What answers at a port and is looked after: the processes of this machine."""

    def look_after(self) -> str | None:
        """Do what is needed to go on answering; return what happened, if anything did."""
        ...

    def renew(self) -> str:
        """Put new processes in the place of the old ones; return what came of it."""
        ...


def up(
    *,
    port: int = DEFAULT_PORT,
    seconds_: float | None = None,
    serving: Serving = AS_USUAL,
    options: Options = DEFAULT,
) -> Answer:
    """Serve every deployed package and keep the lines good.

    Answers the Open Inference Protocol on one port, watches for drift and trouble, retrains when a
    line's triggers say so, and takes new packages through a canary. Ctrl-C stops it; nothing is
    lost. SIGHUP renews the server processes one by one, with their certificate.

    Args:
        port: Where to answer; 0 takes a free one.
        seconds_: Stop by itself after so long.
        serving: How it answers, and to whom.
        options: Common options.
    """
    began = time.monotonic()
    for flag, asked_for in (("--port", port), ("--grpc-port", serving.grpc_port or 0)):
        if not 0 <= asked_for <= _HIGHEST_PORT:
            raise Problem(
                "G103",
                f"{flag} must be a number from 0 to {_HIGHEST_PORT}, not {asked_for}.",
                where=flag,
                tries=[f"genba up {flag} 0  # any free port"],
            )
    console = make_console(stderr=True)
    with open_home(options) as store, Runner(store) as runner, _signals() as asked:
        fleet = fleet_on(serving.on, serving.settings(store.path, port), serving.processes)
        ready = fleet.start()
        try:
            lines = line_names(store)
            _greet(console, store, fleet, lines, ready)
            done = Loop(runner, fleet, _Teller(console), partial(write_checkpoint, store)).run(
                asked, None if seconds_ is None else began + seconds_
            )
        finally:
            fleet.stop()
    lasted = time.monotonic() - began
    return Answer(
        data={
            "url": fleet.settings.url,
            "grpc_port": fleet.settings.grpc_port,
            "processes": fleet.count.processes,
            "lines": lines,
            "seconds": lasted,
            "restarts": fleet.restarts,
            "actions": [encode(action) for action in done],
        },
        blocks=[
            heading(f"Stopped after {seconds(lasted)}", mark="yes"),
            facts([("actions", str(len(done))), ("server restarts", str(fleet.restarts))]),
        ],
        next=("genba up", "genba status"),
    )


class Asked:
    """What signals asked for: to stop, or to renew the server processes."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.renew = threading.Event()


class Loop:
    """The foreground of `genba up`: tick, look after the server, say what happened.

    Args:
        runner: The controller.
        server: What answers.
        tell: Called with each sentence worth showing.
        sign: Called after the controller has changed something, to sign the ledger's head.
    """

    def __init__(
        self,
        runner: Runner,
        server: Answering,
        tell: Callable[[str, str], None],
        sign: Callable[[], object],
    ) -> None:
        self._runner = runner
        self._server = server
        self._tell = tell
        self._sign = sign
        self._kept: dict[str, str] = {}  # what broke the controller -> where its traceback is

    def run(self, asked: Asked, until: float | None = None) -> list[Action]:
        """Go on until stopped, or until a moment of the monotonic clock; return the actions."""
        done: list[Action] = []
        while not asked.stop.is_set() and (until is None or time.monotonic() < until):
            for tick in self._tick():
                done += tick.actions
                self._report(tick)
                self._sign_after(tick)
            news = self._server.renew() if asked.renew.is_set() else self._server.look_after()
            asked.renew.clear()
            if news:
                self._tell("server", news)
            asked.stop.wait(_TICK_S)
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
    console: Console, store: Store, fleet: Fleet, lines: list[str], ready: dict[str, Any]
) -> None:
    settings = fleet.settings
    console.print(heading(f"Genba answers at {settings.url}", mark="yes"))
    pairs = [("lines", ", ".join(lines) or "none yet; genba run LINE makes one")]
    pairs.append(("protocols", _protocols(settings)))
    pairs.append(("who may ask", _who(store, fleet)))
    servers = ", ".join(str(worker.get("server", "")) for worker in ready["workers"])
    reason = f" ({fleet.count.reason})" if fleet.count.reason else ""
    pairs.append(("processes", f"{fleet.count.processes}{reason}"))
    pairs.append(("server", servers))
    if lines:
        where = "" if settings.url.endswith(f"127.0.0.1:{DEFAULT_PORT}") else settings.url
        asked = f"genba predict {lines[0]} --input FILE"
        pairs.append(("ask", f"{asked} --url {where}" if where else asked))
    pairs.append(("stop", "Ctrl-C"))
    console.print(facts(pairs))


def _protocols(settings: Settings) -> str:
    tls = " over TLS" if settings.tls else ""
    spoken = f"Open Inference Protocol, and OpenAI for lines of language, HTTP{tls}"
    if settings.grpc_port is None:
        return spoken
    return f"{spoken}; gRPC{tls} on port {settings.grpc_port}"


def _who(store: Store, fleet: Fleet) -> str:
    known = all_keys(store.ledger).values()
    now_ms = round(time.time() * 1_000)
    valid = [key for key in known if key.state(now_ms) == "valid"]
    if os.environ.get("GENBA_SERVE_KEY"):
        return f"{len(valid)} keys, and the one in GENBA_SERVE_KEY"
    if not known and is_loopback(fleet.settings.host):
        return "everybody on this machine; genba keys add NAME makes a key"
    told = f"{len(valid)} key" if len(valid) == 1 else f"{len(valid)} keys"
    limited = any(key.rate or key.concurrent for key in valid)
    if limited and fleet.count.processes > 1:
        told += f"; each process grants 1/{fleet.count.processes} of its limits"
    return told


@contextmanager
def _signals() -> Iterator[Asked]:
    """Turn Ctrl-C and a service manager's SIGTERM into an event, once; the second one insists.

    SIGHUP renews the processes, unless it means that the terminal is gone.
    """
    asked = Asked()
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not sys.stdin.isatty():
            asked.renew.set()
            return
        if asked.stop.is_set():
            raise KeyboardInterrupt
        asked.stop.set()

    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before[wanted] = signal.signal(wanted, stop)
    try:
        yield asked
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
