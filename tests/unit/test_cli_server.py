"""`genba up`: the servers as children, and the loop beside them."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.loop.decide import Action
from genba.loop.runner import Tick
from genba.serve.process.worker import Worker
from genba.serve.settings import Settings
from genba.ui.cli import up
from genba.ui.cli.answer import make_console

READY = 'print(\'{"ready": true, "port": 4711, "server": "server-x"}\', flush=True)'
WAIT = "import time; time.sleep(60)"


class Scripted(Worker):
    """A server whose process is a line of Python."""

    def __init__(self, home: Path, program: str, clock: Any = time.monotonic) -> None:
        super().__init__(Settings(home=home, port=0), clock=clock)
        self.program = program

    def _command(self) -> list[str]:
        return [sys.executable, "-c", self.program]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Scripted]]:
    servers: list[Scripted] = []
    yield servers
    for server in servers:
        server.stop()


def test_it_waits_for_the_ready_line_and_keeps_the_port(
    tmp_path: Path, started: list[Scripted]
) -> None:
    server = Scripted(tmp_path, f"{READY}; {WAIT}")
    started.append(server)
    assert server.start()["server"] == "server-x"
    assert server.running
    assert server.settings.url == "http://127.0.0.1:4711"
    assert server.look_after() is None
    server.stop()
    assert server.look_after() is not None, "it is not running any more"
    server.stop()


def test_what_the_server_says_when_it_cannot_start_is_shown(tmp_path: Path) -> None:
    told = Problem("G701", "Port 8080 is taken.", where="w", why="y", tries=["genba up --port 0"])
    said = json.dumps({"problem": told.to_json()})
    program = f"import sys; sys.stderr.write('a log line\\n' + {said!r} + '\\n'); sys.exit(3)"
    with pytest.raises(Problem) as caught:
        Scripted(tmp_path, program).start()
    assert caught.value.to_json() == told.to_json()


@pytest.mark.parametrize("program", ["raise ValueError('broken')", "pass"])
def test_a_server_that_says_nothing_useful_is_a_problem_too(program: str, tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        Scripted(tmp_path, program).start()
    assert caught.value.code == "G721"
    assert ("ValueError: broken" in caught.value.why) == ("broken" in program)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    server = Scripted(tmp_path, WAIT)
    with pytest.raises(Problem) as caught:
        server.start(timeout_s=0.2)
    assert caught.value.code == "G721"
    assert not server.running


def test_a_server_that_dies_is_started_again_later_and_later(
    tmp_path: Path, started: list[Scripted]
) -> None:
    now = [0.0]
    server = Scripted(tmp_path, READY, clock=lambda: now[0])
    started.append(server)
    server.start()
    waits = []
    for _ in range(3):
        while server.running:
            time.sleep(0.01)
        first = server.look_after() or ""
        waits.append(float(first.rpartition(" in ")[2].removesuffix(" s")))
        assert server.look_after() is None, "not before its time"
        now[0] += waits[-1]
        assert "answers again" in (server.look_after() or "")
    assert waits == [0.5, 1.0, 2.0]
    assert server.restarts == 3
    server.program = "raise SystemExit(1)"
    now[0] += 60.0  # it lived long: the next wait is short again
    while server.running:
        time.sleep(0.01)
    assert "in 0.5 s" in (server.look_after() or "")
    now[0] += 1.0
    assert "did not start" in (server.look_after() or "")


def test_a_server_that_does_not_listen_is_killed(
    tmp_path: Path, started: list[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genba.serve.process.worker._STOP_S", 0.2)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; {WAIT}"
    server = Scripted(tmp_path, deaf)
    started.append(server)
    server.start()
    server.stop()
    assert not server.running


def test_what_the_server_logs_is_passed_on(
    tmp_path: Path, started: list[Scripted], capfd: pytest.CaptureFixture[str]
) -> None:
    server = Scripted(tmp_path, f"import sys; {READY}; sys.stderr.write('a warning\\n')")
    started.append(server)
    server.start()
    seen = ""
    until = time.monotonic() + 20
    while "a warning" not in seen and time.monotonic() < until:
        time.sleep(0.02)
        seen += capfd.readouterr().err
    assert "a warning" in seen


class Ticking:
    """A controller that has something to say once."""

    def __init__(self, *ticks: Tick) -> None:
        self.ticks = list(ticks)

    def tick(self) -> tuple[Tick, ...]:
        found, self.ticks = tuple(self.ticks), []
        return found


class Healthy:
    """A server to which something happened once."""

    def __init__(self, news: str | None = None) -> None:
        self.news = news

    def look_after(self) -> str | None:
        news, self.news = self.news, None
        return news

    def renew(self) -> str:
        return "the servers were renewed"


def loop(runner: Any, server: Any, tell: Any) -> up.Loop:
    def sign() -> None:
        tell("sign", "now")
        raise Problem("G303", "The disk is full.", tries=["df -h"])

    return up.Loop(runner, server, tell, sign)


def test_the_loop_tells_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "_TICK_S", 0.001)
    package = "ab" * 32
    trouble = Problem("G302", "A blob is damaged.", tries=["genba doctor"])
    runner = Ticking(
        Tick(
            line="pump",
            actions=(Action(kind="roll_back", key="k", package=package, reason="slow"),),
        ),
        Tick(line="fan", actions=(Action(kind="start_run", key="k", reason="drift", would=True),)),
        Tick(line="saw", held_by="another"),
        Tick(line="mill", problems=(trouble,)),
    )
    told: list[tuple[str, str]] = []
    asked = up.Asked()
    asked.renew.set()

    def tell(who: str, what: str) -> None:
        told.append((who, what))

    done = loop(runner, Healthy("the server died"), tell).run(asked, time.monotonic() + 0.05)
    assert [a.kind for a in done] == ["roll_back", "start_run"]
    assert told == [
        ("pump", "roll back abababababab: slow"),
        ("sign", "now"),
        ("pump", "G303 The disk is full."),  # and everything goes on
        ("fan", "would start run: drift"),
        ("sign", "now"),
        ("fan", "G303 The disk is full."),
        ("saw", "is looked after by another controller (another)"),
        ("mill", "G302 A blob is damaged."),
        ("server", "the servers were renewed"),
        ("server", "the server died"),
    ]


class Broken:
    """A controller with a bug."""

    def tick(self) -> tuple[Tick, ...]:
        raise ValueError("a bug")


def test_a_bug_in_the_controller_does_not_stop_serving(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "_TICK_S", 0.001)
    told: list[str] = []
    running = loop(Broken(), Healthy("answers again"), lambda _, what: told.append(what))
    assert running.run(up.Asked(), time.monotonic() + 0.05) == []
    assert told[0].startswith("ValueError: a bug; serving goes on")
    assert "answers again" in told
    assert len(set(told)) == 2, "one traceback is kept, however often it happens"
    (kept,) = (home / "crashes").iterdir()
    assert "a bug" in kept.read_text()


def test_the_loop_ends_when_it_is_told_to() -> None:
    asked = up.Asked()
    asked.stop.set()
    assert loop(Ticking(), Healthy(), print).run(asked) == []


def test_a_trouble_that_stays_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    teller = up._Teller(make_console(stderr=True))
    for _ in range(3):
        teller("pump", "is late")
    teller("pump", "is later")
    shown = capsys.readouterr().err
    assert shown.count("is late\n") == 1
    assert "is later" in shown


def test_the_first_ctrl_c_stops_and_the_second_insists() -> None:
    before = signal.getsignal(signal.SIGINT)
    with up._signals() as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked.stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("terminal", [True, False])
def test_a_hangup_renews_unless_the_terminal_is_gone(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal)
    with up._signals() as asked:
        signal.raise_signal(signal.SIGHUP)
        assert (asked.stop.is_set(), asked.renew.is_set()) == (terminal, not terminal)
