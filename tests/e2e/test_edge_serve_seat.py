"""A device with an agent: what is in service answers, what is on trial is asked beside it."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.edge.agent.seat import Seat
from genba.edge.buffer import PREDICTION, Buffer
from genba.edge.cli.app import run_command
from genba.edge.clocks import HandClock
from genba.edge.interface import Field, Interface
from genba.edge.safety import Answer, Sample
from genba.edge.service_seat import SeatModel
from tests.unit import edge_releases
from tests.unit.edge_agents import device, make_plant, publish_next, serving, up_to_date


@pytest.mark.slow
def test_the_agents_release_answers_and_the_one_on_trial_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(edge_releases, "SAFETY", None)
    there = functools.partial(Seat, background=False)  # three readings are soon over
    monkeypatch.setattr("genba.edge.service_seat.Seat", there)
    plant, state = make_plant(tmp_path / "plant"), tmp_path / "state"
    (tmp_path / "in").mkdir()
    links = tmp_path / "links.toml"
    links.write_text(
        f'[links.f]\nkind = "files"\nfolder = "{tmp_path}/in"\nformat = "csv"\nevery_ms = 20\n'
        f'answers = "{tmp_path}/answers.jsonl"\n'
    )
    rows = tmp_path / "in" / "rows.csv"
    rows.write_text("time,entity,flow,air|temp,plc.speed:mean,power\n")

    def served(first: int, count: int) -> list[dict[str, Any]]:
        with rows.open("a") as file:
            for n in range(first, first + count):
                file.write(f"{600_000 * n},R80711,{n}.5,2,3,4\n")
        argv = ["serve", "--links", links, "--readings", count, "--state", state]
        assert run_command(list(map(str, argv))) == 0, capsys.readouterr()
        assert "pump was served" in capsys.readouterr().out
        lines = (tmp_path / "answers.jsonl").read_text().splitlines()[-count:]
        return [json.loads(line) for line in lines]

    with serving(plant) as factory:
        agent = device(plant, state, factory.url)
        assert up_to_date(agent) == 1
        first = served(1, 3)
        assert {(b["release"], b["role"], b["action"]) for b in first} == {(1, "stable", "model")}
        publish_next(plant, 2)
        agent.ask()
        agent.work()
        second = served(4, 3)
    assert [b["release"] for b in second] == [1, 1, 1]
    with Buffer(state / "buffer.db", days=9, most_bytes=1 << 20) as buffer:
        told = [json.loads(r.body) for r in buffer.pending((PREDICTION,))]
    assert {(b["release"], b["role"]) for b in told} == {(1, "stable"), (2, "shadow")}
    assert len({b["n"] for b in told}) == len(told) > 6


class Fake:
    """A release that is opened and asked, without a model behind it."""

    def __init__(self, release: Any, *_: Any) -> None:
        self.release = release
        self.closed = False
        self.watched: list[Any] = []
        self.saved: Mapping[str, Any] = {}

    def answer(self, sample: Sample) -> Answer:
        return Answer({}, "model")

    def watch(self, publish: Any) -> None:
        self.watched.append(publish)

    def state(self) -> Mapping[str, Any]:
        return {"seen": self.release.statement.release} if not self.saved else self.saved

    def restore(self, body: Mapping[str, Any]) -> bool:
        self.saved = body
        return True

    def indicators(self) -> Mapping[str, Any]:
        return {"answered": 1}


class FakeSeat:
    """Opens what it is told to."""

    def __init__(self, state: Path, line: str, make: Any, clock: Any) -> None:
        self.make = make
        self.chairs = [make(1, "active")]

    def close(self) -> None:
        raise Problem("G303", "full", tries=["df"])


def test_releases_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(state: Path, install: int, line: str, now_ms: int) -> Any:
        field = Field(name="flow" if install < 9 else "other", role="input")
        return SimpleNamespace(
            interface=Interface(line=line, package="p", inputs=(), outputs=(), fields=(field,)),
            signed=SimpleNamespace(root=f"root{install}"),
            statement=SimpleNamespace(release=install),
            package=SimpleNamespace(id="p"),  # the same in all of them
            folder=state,
        )

    monkeypatch.setattr("genba.edge.service_seat.Seat", FakeSeat)
    monkeypatch.setattr("genba.edge.service_seat.open_slot", opened)
    monkeypatch.setattr("genba.edge.service_seat.Guarded", Fake)
    model = SeatModel((tmp_path, "pump"), HandClock(), lambda: 0, lambda _: None)
    seat: Any = model._seat
    assert model.first is not None
    model.watch(print)
    second = seat.make(2, "shadow")
    assert (seat.chairs[0].watched, second.watched) == ([print], [])
    assert model.state() == {"root1": {"seen": 1}, "root2": {"seen": 2}}
    assert model.restore({"root2": {"seen": 7}, "root3": {"seen": 8}})
    assert second.saved == {"seen": 7}
    seat.chairs[0].closed = True
    third = seat.make(3, "active")
    assert (third.saved, third.watched) == ({"seen": 8}, [print])
    assert model.indicators() == {"2": {"answered": 1}, "3": {"answered": 1}}
    with pytest.raises(Problem, match="takes other readings") as caught:
        seat.make(9, "active")
    assert caught.value.code == "G691"
    model.close()  # a full disk at the end is no reason to fail
