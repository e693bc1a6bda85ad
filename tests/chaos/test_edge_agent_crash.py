"""A device that loses power, or whose agent is killed, at any effect of an update.

Each point forks, crashes, and starts again on what survived: what answers is the release of before
or the new one, whole and verified, and the update ends well all the same. Forgotten syncs are
planted to see that the check can fail.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.edge.agent.enrolment import Enrolment
from genba.edge.agent.enrolment import enrol as take
from genba.edge.agent.factory import Factory, HttpRefusal
from genba.edge.agent.observed import Counts, Stretch, write_counts
from genba.edge.agent.opening import open_slot
from genba.edge.agent.record import FOLDER, Record
from genba.edge.agent.rules import Tally
from genba.edge.agent.runner import Agent
from genba.edge.agent.values import Confirmed, Rejected, State
from genba.testing.crash import Acknowledge, Model, crash_everywhere
from tests.unit.edge_agents import (
    Plant,
    enrolment,
    make_plant,
    passes,
    publish_next,
)

MODELS: tuple[Model, ...] = ("kill", "power loss")
GOOD = Tally(answers=9, compared=9, span_ms=1_000)


class Files(Factory):
    """A factory whose files are read where they lie, so that a forked process needs no server."""

    def __init__(self, plant: Plant) -> None:
        super().__init__("http://127.0.0.1:9")
        self._folder = plant.home / "edge"

    def read(self, path: str, most: int) -> bytes:
        try:
            data = (self._folder / path.removeprefix("/edge/")).read_bytes()
        except OSError:
            raise missing(path) from None
        assert len(data) <= most
        return data

    def stream(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        data = self.read(path, size)[offset:]
        half = len(data) // 2 + 1
        yield from (data[:half], data[half:])


def missing(path: str) -> Problem:
    return HttpRefusal(404, "G708", "There is nothing.", path)


class Drill:
    """A device with release 1 in service, and a factory that has release 2."""

    def __init__(self, folder: Path) -> None:
        self.plant = make_plant(folder)
        self.given: Enrolment = enrolment(self.plant)
        self.ready = folder / "ready"
        agent = self.agent(self.ready)
        agent.ask()
        assert agent.work().active is not None
        publish_next(self.plant, 2)

    def agent(self, state: Path) -> Agent:
        files = Files(self.plant)
        if not (state / FOLDER).is_dir():
            take(state, json.dumps(encode(self.given)).encode())
        return Agent(state, self.given, tester=passes, factory=files)

    def update(self, home: Path, promise: Acknowledge) -> None:
        """Bring release 2 into service, as far as it is not there."""
        if not home.joinpath("dev").is_dir():
            shutil.copytree(self.ready, home / "dev")
        agent = self.agent(home / "dev")
        agent.ask()
        agent.work()
        agent.take(Confirmed(release=2, by="kei"))
        for _ in range(3):
            observe(agent)
            state = agent.work()
        assert active(state) == 2, state
        promise("2")

    def go_back(self, home: Path, promise: Acknowledge) -> None:
        """Bring release 2 into service, then send it back."""
        self.update(home, lambda _: None)
        agent = self.agent(home / "dev")
        agent.take(Rejected(release=2, by="kei"))
        assert active(agent.work()) == 1
        promise("1")

    def broken(self, home: Path, promises: tuple[str, ...]) -> Iterable[str]:
        """Say what is wrong with the device."""
        if not (home / "dev").is_dir():
            return
        try:
            state = Record(home / "dev" / FOLDER, "pump").read().state
        except Problem as problem:
            yield f"the state cannot be read: {problem}"
            return
        if state.active is None:
            yield "nothing answers any more"
            return
        if promises and state.active.release != int(promises[-1]):
            yield f"release {promises[-1]} was in service, now {state.active.release}"
        try:
            open_slot(home / "dev", state.active, "pump", 0)
        except Problem as problem:
            yield f"release {state.active.release} does not open: {problem}"
        yield from self._again(home, promises)

    def _again(self, home: Path, promises: tuple[str, ...]) -> Iterable[str]:
        if promises and promises[-1] == "1":
            return
        try:
            self.update(home, lambda _: None)
        except (Problem, AssertionError) as error:
            state = Record(home / "dev" / FOLDER, "pump").read().state
            if state.refusal(2) is None or active(state) != 1:
                yield f"the update does not go on: {error!r}"


def observe(agent: Agent) -> None:
    candidate = agent.state.candidate
    if candidate is not None:
        stretch = Stretch(
            release=candidate.release,
            phase=candidate.phase,
            since_ms=candidate.since_ms,
            tally=GOOD,
        )
        write_counts(agent.folder, Counts(candidate=stretch))


def active(state: State) -> int:
    return state.active.release if state.active else 0


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("drill"))


Work = Callable[[Drill], Callable[[Path, Acknowledge], None]]


def test_some_moments_of_an_update(drill: Drill, tmp_path: Path) -> None:
    report = crash_everywhere(drill.update, drill.broken, tmp_path, model="power loss", step=37)
    assert report.violations == ()
    assert report.points > 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("work", ["update", "go_back"])
def test_every_moment(drill: Drill, tmp_path: Path, model: Model, work: str) -> None:
    report = crash_everywhere(getattr(drill, work), drill.broken, tmp_path, model=model)
    assert report.violations == ()


@pytest.mark.slow
def test_a_forgotten_sync_is_noticed(drill: Drill, tmp_path: Path) -> None:
    report = crash_everywhere(
        drill.update, drill.broken, tmp_path, model="power loss", skip={"sync"}, step=60
    )
    assert report.violations
