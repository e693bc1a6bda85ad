"""The controller through thousands of simulated histories, each from one seed.

The world is hostile: runs fail, lie, hang or never start; packages err, answer NaN, are slow,
alarm too often or cannot be loaded; feedback is poisoned; clocks jump; ticks are lost, repeated,
cut off by a crash at any effect, or made by two controllers. Whatever happens, these must hold:

1. nothing that missed a gate, and nothing that was taken out, is ever put into service;
2. there is never more than one stable package, and never none once there was one;
3. a bad stable package is rolled back in the first whole tick that has the evidence;
4. nothing is promoted in "ask" without the newest answer being yes, nothing moves in "observe";
5. no request is launched twice, and no two requested runs are alive unless one was given up;
6. when the world stands still the controller comes to rest, waits for nothing that cannot come,
   and its state is the fold of its events.
"""

import pytest

from tests.golden.controller_world import World


def live(seed: int) -> World:
    """Live through one history."""
    world = World(seed)
    for _ in range(world.random.choice([8, 16, 32])):
        world.step()
        world.tick()
    world.comes_to_rest()
    world.check()
    world.one_run_at_a_time()
    world.nothing_is_stuck()
    world.state_is_the_fold()
    return world


def histories(first: int, count: int) -> list[World]:
    """Live through many; the seed of one that goes wrong is in the message."""
    worlds = []
    for seed in range(first, first + count):
        try:
            worlds.append(live(seed))
        except (AssertionError, Exception) as wrong:
            raise AssertionError(f"seed {seed}: {wrong!r}") from wrong
    return worlds


def test_some_hundred_histories() -> None:
    worlds = histories(0, 300)
    deploys = [e.body["action"] for w in worlds for e in w.ledger.all if e.kind == "deploy"]
    # The histories are worth something only if everything happens in them.
    for action in ("canary", "shadow", "promote", "roll_back", "withdraw"):
        assert deploys.count(action) > 2, f"{action} hardly ever happened"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_histories() -> None:
    histories(300, 9_700)
