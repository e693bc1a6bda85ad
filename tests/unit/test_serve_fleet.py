"""Several processes on one port: counted, started together, watched, renewed, stopped."""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.serve import __main__ as main_module
from genba.serve.access.tls import Tls
from genba.serve.client import Client
from genba.serve.process import fleet as module
from genba.serve.process.fleet import Count, Fleet, count
from genba.serve.process.listen import listen, reserve
from genba.serve.process.worker import Worker
from genba.serve.settings import Settings, Siblings, add_arguments, arguments, read
from genba.store.home import Store
from genba.targets.probe import probe
from genba.testing.graphs import small_batch
from genba.testing.serving import place, small_package, until

FEW = small_batch(2)
FULL = Settings(
    home=Path("/h"),
    host="::1",
    port=81,
    grpc_port=0,
    key="secret",
    tls=Tls(cert=Path("c"), key=Path("k")),
    behind_proxy=True,
    origins=("https://a", "https://b"),
    siblings=Siblings(workers=3, folder=Path("/s"), parent=7),
)


@pytest.mark.parametrize("settings", [Settings(), Settings(home=Path("/h"), port=0), FULL])
def test_a_process_is_told_all_its_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENBA_SERVE_KEY", settings.key or "")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = arguments(settings)
    assert read(parser.parse_args(words)) == settings
    assert "secret" not in " ".join(words), "a command line is visible to others"
    assert "secret" not in repr(settings)


def test_the_old_name_of_behind_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_SERVE_BEHIND_TLS", "1")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert read(parser.parse_args([])).behind_proxy
    assert FULL.url == "https://[::1]:81"


def test_siblings_find_each_other(tmp_path: Path) -> None:
    siblings = Siblings(workers=2, folder=tmp_path)
    assert siblings.own == tmp_path / f"{os.getpid()}.sock"
    for name in (siblings.own.name, "1.sock", "2.sock", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in siblings.others] == ["1.sock", "2.sock"]
    assert Siblings().own is None
    assert Siblings().others == ()


@pytest.mark.parametrize("asked", ["0", "-1", "257", "two", "", "1.5", "²"])
def test_what_is_no_number_of_processes(asked: str) -> None:
    with pytest.raises(Problem) as caught:
        count(asked)
    assert caught.value.code == "G110"
    assert "--processes auto" in caught.value.tries[0]


def test_a_port_that_is_held_is_shared_with_nobody_else() -> None:
    with reserve("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with listen("127.0.0.1", port, shared=True) as worker:
            worker.listen()
            for take in (listen, reserve):
                with pytest.raises(Problem) as caught:
                    take("127.0.0.1", port)
                assert caught.value.code == "G701"
            with socket.create_connection(("127.0.0.1", port), 5):
                worker.accept()[0].close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), 5)
        with pytest.raises(Problem):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()
    with pytest.raises(Problem) as caught:
        listen("192.0.2.1", 0, shared=True)  # an address of nobody (RFC 5737)
    assert caught.value.code == "G701"


PROGRAM = """
import signal, sys, time
print('{"ready": true, "port": PORT, "server": "s"}', flush=True)
time.sleep(60)
"""


class Scripted(Worker):
    """A server whose process is a few lines of Python."""

    def _command(self) -> list[str]:
        program = PROGRAM.replace("PORT", str(self.settings.port))
        return [sys.executable, "-c", program]


class Broken(Scripted):
    """One that does not start."""

    made = 0

    def _command(self) -> list[str]:
        Broken.made += 1
        return (
            [sys.executable, "-c", "raise SystemExit(1)"] if Broken.made > 1 else super()._command()
        )


