"""The commands of both sides against a real server: publish, enrol, update, confirm, go back."""

import argparse
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genba.core.problem import Problem
from genba.edge.agent.enrolment import enrol as take
from genba.edge.agent.observed import Counts, Stretch, write_counts
from genba.edge.agent.record import FOLDER, Record
from genba.edge.agent.rules import Tally
from genba.edge.agent.runner import self_test
from genba.edge.agent.slots import Slots
from genba.edge.agent.values import State
from genba.edge.buffer import HIGH, PREDICTION, Buffer
from genba.edge.cli.agent import BUFFER_FILE, Rounds, open_agent
from genba.edge.cli.app import run_command
from genba.serve.edge.devices import Devices
from genba.testing.graphs import LAGS, SENSORS
from genba.testing.serving import RunningServer, running_server
from genba.ui.cli.app import run_command as factory_command
from tests.unit.edge_agents import Plant, copy_plant, make_plant

GOOD = Tally(answers=9, compared=9, span_ms=1_000)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def server(plant: Plant) -> Iterator[RunningServer]:
    with running_server(plant.home) as running:
        yield running


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


class Sides:
    """A factory and a device, by their commands."""

    def __init__(self, plant: Plant, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.plant = plant
        self.state = state
        self._capsys = capsys

    def factory(self, *words: str, code: int = 0) -> dict[str, Any]:
        given = ["edge", *words, "--json", "--home", str(self.plant.home), "--me", "kei"]
        assert factory_command(given) == code
        return said(self._capsys)

    def device(self, *words: str, code: int = 0) -> dict[str, Any]:
        assert run_command([*words, "--json", "--state", str(self.state)]) == code
        return said(self._capsys)

    def text(self, *words: str) -> str:
        assert run_command([*words, "--state", str(self.state)]) == 0
        return self._capsys.readouterr().out

    def now(self) -> State:
        return Record(self.state / FOLDER, "pump").read().state

    def observe(self) -> None:
        candidate = self.now().candidate
        assert candidate is not None
        phase, since = candidate.phase, candidate.since_ms
        stretch = Stretch(release=candidate.release, phase=phase, since_ms=since, tally=GOOD)
        write_counts(self.state / FOLDER, Counts(candidate=stretch))


@pytest.fixture
def sides(plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sides:
    return Sides(plant, tmp_path / "dev", capsys)


def prediction(package: str) -> bytes:
    body = {
        "n": 1,
        "time_ms": 5,
        "entity": "R80711",
        "package": package,
        "role": "stable",
        "features": {"window": [[1.0] * SENSORS] * LAGS},
        "outputs": {"score": 0.5, "alarm": False, "expected": [2.0]},
    }
    return json.dumps(body).encode()


def wait_until_known(url: str, key: str) -> None:
    """A running server reads new keys within a second."""
    asked = urllib.request.Request(
        f"{url}/edge/metadata/timestamp.json", headers={"Authorization": f"Bearer {key}"}
    )
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(asked, timeout=5):
                return
        except urllib.error.HTTPError as error:
            if error.code != 401:
                return
        time.sleep(0.05)
    raise AssertionError("the key stayed unknown")


def test_the_whole_way(sides: Sides, server: RunningServer, tmp_path: Path) -> None:
    enrolment = tmp_path / "press-1.json"
    sides.factory("enrol", "press-1", "--url", server.url, "--to", str(enrolment))
    assert enrolment.stat().st_mode & 0o777 == 0o600
    assert sides.factory("devices")["devices"][0]["name"] == "press-1"
    wait_until_known(server.url, json.loads(enrolment.read_text())["key"])
    sides.device("agent", "--enrol", str(enrolment), "--once")
    told = sides.device("status")
    assert told["state"]["active"]["release"] == 1
    assert "release 1, active since" in sides.text("status")

    second = sides.plant.releases[1].release.folder
    rules = ("--rule", "shadow_answers=4", "--rule", "canary_answers=4")
    published = sides.factory("publish", "pump", "--from", str(second), *rules)
    assert published["new_bytes"] < published["bytes"] / 10
    told = sides.device("update")
    assert told["state"]["candidate"]["phase"] == "shadow"
    assert told["next"][0] == "genba-edge confirm 2"
    sides.device("agent", "--once")
    waiting = sides.factory("devices", "press-1")
    assert waiting["next"][0] == "genba edge confirm press-1"
    assert waiting["devices"][0]["report"]["candidate"]["release"] == 2
    sides.factory("confirm", "press-1")
    sides.observe()
    sides.device("agent", "--once")
    assert "0 of 4 answers" in sides.text("status") or sides.now().candidate is not None
    sides.observe()
    with Buffer(sides.state / BUFFER_FILE, days=1, most_bytes=1 << 20) as buffer:
        active = sides.now().active
        assert active is not None
        buffer.put(PREDICTION, HIGH, "p1", prediction(active.package))
        buffer.put(PREDICTION, HIGH, "p2", b"not JSON")
        buffer.put(PREDICTION, HIGH, "p3", prediction("f" * 64))
    told = sides.device("agent", "--once")
    active = sides.now().active
    assert active is not None
    assert active.release == 2
    with Buffer(sides.state / BUFFER_FILE, days=1, most_bytes=1 << 20) as buffer:
        assert buffer.pending() == []
    with sides.plant.store() as store:
        captures = store.ledger.find("capture", line="pump")
        assert [one.body["server"] for one in captures] == ["device-press-1"]
        assert store.ledger.events(kinds=("edge.event",))
    told = sides.device("confirm", "--back", "--because", "it smells", "--me", "ada")
    assert told["state"]["active"]["release"] == 1
    assert told["state"]["refused"][0]["reason"] == "ada: it smells"
    assert sides.device("confirm", code=3)["problem"]["code"] == "G688"
    sides.device("agent", "--once")
    report = sides.factory("devices")["devices"][0]["report"]
    assert report["refused"] == {"2": "ada: it smells"}
    sides.factory("revoke", "press-1")
    assert sides.device("agent", "--once", code=3)["problem"]["code"] in ("G754", "G689")


@pytest.mark.slow
def test_a_release_from_a_stick(
    sides: Sides, plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = copy_plant(plant, tmp_path / "factory")
    lonely = Sides(mine, sides.state, capsys)
    lonely.factory("enrol", "press-2", "--to", str(tmp_path / "e.json"))
    take(sides.state, (tmp_path / "e.json").read_bytes())
    first, second = (str(one.release.folder) for one in plant.releases)
    assert sides.device("update", code=3)["problem"]["code"] == "G687"
    told = sides.device("update", "--from", first)
    assert told["state"]["active"]["release"] == 1
    told = sides.device("update", "--from", second)
    assert told["state"]["candidate"]["release"] == 2
    assert "nothing is new" in sides.text("update", "--from", second)
    told = sides.device("confirm", "--refuse")
    assert "candidate" not in told["state"]
    problem = sides.device("update", "--from", second, code=3)["problem"]
    assert problem["try"][0].startswith("genba-edge update --retry 2")
    told = sides.device("update", "--retry", "2", "--from", second)
    assert told["state"]["candidate"]["release"] == 2
    sides.device("confirm", "9", code=3)
    altered = tmp_path / "altered"
    shutil.copytree(second, altered)
    (altered / "card.md").write_text("better")
    assert sides.device("update", "--from", str(altered), code=3)["problem"]["code"] == "G670"


def test_what_a_factory_refuses(sides: Sides, tmp_path: Path) -> None:
    published = sides.plant.releases[0].release.folder
    assert sides.factory("publish", "pump", "--from", str(published), code=3)["problem"][
        "code"
    ] == ("G688")
    for words in (("publish",), ("enrol",), ("withdraw", "pump"), ("rotate",)):
        assert sides.factory(*words, code=2)["problem"]["code"] == "G110"
    for words in (("confirm", "nobody"), ("reject", "nobody"), ("revoke", "nobody")):
        assert sides.factory(*words, code=3)["problem"]["code"] == "G688"
    bad = ("publish", "pump", "--from", str(published), "--rule", "moon=full")
    assert sides.factory(*bad, code=2)["problem"]["code"] == "G102"
    new = tmp_path / "new"
    sides.factory("rotate", "--new-keys", str(new))
    assert (new / "root.pem").is_file()


def test_a_factory_that_has_published_nothing(
    tmp_path: Path, plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = copy_plant(plant, tmp_path)
    shutil.rmtree(empty.home / "edge")
    sides = Sides(empty, tmp_path / "dev", capsys)
    assert sides.factory("devices")["devices"] == []
    assert sides.factory("enrol", "p", "--line", "pump", code=3)["problem"]["code"] == "G688"


def test_a_device_that_is_not_enrolled(sides: Sides, tmp_path: Path) -> None:
    for words in (("status",), ("update",), ("confirm",), ("agent", "--once")):
        assert sides.device(*words, code=3)["problem"]["code"] == "G687"
    (tmp_path / "e.json").write_text("{}")
    for name in ("e.json", "none.json"):
        told = sides.device("agent", "--enrol", str(tmp_path / name), code=3)
        assert told["problem"]["code"] == "G687"


def test_an_enrolment_for_another_device(sides: Sides, tmp_path: Path) -> None:
    for name in ("press-3", "press-4"):
        sides.factory("enrol", name, "--to", str(tmp_path / name))
    take(sides.state, (tmp_path / "press-3").read_bytes())
    with pytest.raises(Problem, match="G687"):
        take(sides.state, (tmp_path / "press-4").read_bytes())
    assert Devices(sides.plant.home).get("press-3") is not None


def test_a_damaged_state_is_told(sides: Sides, tmp_path: Path) -> None:
    sides.factory("enrol", "press-5", "--to", str(tmp_path / "e"))
    take(sides.state, (tmp_path / "e").read_bytes())
    for text in ("", "{}", '{"state": {"line": "pump", "moon": 1}}'):
        (sides.state / FOLDER / "state.json").write_text(text)
        told = sides.device("status", code=3)
        assert told["problem"]["code"] == "G687"


@pytest.mark.slow
def test_a_self_test_in_its_own_process(sides: Sides, plant: Plant, tmp_path: Path) -> None:
    sides.factory("enrol", "press-6", "--to", str(tmp_path / "e"))
    take(sides.state, (tmp_path / "e").read_bytes())
    first = plant.releases[0].release
    sides.device("update", "--from", str(first.folder))
    folder = Slots(sides.state / FOLDER).folder("a")
    self_test(folder, sides.state, first.signed.root, 0)
    (folder / "card.md").write_text("better")
    with pytest.raises(Problem, match="G670"):
        self_test(folder, sides.state, first.signed.root, 0)
    with pytest.raises(Problem, match="did not end well"):
        self_test(folder, sides.state, first.signed.root, "never")  # type: ignore[arg-type]  # crashes


@pytest.mark.slow
def test_rounds_go_on_when_the_factory_is_gone(sides: Sides, plant: Plant, tmp_path: Path) -> None:
    sides.factory("enrol", "press-8", "--url", "http://127.0.0.1:9", "--to", str(tmp_path / "e"))
    take(sides.state, (tmp_path / "e").read_bytes())
    sides.device("update", "--from", str(plant.releases[0].release.folder))
    given = argparse.Namespace(state=sides.state)
    waits: list[float] = []

    class Stop:
        def is_set(self) -> bool:
            return len(waits) >= 3

        def wait(self, seconds: float) -> None:
            waits.append(seconds)

    with Buffer(sides.state / BUFFER_FILE, days=1, most_bytes=1 << 20) as buffer:
        rounds = Rounds(open_agent(given), buffer, sides.state)
        rounds.until(Stop(), 10.0)  # type: ignore[arg-type]  # stops by itself
    assert waits[0] < waits[1] < waits[2]
    assert rounds.count == 3
