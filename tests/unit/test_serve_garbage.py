"""Looking for cycles: old objects only when nobody waits, and never not at all."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from genba.serve.process.garbage import Garbage


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    before = gc.get_threshold()
    made = Garbage()
    made.start(0.0)
    yield made
    made.stop()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_old_cycles_go_when_nobody_waits(garbage: Garbage) -> None:
    assert gc.get_freeze_count() > 0
    knot = weakref.ref(Knot())
    assert not garbage.look(1.0, idle=True)
    assert not garbage.look(3.0, idle=False)
    assert knot() is not None
    assert garbage.look(3.0, idle=True)
    assert knot() is None
    assert not garbage.look(4.0, idle=True)


def test_a_server_that_is_never_idle_looks_too(garbage: Garbage) -> None:
    assert not garbage.look(299.0, idle=False)
    assert garbage.look(300.0, idle=False)


def test_young_cycles_go_by_themselves(garbage: Garbage) -> None:
    knot = weakref.ref(Knot())
    kept: list[list[int]] = [[] for _ in range(10_100)]
    assert knot() is None
    assert len(kept) == 10_100
