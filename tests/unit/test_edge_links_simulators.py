"""The simulated plant itself: rows, its own clock, brokers that are really there."""

import io
import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from genba.edge.clocks import HandClock, SystemClock
from genba.edge.links.settings import parse_links
from genba.testing import plc
from genba.testing.broker import Broker, free_port, installed, wait_for

CSV = "time,entity,flow,heat\n2,b,1.5,x\n1,a,1,2\n1,b,3,inf\n"


def test_rows_of_one_time_are_one_step(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    rows = plc.read_rows(path, entity="entity", time="time", columns=("flow", "heat"))
    assert rows.entities == ("b", "a")
    assert rows.steps == [
        {"a": {"flow": 1.0, "heat": 2.0}, "b": {"flow": 3.0, "heat": None}},
        {"b": {"flow": 1.5, "heat": None}},
    ]


def test_a_step_is_shown_at_a_whole_step_of_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    rows = plc.read_rows(path, entity="entity", time="time", columns=("flow",))
    shown: list[tuple[str, int]] = []

    class Board:
        def show(self, entity: str, values: Mapping[str, Any], time_ms: int) -> None:
            shown.append((entity, time_ms))

    board: Any = Board()
    assert plc.replay(rows, board, HandClock(1_050), threading.Event(), step_ms=500) == 2
    assert shown == [("a", 1_500), ("b", 1_500), ("b", 2_000)]
    stopped = threading.Event()
    stopped.set()
    assert plc.replay(rows, board, HandClock(1_050), stopped, step_ms=500) == 0


def test_a_controller_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    argv = ["modbus", str(path), "--columns", "flow,heat", "--port", str(free_port()),
            "--step-ms", "1000", "--time-scale", "100"]  # fmt: skip
    assert plc.main(argv) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 2
    assert parse_links(told["links"]).leader == "plc"


def test_scaled_clocks_of_two_processes_agree() -> None:
    one, other = SystemClock(600.0, 1_000), SystemClock(600.0, 1_000)
    assert abs(one.now_ms() - other.now_ms()) < 60_000
    assert SystemClock(600.0).wait(threading.Event(), 600) is False


def test_nobody_listens() -> None:
    with pytest.raises(TimeoutError, match="nobody listens"):
        wait_for(free_port(), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", installed())
def test_a_broker_begins_ends_and_is_killed(tmp_path: Path, kind: str) -> None:
    broker = Broker(tmp_path, kind)
    with broker:
        assert broker.address == f"mqtt://127.0.0.1:{broker.port}"
    broker.start()
    broker.stop(kill=True)
    broker.stop()
