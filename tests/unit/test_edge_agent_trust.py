"""Whom a device believes: replayed, stale, mixed and forged metadata, keys that change, clocks."""

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, TargetFile  # type: ignore[attr-defined]  # public all the same

from genba.core.problem import Problem
from genba.edge.agent.runner import Agent
from genba.edge.agent.values import Install
from genba.edge.clocks import HandClock
from genba.serve.edge.repository import Lifetimes, Repository
from genba.serve.edge.signing_keys import Keys, offline_keys, read_key
from genba.stages.edge_fleet import confirm, reject, rotate, withdraw
from genba.stages.edge_publish import Publishing, publish
from tests.unit.edge_agents import (
    PLAN,
    Odd,
    Plant,
    copy_plant,
    device,
    make_plant,
    publish_next,
    serving,
    up_to_date,
)

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture
def plant(made: Plant, tmp_path: Path) -> Plant:
    return copy_plant(made, tmp_path / "factory")


def refusal(work: Callable[[], object]) -> Problem:
    with pytest.raises(Problem) as caught:
        work()
    return caught.value


def on_trial(agent: Agent) -> Install | None:
    return agent.state.candidate


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_an_old_repository_that_is_replayed(plant: Plant, tmp_path: Path) -> None:
    shutil.copytree(plant.home / "edge", tmp_path / "old")
    publish_next(plant, 2)
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert up_to_date(agent) == 2
        shutil.rmtree(plant.home / "edge/metadata")
        shutil.copytree(tmp_path / "old/metadata", plant.home / "edge/metadata")
        assert refusal(agent.ask).code == "G682"
        again = Agent(tmp_path / "dev", agent.enrolment, factory=agent.factory)
        assert refusal(again.ask).code == "G682", "also after a restart"


def test_a_repository_that_is_held_back(plant: Plant, tmp_path: Path) -> None:
    clock = HandClock(now_ms())
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url, clock=clock)
        assert up_to_date(agent) == 1
        clock.turn(8 * DAY_MS)
        problem = refusal(agent.ask)
        assert problem.code == "G683"
        assert "timestamp" in problem.what
        assert agent.work().active is not None, "it goes on with what it has"
        later = lambda: time.time() + 8 * 86_400  # noqa: E731
        assert Repository(plant.home, now=later).renew()
        agent.ask()


def test_renewing_signs_only_what_is_old(plant: Plant) -> None:
    repository = Repository(plant.home)
    assert not repository.renew()
    assert Repository(plant.home, now=lambda: time.time() + 4 * 86_400).renew()
    late = Repository(plant.home, now=lambda: time.time() + 13 * 86_400)
    before = len(list(repository.metadata.glob("*.director.json")))
    assert late.renew()
    assert len(list(repository.metadata.glob("*.director.json"))) == before + 1


def test_a_clock_that_is_years_ahead(plant: Plant, tmp_path: Path) -> None:
    clock = HandClock(now_ms())
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url, clock=clock)
        clock.set_wall(now_ms() + 5 * 365 * DAY_MS)
        problem = refusal(agent.ask)
        assert problem.code == "G684"
        assert "timedatectl set-ntp true" in problem.tries
        clock.set_wall(now_ms())
        assert up_to_date(agent) == 1, "setting it right is all there is to do"


def test_a_clock_that_is_years_behind(plant: Plant, tmp_path: Path) -> None:
    clock = HandClock(0)
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url, clock=clock)
        assert up_to_date(agent) == 1
        assert abs(agent.time.now_ms() - now_ms()) < DAY_MS, "the factory signed what time it is"
        assert "days behind" in agent.time.note()
        clock.turn(8 * DAY_MS)
        assert refusal(agent.ask).code == "G683", "time that passes makes metadata old"


