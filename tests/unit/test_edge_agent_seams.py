"""Corners of a device: answers of a factory that are none, slots that were touched, odd files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from genba.core.problem import Problem
from genba.edge.agent.enrolment import Enrolment
from genba.edge.agent.factory import Factory, HttpRefusal
from genba.edge.agent.fetching import Limits
from genba.edge.agent.opening import open_slot
from genba.edge.agent.record import FOLDER
from genba.edge.agent.upload import send
from genba.edge.agent.values import Install, Offer
from genba.edge.buffer import HIGH, PREDICTION, Buffer
from genba.edge.cli.app import run_command
from tests.unit.edge_agents import Odd, Plant, device, make_plant, serving, up_to_date


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("plant"), releases=1)


def refusal(work: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as caught:
        work()
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, b'{"error":"Not for you.","code":"G758"}', "G758"),
        (403, b"<html>", "G680"),
        (500, b'{"error":"Oh.","code":"G711"}', "G680"),
    ],
)
def test_a_factory_that_says_no(plant: Plant, status: int, body: bytes, code: str) -> None:
    def wrong(odd: Odd, path: str, data: bytes) -> None:
        odd.answer(status, body)

    with serving(plant, wrong) as server:
        problem = refusal(lambda: Factory(server.url).read("/edge/metadata/timestamp.json", 99))
        assert isinstance(problem, HttpRefusal)
        assert (problem.status, problem.code) == (status, code)


def test_a_connection_that_the_factory_closed_is_opened_again(plant: Plant) -> None:
    def wrong(odd: Odd, path: str, data: bytes) -> bytes:
        odd.close_connection = True
        return data

    with serving(plant, wrong) as server:
        factory = Factory(server.url)
        for _ in range(3):
            assert factory.read("/edge/metadata/timestamp.json", 9_999)
        factory.close()


class Telling(Factory):
    """A factory that answers telemetry with what it is told."""

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__("http://127.0.0.1:9")
        self.answers = answers
        self.sent: list[dict[str, object]] = []

    def post(self, path: str, body: object, most: int) -> dict[str, object]:
        self.sent.append(json.loads(json.dumps(body)))
        told: dict[str, object] = json.loads(self.answers.pop(0))
        return told


def test_a_factory_that_takes_nothing_is_not_asked_for_ever(plant: Plant, tmp_path: Path) -> None:
    agent = device(plant, tmp_path, "")
    with Buffer(tmp_path / "b.db", days=1, most_bytes=1 << 20) as buffer:
        for n in range(3):
            buffer.put(PREDICTION, HIGH, f"p{n}", b'{"n": 1, "x": [NaN, Infinity]}')
        factory = Telling([b'{"accepted": [], "refused": {}}'])
        given: Enrolment = agent.enrolment
        sent = send(factory, given, tmp_path, {"number": 1}, buffer)
        assert (sent.accepted, len(buffer.pending())) == (0, 3)
        factory.answers = [b'{"accepted": ["prediction:p0"], "refused": {"prediction:p1": "no"}}',
                           b'{"accepted": ["prediction:p2"]}']  # fmt: skip
        sent = send(factory, given, tmp_path, {"number": 2}, buffer)
        assert (sent.accepted, sent.refused, buffer.pending()) == (2, ("no",), [])
        assert "NaN" not in json.dumps(factory.sent)
        assert "report" not in factory.sent[-1]


def test_a_slot_that_somebody_touched(plant: Plant, tmp_path: Path) -> None:
    with serving(plant) as server:
        agent = device(plant, tmp_path, server.url)
        assert up_to_date(agent) == 1
    active = agent.state.active
    assert active is not None
    other = Install(
        release=1, digest="", slot=active.slot, phase="active", since_ms=0, root="0" * 64
    )
    assert refusal(lambda: open_slot(tmp_path, other, "pump", 0)).code == "G670"
    agent.stock.slots.folder(active.slot).joinpath("card.md").write_text("better")
    assert refusal(lambda: open_slot(tmp_path, active, "pump", 0)).code == "G670"


def test_an_offer_whose_list_or_pieces_are_gone(plant: Plant, tmp_path: Path) -> None:
    with serving(plant) as server:
        agent = device(plant, tmp_path, server.url)
        agent.ask()
        offer = agent.state.offer
        assert offer is not None
        missing = Offer(release=1, digest="0" * 64)
        for work in (
            lambda: agent.stock.fetch(missing, "a", agent.factory, Limits()),
            lambda: agent.stock.fetch(offer, "a", None, Limits()),
        ):
            assert refusal(work).code == "G685"
        agent.stock.fetch(offer, "a", agent.factory, Limits())
        piece = next(agent.stock.incoming.folder.iterdir())
        piece.write_bytes(bytes(piece.stat().st_size))
        assert refusal(lambda: agent.stock.fill(offer, "a")).code == "G685"
        assert not piece.exists(), "it is fetched again"
        assert agent.work().active is not None
        agent.stock.sweep(offer)


def test_the_commands_as_people_see_them(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(plant) as server:
        agent = device(plant, tmp_path, server.url)
        agent.ask()
        assert run_command(["status", "--state", str(tmp_path)]) == 0
        assert "release 1, being fetched" in capsys.readouterr().out
        agent.work()
        assert agent.stock.slots.listing("b") is None
        (tmp_path / FOLDER / "observed.json").write_bytes(b"{")
        assert run_command(["status", "--state", str(tmp_path)]) == 0
        assert "release 1, active since" in capsys.readouterr().out
