"""A factory that has published releases, a server of its files that can misbehave, and a device."""

import functools
import http.server
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genba.core.codec import encode
from genba.edge.agent.enrolment import Enrolment
from genba.edge.agent.enrolment import enrol as take
from genba.edge.agent.factory import Factory, Patience
from genba.edge.agent.rules import Plan
from genba.edge.agent.runner import Agent, Tester
from genba.edge.clocks import Clock
from genba.stages.edge_export import Exported
from genba.stages.edge_fleet import Enrolling, enrol
from genba.stages.edge_publish import Publishing, publish
from genba.store.home import Store
from tests.unit.edge_releases import add_package, pump_home, released

QUICK = Patience(silent_s=0.3, grace_s=0.3, least_bytes_s=1e5)
PLAN = Plan(shadow_answers=4, canary_answers=4, watch_answers=4, canary_share=0.5)
Wrong = Callable[["Odd", str, bytes], bytes | None]


@dataclass
class Plant:
    """A home with releases of the line `pump`, and where they lie."""

    home: Path
    releases: list[Exported] = field(default_factory=list)

    def store(self) -> Store:
        return Store.open(self.home)


def make_plant(folder: Path, releases: int = 2) -> Plant:
    """Return a factory whose first release is published, and the others exported."""
    plant = Plant(folder / "home")
    with pump_home(plant.home, functools.partial(add_package, seed=0)) as store:
        for number in range(1, releases + 1):
            plant.releases.append(released(store, folder / f"pump-{number}"))
        publish(store, Publishing(release=plant.releases[0].release, plan=PLAN))
    return plant


def copy_plant(plant: Plant, folder: Path) -> Plant:
    """Return a factory of one's own to change."""
    shutil.copytree(plant.home, folder / "home")
    return Plant(folder / "home", plant.releases)


def publish_next(plant: Plant, number: int, **how: Any) -> None:
    with plant.store() as store:
        order = Publishing(release=plant.releases[number - 1].release, plan=PLAN, **how)
        publish(store, order)


class Odd(http.server.BaseHTTPRequestHandler):
    """Serves a factory's files as `genba up` does, unless it is told to do something wrong."""

    protocol_version = "HTTP/1.1"
    folder: Path
    wrong: Wrong | None
    asked: list[str]
    taken: list[dict[str, Any]]

    def do_GET(self) -> None:
        kind, name = self.path.split("/")[2:4]
        self.asked.append(f"{kind}/{name}")
        path = self.folder / kind / name
        data = path.read_bytes() if path.is_file() else None
        if data is not None and self.wrong is not None:
            data = self.wrong(self, f"{kind}/{name}", data)
            if data is None:
                return
        if data is None:
            self.answer(404, b'{"error":"There is nothing here.","code":"G708"}')
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found and int(found[1]) < len(data):
            self.answer(206, data[int(found[1]) : int(found[2]) + 1])
        else:
            self.answer(200, data)

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def cut(self, body: bytes, length: int) -> None:
        """Promise so many bytes, send fewer, and hang up."""
        self.answer(200, body, length)
        self.wfile.flush()
        self.close_connection = True

    def trickle(self, body: bytes, pause_s: float) -> None:
        """Send a byte now and then."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                self.wfile.flush()
                time.sleep(pause_s)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Serving:
    url: str
    asked: list[str]


@contextmanager
def serving(plant: Plant, wrong: Wrong | None = None) -> Iterator[Serving]:
    asked: list[str] = []
    made = {"folder": plant.home / "edge", "wrong": staticmethod(wrong) if wrong else None}
    handler = type("Handler", (Odd,), {**made, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Serving(f"http://127.0.0.1:{server.server_address[1]}", asked)
        finally:
            server.shutdown()
            thread.join()


def enrolment(plant: Plant, url: str = "", device: str = "press-7") -> Enrolment:
    with plant.store() as store:
        order = Enrolling(device=device, line="pump", url=url)
        return enrol(store, order, by="kei", now_ms=time.time_ns() // 1_000_000)


def device(
    plant: Plant,
    state: Path,
    url: str,
    *,
    clock: Clock | None = None,
    tester: Tester | None = None,
    given: Enrolment | None = None,
) -> Agent:
    """Return the agent of an enrolled device that waits for nobody long."""
    known = given or enrolment(plant, url)
    take(state, json.dumps(encode(known)).encode())
    factory = Factory(url, known.key, patience=QUICK) if url else None
    return Agent(state, known, clock=clock, tester=tester or passes, factory=factory)


def passes(folder: Path, state: Path, root: str, now_ms: int) -> None:
    """A self-test that is always passed."""


def up_to_date(agent: Agent) -> int:
    """Ask and work once; return the release in service."""
    agent.ask()
    state = agent.work()
    return state.active.release if state.active else 0