def test_what_expired_does_not_come_back_with_a_dead_clock(plant: Plant, tmp_path: Path) -> None:
    """Metadata that is newer than what was seen, but expired before what was signed since."""
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url, clock=HandClock(0))
        agent.time.raise_to(now_ms() + 30 * DAY_MS)  # a release of then was used
        assert refusal(agent.ask).code == "G683"


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "director"])
def test_altered_metadata(plant: Plant, tmp_path: Path, role: str) -> None:
    def wrong(_: Odd, path: str, data: bytes) -> bytes:
        return data.replace(b'"version":', b'"version":1') if role in path else data

    with serving(plant, wrong) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert refusal(agent.ask).code == "G681"


def test_metadata_that_does_not_belong_together(plant: Plant, tmp_path: Path) -> None:
    """Targets of before under the name of the newest: everything is signed, nothing fits."""
    publish_next(plant, 2)
    targets = sorted((plant.home / "edge/metadata").glob("*.targets.json"))
    shutil.copy(targets[-2], targets[-1])
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert refusal(agent.ask).code == "G681"


def test_whoever_has_the_online_key_cannot_make_a_release(plant: Plant, tmp_path: Path) -> None:
    repository = Repository(plant.home)
    thief = read_key(repository.folder / "online.pem")
    newest = max(repository.metadata.glob("*.targets.json"))
    forged: Any = Metadata.from_file(str(newest))
    data = b"a list of something bad"
    forged.signed.targets["pump/9.json"] = TargetFile.from_data("pump/9.json", data, ["sha256"])
    forged.signed.version += 1
    forged.sign(thief)
    forged.to_file(str(repository.metadata / f"{forged.signed.version}.targets.json"))
    repository._publish(thief)
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert refusal(agent.ask).code == "G681"
        own = Keys(root=(thief,), targets=(thief,))
        assert refusal(lambda: repository.add_targets({"x": b""}, own)).code == "G679"


def test_keys_that_change(plant: Plant, tmp_path: Path) -> None:
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert up_to_date(agent) == 1
        with plant.store() as store:
            rotate(store, None, tmp_path / "new", by="kei")
            release = plant.releases[1].release
            old = Publishing(release=release, plan=PLAN)
            assert refusal(lambda: publish(store, old)).code == "G679"
            publish(store, Publishing(release=release, plan=PLAN, keys=tmp_path / "new"))
        agent.ask()
        state = agent.work()
        assert state.candidate is not None
        assert state.candidate.release == 2


def test_a_root_key_of_somebody_else(plant: Plant, tmp_path: Path) -> None:
    repository = Repository(plant.home)
    thieves = offline_keys(tmp_path / "thief", make=True)
    assert refusal(lambda: repository.rotate(thieves, thieves)).code == "G679"


@pytest.mark.slow
def test_more_than_half_of_the_root_keys_must_sign(plant: Plant, tmp_path: Path) -> None:
    repository = Repository(plant.home)
    before = offline_keys(plant.home / "edge/offline")
    three = tmp_path / "three"
    offline_keys(three, make=True)
    for name in ("root-2.pem", "root-3.pem"):
        other = tmp_path / name
        offline_keys(other, make=True)
        shutil.copy(other / "root.pem", three / name)
    after = offline_keys(three)
    assert after.threshold == 2
    repository.rotate(before, after, online=True)
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert up_to_date(agent) == 1
        one = Keys(root=after.root[:1], targets=after.targets)
        assert refusal(lambda: repository.rotate(one, one)).code == "G679"
        two = Keys(root=after.root[1:], targets=after.targets)
        repository.rotate(two, two)
        agent.ask()


def test_a_key_that_others_may_read(plant: Plant) -> None:
    path = plant.home / "edge/offline/root.pem"
    path.chmod(0o644)
    problem = refusal(lambda: offline_keys(path.parent))
    assert problem.code == "G679"
    assert problem.tries[0].startswith("chmod 600")
    path.unlink()
    assert refusal(lambda: offline_keys(path.parent)).code == "G679"


