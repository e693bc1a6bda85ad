"""The server process: one port, one event loop, and the threads beside it."""

import asyncio
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from genba.core.ids import new_id
from genba.core.problem import Problem
from genba.data.feedback import receive
from genba.serve.access import Access, check_bind
from genba.serve.capture import Recorder
from genba.serve.deployments import Deployments
from genba.serve.limits import Limits
from genba.serve.lines import LineService, Numbers, Placement
from genba.serve.metrics import Metrics
from genba.serve.protocol import Connection
from genba.serve.routes import App
from genba.store.home import Store
from genba.targets.cost import read_prices

_new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
try:
    import uvloop
except ModuleNotFoundError:  # there is none for Windows
    pass
else:
    _new_loop = uvloop.new_event_loop

_log = logging.getLogger("genba.serve")
_BACKLOG: Final = 1_024
_DRAIN_STEP_S: Final = 0.02
_SWITCH_S: Final = 0.0005  # the longest that another thread keeps Python from the event loop
DEFAULT_PORT: Final = 8080


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to serve."""

    home: Path | None = None  # $GENBA_HOME or ./.genba
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0 takes a free one
    key: str | None = field(default=None, repr=False)
    behind_tls: bool = False  # a proxy in front speaks TLS
    limits: Limits = field(default_factory=Limits)


def serve(settings: Settings, announce: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests that are being answered are answered first.

    Args:
        settings: How to serve.
        announce: Called once when requests are answered, with `ready` and `port`; prints one line
            of JSON if not given.

    Raises:
        Problem: G702 for an address that is not allowed, G701 when the port is taken, G301 when
            there is no store.
    """
    check_bind(settings.host, settings.key, behind_tls=settings.behind_tls)
    with (
        Store.open(settings.home) as store,
        _listen(settings.host, settings.port) as listener,
        asyncio.Runner(loop_factory=_new_loop) as runner,
    ):
        runner.run(Server(store, settings).run(listener, announce or _print_line))


def _print_line(ready: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise Problem(
            "G701",
            f"The server cannot listen on {host} port {port}: {error.strerror}.",
            where=f"{host}:{port}",
            why="Most often another server has this port already.",
            tries=[f"genba up --port {port + 1}", "genba up --port 0  # any free port"],
        ) from error


class Server:
    """Everything that runs beside the event loop, started and stopped in order."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._limits = settings.limits
        self._id = new_id("server")
        self._lines: dict[str, LineService] = {}
        self._numbers = Numbers(self._id)
        self._recorder = Recorder(store, self._id, self._limits)
        self._metrics = Metrics(read_prices().watts_per_core.value)
        self._app = App(
            self._limits,
            Access(settings.key),
            self._metrics,
            self._lines,
            lambda line, rows: receive(store, line, rows, source="api"),
        )
        self._deployments = Deployments(store, self._limits, self._id, self._hand_over)
        self._loop: asyncio.AbstractEventLoop
        self._cpu_s = time.process_time()
        self._publish_gauges()

    async def run(
        self, listener: socket.socket, announce: Callable[[dict[str, Any]], None]
    ) -> None:
        """Serve on a listening socket until a signal says stop."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_S)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stop.set)
        await self._loop.run_in_executor(None, self._deployments.poll)
        self._recorder.start()
        self._deployments.start()
        self._sweep()
        self._hand_over_captures()
        server = await self._loop.create_server(
            lambda: Connection(self._app, self._loop), sock=listener
        )
        announce({"ready": True, "port": listener.getsockname()[1], "server": self._id})
        await stop.wait()
        server.close()
        await self._drain()
        await self._loop.run_in_executor(None, self._stop_threads)

    async def _drain(self) -> None:
        """Answer what was asked, take nothing new, and write the last captures."""
        self._app.draining = True
        until = self._loop.time() + self._limits.drain_s
        await asyncio.sleep(_DRAIN_STEP_S)  # what was sent before the signal is read
        while self._app.connections and self._loop.time() < until:
            for connection in list(self._app.connections):
                connection.drain()
            await asyncio.sleep(_DRAIN_STEP_S)
        for connection in list(self._app.connections):
            connection.abort()
        while self._app.busy and self._loop.time() < until:
            await asyncio.sleep(_DRAIN_STEP_S)
        self._cut_captures()

    def _stop_threads(self) -> None:
        self._deployments.stop()
        self._recorder.stop()
        self._app.close()

    def _hand_over(self, placement: Placement) -> None:
        """Take a placement from the thread that loads packages."""
        self._loop.call_soon_threadsafe(self._place, placement)

    def _place(self, placement: Placement) -> None:
        self._cut_captures()  # an interval never spans two rollouts
        line = self._lines.get(placement.line)
        if line is None:
            line = self._lines[placement.line] = LineService(
                placement.line,
                self._loop,
                self._limits,
                numbers=self._numbers,
                recorder=self._recorder,
                metrics=self._metrics,
            )
        line.place(placement)

    def _sweep(self) -> None:
        """Look at all deadlines."""
        self._loop.call_later(self._limits.sweep_s, self._sweep)
        now = self._loop.time()
        for connection in [c for c in self._app.connections if 0 < c.deadline < now]:
            connection.expire()
        for line in self._lines.values():
            line.expire(time.perf_counter())

    def _hand_over_captures(self) -> None:
        self._loop.call_later(self._limits.capture_s, self._hand_over_captures)
        self._cut_captures()

    def _cut_captures(self) -> None:
        now_s = time.process_time()
        used_s, self._cpu_s = now_s - self._cpu_s, now_s
        computed_s = sum(line.computed_s() for line in self._lines.values())
        for line in self._lines.values():
            batch = line.cut(used_s / computed_s if computed_s else 0.0)
            if batch is not None:
                self._recorder.hand_over(batch)

    def _publish_gauges(self) -> None:
        app, recorder = self._app, self._recorder
        self._metrics.gauges = {
            "genba_connections": ("Open connections.", lambda: len(app.connections)),
            "genba_lines_ready": (
                "Lines that can answer.",
                lambda: sum(line.ready for line in app.lines.values()),
            ),
        }
        self._metrics.counters = {
            "genba_capture_rows": ("Predictions captured.", lambda: recorder.written),
            "genba_capture_rows_dropped": (
                "Predictions answered but not captured.",
                lambda: recorder.dropped,
            ),
            "genba_process_cpu_seconds": ("CPU time of the server.", time.process_time),
        }
        self._metrics.roles = lambda: {
            (line.name, package): role
            for line in app.lines.values()
            for package, role in line.roles().items()
        }
