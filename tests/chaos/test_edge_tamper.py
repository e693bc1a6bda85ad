"""Tampering with a signed release: of 27 kinds not one is accepted, whatever the seed."""

from pathlib import Path
from random import Random

import pytest

from genba.core.problem import Problem
from genba.edge.memory import Memory
from genba.edge.release import open_release
from genba.edge.trust import Trust
from genba.testing.crash import Acknowledge, Model, crash_everywhere
from genba.testing.serving import place
from tests.chaos.edge_tampering import KINDS, World
from tests.unit.edge_releases import add_package, copied, pump_home, released, trust_of

REFUSALS = {"G670", "G671", "G672", "G674"}
FAST, ALL = 1, 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Trust, Path]:
    """A device that has used the newer of two releases."""
    root = tmp_path_factory.mktemp("world")
    store = pump_home(root / "home")
    older = released(store, root / "older")
    place(store, "pump", "deploy", add_package(store, seed=1))
    newer = released(store, root / "newer")
    trust = trust_of(newer)
    opened = open_release(newer.release.folder, trust, Memory.at(root / "state"), 0)
    opened.predictor().engine.close()
    found = World(older.release.folder, newer.release.folder, root / "aside")
    return found, trust, root / "state"


def attack(kind: str, seed: int, world: tuple[World, Trust, Path], where: Path) -> None:
    found, trust, state = world
    folder = copied(found.newer, where / "release")
    aside = where / "aside"
    aside.mkdir()
    attacker = World(older=found.older, newer=found.newer, aside=aside)
    KINDS[kind](folder, Random(f"{kind} {seed}"), attacker)
    with pytest.raises(Problem) as refused:
        open_release(folder, trust, Memory.at(state), 0)
    assert refused.value.code in REFUSALS
    assert refused.value.tries


@pytest.mark.parametrize("seed", range(FAST))
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused(
    kind: str, seed: int, world: tuple[World, Trust, Path], tmp_path: Path
) -> None:
    attack(kind, seed, world, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_refused_whatever_the_seed(
    kind: str, world: tuple[World, Trust, Path], tmp_path: Path
) -> None:
    for seed in range(ALL):
        where = tmp_path / str(seed)
        where.mkdir()
        attack(kind, seed, world, where)


def test_untouched_it_is_accepted(world: tuple[World, Trust, Path], tmp_path: Path) -> None:
    found, trust, state = world
    folder = copied(found.newer, tmp_path / "release")
    assert open_release(folder, trust, Memory.at(state), 0).statement.release == 2


@pytest.mark.parametrize(
    ("model", "step"),
    [
        ("power loss", 3),
        pytest.param("power loss", 1, marks=pytest.mark.slow),
        pytest.param("kill", 1, marks=pytest.mark.slow),
    ],
)
def test_a_crash_leaves_the_memory_of_before_or_of_after(
    world: tuple[World, Trust, Path], tmp_path: Path, model: Model, step: int
) -> None:
    """What a device said it uses it remembers, at whatever effect it loses power."""
    found, trust, _ = world

    def work(home: Path, acknowledge: Acknowledge) -> None:
        for folder in (found.older, found.newer):
            release = open_release(folder, trust, Memory.at(home), 0)
            release.predictor().engine.close()
            acknowledge(str(release.statement.release))

    def check(home: Path, acknowledged: tuple[str, ...]) -> list[str]:
        known = Memory.at(home).of("pump")
        newest = known.newest.release if known else 0
        least = max(map(int, acknowledged), default=0)
        wrong = [] if newest >= least else [f"{newest} is remembered, {least} was used"]
        if least == 2:
            try:
                open_release(found.older, trust, Memory.at(home), 0)
                wrong.append("the older release was accepted")
            except Problem as problem:
                wrong += [] if problem.code == "G674" else [problem.what]
        return wrong

    report = crash_everywhere(work, check, tmp_path, model=model, step=step)
    assert report.violations == ()
    assert report.points > 5
