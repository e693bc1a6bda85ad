"""`genba` as the demonstration types it: processes that answer, refuse, and stop."""

import socket
import urllib.request
from pathlib import Path

import pytest

from genba.core.problem import Problem
from genba.store.home import Store
from genba.ui.demo.factory import Factory, ask


@pytest.fixture
def place(home: Path) -> Path:
    with Store.open(home):
        return home


def test_a_factory_answers_until_it_is_stopped(place: Path) -> None:
    factory = Factory(place, 0)
    try:
        with urllib.request.urlopen(f"{factory.url}/v2/health/live") as answer:
            assert answer.status == 200
        assert factory.pid > 0
    finally:
        factory.stop()
    factory.stop()  # again changes nothing
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{factory.url}/v2/health/live")


def test_a_factory_that_cannot_start_says_why(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Problem) as caught:
            Factory(place, port)
    assert caught.value.code == "G722"
    assert str(port) in caught.value.why
    assert caught.value.where == str(place / "up.log")


def test_a_question_is_answered_in_json(place: Path) -> None:
    answer = ask(place, "status")
    assert answer["command"] == "status"
    assert answer["exit_code"] == 0


def test_a_question_that_fails_says_why(place: Path) -> None:
    with pytest.raises(Problem) as caught:
        ask(place, "trace", "no-such-thing")
    problem = caught.value
    assert problem.code == "G722"
    assert "genba trace no-such-thing" in problem.what
    assert "no-such-thing" in problem.why
    assert problem.tries == (f"genba trace no-such-thing --home {place}",)


def test_an_interpreter_that_dies_says_why(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", str(place))  # there is no Python
    with pytest.raises(Problem) as caught:
        ask(place, "status")
    assert "ended with exit code" in caught.value.what
    assert caught.value.why