def test_metadata_that_a_power_cut_emptied(plant: Plant, tmp_path: Path) -> None:
    """The file of what was accepted is replaced whole; what is damaged all the same is told."""
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        assert up_to_date(agent) == 1
        (agent.folder / "trusted.json").write_bytes(b"")
        assert refusal(lambda: device(plant, tmp_path / "dev", server.url)).code == "G687"


def test_what_people_at_the_factory_decide(plant: Plant, tmp_path: Path) -> None:
    with serving(plant) as server, plant.store() as store:
        agent = device(plant, tmp_path / "dev", server.url)
        assert up_to_date(agent) == 1
        publish_next(plant, 2, devices=("other",))
        assert up_to_date(agent) == 1
        assert on_trial(agent) is None, "it is for another device"
        repository = Repository(plant.home)
        repository.change_plan(
            lambda plan: plan.devices.setdefault("press-7", {}).update(release=2)
        )
        agent.ask()
        assert agent.work().candidate is not None
        assert confirm(store, "press-7", 2, by="kei") == 2
        agent.ask()
        candidate = on_trial(agent)
        assert candidate is not None
        assert candidate.confirmed_by == "kei"
        assert reject(store, "press-7", 2, by="kei", reason="smells") == 2
        agent.ask()
        refused = agent.state.refusal(2)
        assert refused is not None
        assert refused.reason == "kei: smells"
        withdraw(store, "pump", 1, by="kei")
        agent.ask()
        assert agent.work().active is not None, "there is nothing to go back to"


@pytest.mark.slow
def test_a_release_that_goes_off_every_device(plant: Plant, tmp_path: Path) -> None:
    publish_next(plant, 2)
    with serving(plant) as server, plant.store() as store:
        agent = device(plant, tmp_path / "dev", server.url)
        assert up_to_date(agent) == 2
        withdraw(store, "pump", 2, by="kei", reason="it burns")
        assert json.loads((plant.home / "edge/plan.json").read_bytes())["lines"]["pump"] == {
            "withdrawn": {"2": "it burns"}
        }
        agent.ask()
        assert refusal(lambda: withdraw(store, "pump", 7, by="kei")).code == "G688"
        again = device(plant, tmp_path / "dev2", server.url)
        assert up_to_date(again) == 0


def test_lifetimes(plant: Plant) -> None:
    day = datetime(2026, 11, 23, tzinfo=UTC)
    short = Lifetimes(timestamp=timedelta(hours=1))
    repository = Repository(plant.home, lifetimes=short, now=day.timestamp)
    repository.change_plan(lambda _: None)
    made = Metadata.from_file(str(repository.metadata / "timestamp.json"))
    assert made.signed.expires == day + timedelta(hours=1)
    assert made.signed.unrecognized_fields["genba_made_ms"] == day.timestamp() * 1_000


def test_a_factory_whose_clock_was_years_ahead(plant: Plant, tmp_path: Path) -> None:
    """What it signed then holds devices up, until its online key is exchanged."""
    ahead = Repository(plant.home, now=lambda: time.time() + 5 * 365 * 86_400)
    ahead.change_plan(lambda _: None)
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        agent.ask()
        right = Repository(plant.home)
        right.change_plan(lambda _: None)
        assert refusal(agent.ask).code == "G683"
        keys = offline_keys(plant.home / "edge/offline")
        right.rotate(keys, keys, online=True)
        assert up_to_date(agent) == 1
        assert abs(agent.time.now_ms() - now_ms()) < DAY_MS


def test_one_process_at_a_time(plant: Plant, tmp_path: Path) -> None:
    with serving(plant) as server:
        agent = device(plant, tmp_path / "dev", server.url)
        other = Agent(tmp_path / "dev", agent.enrolment, factory=agent.factory)
        with agent._alone():
            assert refusal(other.work).code == "G687"
            assert refusal(other.ask).code == "G687"
        assert up_to_date(other) == 1