def test_all_are_told_the_port_and_each_other(tmp_path: Path) -> None:
    made: list[Worker] = []

    def make(settings: Settings) -> Worker:
        made.append(Scripted(settings))
        return made[-1]

    fleet = Fleet(Settings(home=tmp_path, port=0, grpc_port=0), Count(processes=3), make)
    ready = fleet.start()
    try:
        assert len(ready["workers"]) == 3
        ports = {worker.settings.port for worker in made}
        assert ports == {ready["port"]} == {fleet.settings.port} != {0}
        assert {w.settings.grpc_port for w in made} == {fleet.settings.grpc_port} != {0}
        (siblings,) = {worker.settings.siblings for worker in made}
        assert (siblings.workers, siblings.parent) == (3, os.getpid())
        folder = siblings.folder
        assert folder is not None
        assert folder.stat().st_mode & 0o077 == 0, "nobody else looks in"
        assert fleet.look_after() is None
        os.kill(made[1]._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        until(lambda: not made[1].running)
        assert "starting it again" in (fleet.look_after() or "")
        until(lambda: "answers again" in (fleet.look_after() or ""))
        assert fleet.restarts == 1
        before = list(made)
        assert fleet.renew() == "3 server processes were renewed"
        assert not any(worker.running for worker in before)
        assert all(worker.running for worker in made[3:])
        assert fleet.restarts == 1
    finally:
        fleet.stop()
    assert not any(worker.running for worker in made)
    assert fleet.restarts == 1, "also when it is over"
    assert not folder.exists()


def test_one_that_cannot_start_stops_the_others(tmp_path: Path) -> None:
    made: list[Worker] = []

    def make(settings: Settings) -> Worker:
        made.append(Broken(settings))
        return made[-1]

    Broken.made = 0
    fleet = Fleet(Settings(home=tmp_path, port=0), Count(processes=2), make)
    with pytest.raises(Problem) as caught:
        fleet.start()
    assert caught.value.code == "G721"
    assert not any(worker.running for worker in made)
    Broken.made = 0
    alone = Fleet(Settings(home=tmp_path, port=0), Count(processes=1), make)
    alone.start()
    try:
        assert "not all renewed" in alone.renew()
        assert alone.look_after() is None, "the old one goes on"
    finally:
        alone.stop()


class Telling(Scripted):
    """One that says what it measured."""

    inline = '["pump"]'

    def _command(self) -> list[str]:
        *words, program = super()._command()
        told = f'"port": {self.settings.port}, "lines": ["pump"], "inline": {self.inline}'
        return [*words, program.replace(f'"port": {self.settings.port}', told)]


@pytest.mark.parametrize(("inline", "processes"), [('["pump"]', 3), ("[]", 1)])
def test_the_first_tells_how_many_there_shall_be(
    inline: str, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Telling, "inline", inline)
    found = replace(probe(), cores=3.0, memory_mib=64_000)
    monkeypatch.setattr(module, "probe", lambda: found)
    monkeypatch.setattr(module, "processes", lambda wanted, _cores, _home: (wanted, "all gain"))
    fleet = Fleet(Settings(home=tmp_path, port=0), count("auto"), Telling)
    ready = fleet.start()
    try:
        assert fleet.count.processes == len(ready["workers"]) == processes
        assert ready["reason"] == fleet.count.reason != ""
        assert fleet.settings.siblings.workers == processes
    finally:
        fleet.stop()


class Standing:
    """A fleet that only counts what it is told."""

    made: "Standing"

    def __init__(self, settings: Settings, asked: Count) -> None:
        Standing.made = self
        self.settings, self.count, self.did = settings, asked, list[str]()

    def start(self) -> dict[str, Any]:
        signal.raise_signal(signal.SIGHUP)
        return {"ready": True, "port": 1}

    def renew(self) -> str:
        self.did.append("renew")
        return "renewed"

    def look_after(self) -> None:
        self.did.append("look")
        signal.raise_signal(signal.SIGTERM)

    def stop(self) -> None:
        self.did.append("stop")


def test_the_command_looks_after_several(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr(main_module, "Fleet", Standing)
    monkeypatch.setattr(main_module, "_LOOK_S", 0.001)
    try:
        assert main_module.main(["--home", str(home), "--processes", "2"]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert Standing.made.did == ["renew", "look", "stop"]
    assert Standing.made.count.processes == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["pid"] == os.getpid()
    assert said.err == "renewed\n"


def test_a_system_that_cannot_share_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAN_SHARE", False)
    with pytest.raises(Problem) as caught:
        Fleet(Settings(home=tmp_path, port=0), Count(processes=2), Scripted).start()
    assert caught.value.code == "G701"
    fleet = Fleet(Settings(home=tmp_path, port=4711), count("auto"), Scripted)
    fleet.start()
    try:
        assert fleet.settings.siblings.parent is None
        assert "cannot renew" in fleet.renew()
    finally:
        fleet.stop()


def alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody has waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@contextlib.contextmanager
def command(home: Path, *more: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    process = subprocess.Popen(  # this Python and nothing of a user's
        [sys.executable, "-m", "genba.serve", "--home", str(home), "--port", "0", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate()


@pytest.mark.slow
def test_two_real_processes_answer_while_they_die_and_are_renewed(home: Path) -> None:
    with Store.open(home) as store:
        place(store, "pump", "deploy", small_package(store, "pump"))
    failures: list[Problem] = []
    servers: set[str] = set()
    stop = threading.Event()

    def ask(port: int) -> None:
        while not stop.is_set():
            with Client(f"http://127.0.0.1:{port}") as client:
                try:
                    for _ in range(5):
                        servers.add(client.infer("pump", FEW).predictions[0].rpartition("-")[0])
                except Problem as problem:
                    failures.append(problem)

    with command(home, "--processes", "2") as (process, ready):
        first = {worker["server"] for worker in ready["workers"]}
        threads = [threading.Thread(target=ask, args=(ready["port"],)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: servers >= first)
            os.kill(ready["workers"][0]["pid"], signal.SIGKILL)
            until(lambda: len(servers) >= 3)
            killed = len(failures)
            assert killed <= 3, "only what the killed process had been asked"
            process.send_signal(signal.SIGHUP)
            until(lambda: len(servers) >= 5)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert [f.what for f in failures[killed:]] == []


@pytest.mark.slow
def test_workers_end_when_nobody_looks_after_them(home: Path) -> None:
    with Store.open(home), command(home, "--processes", "2") as (process, ready):
        workers = [worker["pid"] for worker in ready["workers"]]
        process.kill()
        process.wait()
        until(lambda: not any(map(alive, workers)))
        listen("127.0.0.1", ready["port"]).close()
