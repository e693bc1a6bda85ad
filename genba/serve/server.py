"""The server process: one port, one event loop, and the threads beside it."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from genba.core.ids import new_id
from genba.core.keys import Key
from genba.core.resolve import resolve
from genba.data.feedback import Sender, receive
from genba.serve.access.callers import Access, Rules, check_bind, is_loopback, parse_origin
from genba.serve.access.keywatch import KeyWatch
from genba.serve.access.tls import server_context
from genba.serve.edge.desk import Desk
from genba.serve.http.connection import Connection
from genba.serve.http.routes import App
from genba.serve.lanes.desk import Floor, Numbers
from genba.serve.lanes.lines import LineService
from genba.serve.lanes.placement import Placement
from genba.serve.lanes.pool import Pool
from genba.serve.lanes.probe import share
from genba.serve.packages.deployments import Deployments
from genba.serve.packages.guard import memory_cap
from genba.serve.packages.loading import MARKS
from genba.serve.packages.marks import Marker
from genba.serve.process.garbage import Garbage
from genba.serve.process.listen import BACKLOG, listen
from genba.serve.process.loop import new_loop
from genba.serve.settings import Settings
from genba.serve.watch.capture import Recorder
from genba.serve.watch.gauges import publish
from genba.serve.watch.logs import Journal
from genba.serve.watch.metrics import Metrics
from genba.serve.watch.scrape import Scraper
from genba.serve.watch.tracing import open_tracing
from genba.store.home import Store
from genba.store.keys import all_keys
from genba.targets.cost import read_prices

_log = logging.getLogger("genba.serve")
_DRAIN_STEP_S: Final = 0.02
_SWITCH_S: Final = 0.0005  # the longest that another thread keeps Python from the event loop


def serve(settings: Settings, announce: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests that are being answered are answered first.

    Args:
        settings: How to serve.
        announce: Called once when requests are answered, with `ready` and `port`; prints one line
            of JSON if not given.

    Raises:
        Problem: G702 for an address that is not allowed, G750 for TLS files that do not hold, G753
            for an origin that is none, G701 when the port is taken, G301 when there is no store.
    """
    with (
        Store.open(settings.home) as store,
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        _check(settings, store)
        with listen(settings.host, settings.port, shared=_shares(settings)) as listener:
            server = Server(store, settings)
            runner.run(server.run(listener, announce or _print_line))


def _check(settings: Settings, store: Store) -> None:
    now_ms = round(time.time() * 1_000)
    valid = any(key.state(now_ms) == "valid" for key in all_keys(store.ledger).values())
    check_bind(
        settings.host,
        keys=valid or bool(settings.key),
        tls=settings.tls is not None,
        behind_proxy=settings.behind_proxy,
    )


def _shares(settings: Settings) -> bool:
    """Say whether somebody holds the port for us, and for others."""
    return settings.siblings.parent is not None


def _rules(settings: Settings) -> Rules:
    return Rules(
        loopback=is_loopback(settings.host),
        behind_proxy=settings.behind_proxy,
        origins=frozenset(map(parse_origin, settings.origins)),
        workers=settings.siblings.workers,
    )


def _print_line(ready: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


class Server:
    """Everything that runs beside the event loop, started and stopped in order."""

    def __init__(self, store: Store, settings: Settings) -> None:
        workers = settings.siblings.workers
        self._limits = replace(
            settings.limits,
            cores=settings.limits.cores or share(workers),
            memory_bytes=memory_cap(settings.limits) // workers,
        )
        self._id = new_id("server")
        self._lines: dict[str, LineService] = {}
        self._recorder = Recorder(store, self._id, self._limits)
        self._metrics = Metrics(read_prices().watts_per_core.value)
        self._metrics.journal = Journal(self._limits.slow_s)
        self._metrics.tracing = open_tracing(os.environ.get, self._id)
        self._settings = settings
        self._access = Access(settings.key, _rules(settings))
        self._keys = KeyWatch(store.ledger, self._limits, self._take_keys, self._access.used)
        self._tls = server_context(settings.tls) if settings.tls else None
        self._app = App(
            self._limits,
            self._access,
            self._metrics,
            self._lines,
            lambda line, rows, caller: receive(
                store, line, rows, source=Sender(source="api", caller=caller) if caller else "api"
            ),
        )
        self._marker = Marker(store.path / MARKS, self._id)
        self._deployments = Deployments(
            store,
            self._limits,
            self._id,
            self._hand_over,
            marker=self._marker,
            last_used=self._last_used,
        )
        self._floor: Floor
        self._app.memory = self._deployments.ask
        self._app.edge = Desk(store)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._cpu_s = time.process_time()
        self._garbage = Garbage()
        publish(self._metrics, self._app, self._recorder)
        self._app.scraper = Scraper(self._metrics, settings.siblings)

    async def run(
        self, listener: socket.socket, announce: Callable[[dict[str, Any]], None]
    ) -> None:
        """Serve on a listening socket until a signal says stop."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(_SWITCH_S)
        self._stop = asyncio.Event()
        self._floor = Floor(
            pool=Pool(self._loop, self._limits),
            limits=self._limits,
            numbers=Numbers(self._id),
            recorder=self._recorder,
            metrics=self._metrics,
            wake=self._deployments.wake,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        if _shares(self._settings):  # a terminal that is closed says so to everybody
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._recorder.start()
        try:
            await self._serve(listener, announce)
        finally:
            self._garbage.stop()
            self._app.scraper.stop()
            await self._loop.run_in_executor(None, self._stop_threads)

    async def _serve(
        self, listener: socket.socket, announce: Callable[[dict[str, Any]], None]
    ) -> None:
        for thread in (self._keys, self._deployments):
            await self._loop.run_in_executor(None, thread.poll)
            thread.start()
        await self._app.scraper.start()
        self._sweep()
        self._expire()
        self._hand_over_captures()
        grpc = await self._open_grpc()
        server = await self._loop.create_server(
            lambda: Connection(self._app, self._loop),
            sock=listener,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=self._limits.head_s if self._tls else None,
        )
        self._garbage.start(self._loop.time())
        announce(
            {
                "ready": True,
                "port": listener.getsockname()[1],
                "grpc_port": grpc.port if grpc else None,
                "server": self._id,
                "pid": os.getpid(),
                "lines": sorted(self._lines),
                "inline": sorted(name for name, line in self._lines.items() if line.inline),
            }
        )
        await self._stop.wait()
        server.close()
        await asyncio.gather(self._drain(), *([grpc.stop(self._limits.drain_s)] if grpc else ()))

    async def _open_grpc(self) -> Any:
        """Answer gRPC too, if it is wanted."""
        wanted = self._settings
        if wanted.grpc_port is None:
            return None
        start = resolve("protocol", "grpc")
        return await start(
            self._app,
            self._access,
            wanted.host,
            wanted.grpc_port,
            tls=wanted.tls,
            share_port=_shares(wanted),
        )

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
        self._keys.stop()
        self._deployments.stop()
        self._recorder.stop()
        if self._metrics.tracing is not None:
            self._metrics.tracing.stop()
        self._app.close()
        self._app.edge.close()
        self._floor.pool.close()
        for line in self._lines.values():
            line.close()
        self._marker.close()

    def _take_keys(self, keys: Mapping[str, Key]) -> None:
        """Take the keys from the thread that follows them."""
        self._loop.call_soon_threadsafe(self._access.update, keys)

    def _last_used(self, line: str, package: str) -> float:
        """Say when a package was last asked; called on the thread that loads packages."""
        service = self._lines.get(line)
        return service.last_used.get(package, 0.0) if service else 0.0

    def _hand_over(self, placement: Placement) -> None:
        """Take a placement from the thread that loads packages."""
        self._loop.call_soon_threadsafe(self._place, placement)

    def _place(self, placement: Placement) -> None:
        self._cut_captures()  # an interval never spans two rollouts
        line = self._lines.get(placement.line)
        if line is None:
            line = self._lines[placement.line] = LineService(placement.line, self._floor)
        line.place(placement)

    def _sweep(self) -> None:
        """Look at all deadlines, and whether who started this process is still there."""
        self._loop.call_later(self._limits.sweep_s, self._sweep)
        if self._limits.hang_s:
            self._marker.watch(self._limits.hang_s)
        if self._settings.siblings.parent not in (None, os.getppid()):
            self._stop.set()
        now = self._loop.time()
        self._garbage.look(now, idle=not self._app.busy)
        for connection in [c for c in self._app.connections if 0 < c.deadline < now]:
            connection.expire()
        for connection in list(self._app.connections):
            connection.probe()

    def _expire(self) -> None:
        """Give up on requests that are past their deadline."""
        self._loop.call_later(self._limits.expire_s, self._expire)
        now = time.perf_counter()
        for line in self._lines.values():
            line.expire(now)

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
