"""A line by hand: who is asked again after a rollback, and what becomes of packages that sleep."""

from collections.abc import Sequence
from typing import Any

import pytest

from genba.core.rollout import Placed, Rollout
from genba.serve.http.responses import Refusal
from genba.serve.lanes.batch import Lane
from genba.serve.lanes.placement import Placement
from genba.serve.limits import Limits
from genba.testing.clockwork import Asked, World
from genba.testing.lanes import Doubler, numbers

LIMITS = Limits(queue_rows=4, threads=3)
SECONDS = {"a": 0.05, "b": 0.05, "c": 0.05}


def placed(package: str) -> Placed:
    return Placed(package=package, share=1.0, since_seq=1, since_ms=1)


def rollout(stable: str = "", canary: str = "", condemned: Sequence[str] = ()) -> Rollout:
    return Rollout(
        stable=placed(stable) if stable else None,
        canary=placed(canary) if canary else None,
        condemned=frozenset(condemned),
    )


def ask(world: World, values: Sequence[float] = (1.0,), version: str | None = None) -> Asked:
    call = Asked(world, values, 3.0, urgent=True)
    call.may = {"a", "b", "c"}
    world.line.ask(call, version, lambda schema: numbers(values))
    world.loop.run()
    return call


@pytest.fixture
def world() -> World:
    world = World(LIMITS, SECONDS)
    world.place(rollout("a", "b"), frozenset())
    return world


def finish(world: World) -> None:
    while world.hands.work:
        world.hands.work.pop(0)()
        world.loop.run()
    assert world.wrong == []


def test_what_a_condemned_package_has_is_asked_again(world: World) -> None:
    calls = [ask(world), ask(world), ask(world, version="b")]
    world.place(rollout("a", condemned=["b"]), frozenset())
    assert calls[2].said == "G703"  # it wanted this one and no other
    finish(world)
    assert [call.said for call in calls[:2]] == ["a", "a"]


def test_only_once(world: World) -> None:
    call = ask(world)
    world.place(rollout("a", condemned=["b"]), frozenset())
    world.place(rollout("c", condemned=["a", "b"]), frozenset())
    assert call.said == "G740"
    finish(world)


def test_with_nothing_left_to_ask_it_is_refused(world: World) -> None:
    call = ask(world)
    world.place(rollout(condemned=["b", "a"]), frozenset())
    assert call.said == "G705"


def test_a_stable_package_that_is_full_takes_no_more(world: World) -> None:
    for _ in range(2):
        ask(world, (1.0, 2.0), version="a")
    ask(world, (3.0, 4.0), version="a")
    call = ask(world)
    world.place(rollout("a", condemned=["b"]), frozenset())
    assert call.said == "G706"
    finish(world)


def test_a_stable_package_that_sleeps_is_woken_for_it(world: World) -> None:
    call = ask(world)
    world.place(rollout("a", condemned=["b"]), frozenset({"a"}))
    assert world.woken == ["a"]
    assert call.told == []
    world.place(rollout("a", condemned=["b"]), frozenset())
    world.loop.run()
    finish(world)
    assert call.said == "a"


def test_the_metadata_of_a_package_that_sleeps(world: World) -> None:
    world.place(rollout("a"), frozenset({"a"}))
    with pytest.raises(Refusal) as caught:
        world.line.metadata(None)
    assert (caught.value.status, caught.value.code) == (503, "G741")
    assert world.woken == ["a"]
    assert world.line.describe()["asleep"] == ["a"]
    assert world.line.ready


def test_a_shadow_that_sleeps_is_woken_and_goes_without(world: World) -> None:
    shadowed = Rollout(stable=placed("a"), shadow=placed("c"))
    world.place(shadowed, frozenset({"c"}))
    call = ask(world)
    finish(world)
    assert call.said == "a"
    assert world.woken == ["c"]
    assert world.metrics._sheds["shadow"] == 1


def test_a_package_that_was_loaded_again_takes_over(world: World) -> None:
    call = ask(world, version="a")
    first, again = world.models["a"], Doubler("a", 0.05)
    models: Any = {"a": again, "b": world.models["b"]}
    world.line.place(Placement(line="pump", rollout=rollout("a", "b"), models=models))
    assert [first.closed] == [0]
    finish(world)
    assert call.said == "a"
    assert first.closed == 1
    ask(world, version="a")
    finish(world)
    assert again.batches == [[1.0]]


def test_the_event_loop_reads_between_two_batches() -> None:
    world = World(Limits(stall_s=0.01), {"a": 0.0})
    world.place(rollout("a"), frozenset())
    lane = world.line._services["a"].lane
    assert isinstance(lane, Lane)
    real, turns = lane.compute, []

    def compute(jobs: Any) -> Any:
        world.now += 0.02
        turns.append(len(world.loop.soon))
        return real(jobs)

    lane.compute = compute  # type: ignore[method-assign]  # time passes
    calls = [Asked(world, (1.0, 2.0, 3.0), 3.0, urgent=True) for _ in range(3)]
    for call in calls:
        world.line.ask(call, None, lambda schema: numbers((1.0, 2.0, 3.0)))
    callback, arguments = world.loop.soon.popleft()
    callback(*arguments)
    assert [len(call.told) for call in calls] == [1, 0, 0]
    world.loop.run()
    assert [call.said for call in calls] == ["a"] * 3
