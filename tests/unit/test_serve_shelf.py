"""Packages that sleep when memory is short: who, when, and how they come back."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.serve.client import Client
from genba.serve.lanes.placement import Placement
from genba.serve.limits import Limits
from genba.serve.packages.deployments import Deployments
from genba.serve.packages.loading import MARKS
from genba.serve.packages.marks import Marker
from genba.serve.packages.shelf import Kept, Shelf
from genba.store.home import Store
from genba.testing.graphs import small_batch
from genba.testing.serving import place, serve_here, small_package, until

LIMITS = Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02, trial_s=0.0, hang_s=0.0)
FEW = small_batch(3)


@given(
    kept=st.dictionaries(
        st.sampled_from("abcdef"),
        st.builds(
            Kept,
            bytes=st.integers(0, 60),
            loaded_s=st.floats(0, 100),
            used_s=st.floats(0, 100),
        ),
    ),
    size=st.integers(0, 150),
    now=st.floats(100, 150),
)
def test_only_who_rested_long_enough_leaves(kept: dict[str, Kept], size: int, now: float) -> None:
    shelf = Shelf(capacity_bytes=100, stay_s=20)
    leaving = shelf.make_room(kept, size, now)
    settled = {name for name, one in kept.items() if now - one.since_s < 20}
    if leaving is None:
        assert sum(kept[name].bytes for name in settled) + size > 100
        return
    assert not settled & set(leaving)
    staying = kept.keys() - set(leaving)
    assert sum(kept[name].bytes for name in staying) + size <= 100 or not staying
    for gone in leaving:  # nobody who stays was asked longer ago
        assert all(kept[gone].since_s <= kept[name].since_s for name in staying)


class Hall:
    """Deployments whose placements are only taken down."""

    def __init__(self, store: Store, limits: Limits, marker: Marker) -> None:
        self.store = store
        self.placed: dict[str, Placement] = {}
        self.used: dict[str, float] = {}
        self.deployments = Deployments(
            store,
            limits,
            "server-1",
            lambda placement: self.placed.update({placement.line: placement}),
            marker=marker,
            last_used=lambda _line, package: self.used.get(package, 0.0),
        )

    def add(self, line: str, size: int, action: str = "deploy", seed: int = 0) -> str:
        package = small_package(self.store, line, seed=seed)
        self.deployments._loader.sizes[package] = size
        place(self.store, line, action, package)
        return package

    def awake(self) -> set[str]:
        return {name for name, placement in self.placed.items() if placement.models}

    def wake(self, line: str, package: str) -> None:
        self.deployments.wake(line, package)
        self.deployments.poll()

    def ask(self, line: str, loaded: bool) -> Any:
        told: list[Any] = []
        self.deployments.ask(line, loaded, told.append)
        self.deployments.poll()
        return told[0]


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def marker(store: Store) -> Iterator[Marker]:
    made = Marker(store.path / MARKS, "server-1")
    yield made
    made.close()


def hall(store: Store, marker: Marker, stay_s: float = 0.0) -> Hall:
    return Hall(store, replace(LIMITS, memory_bytes=100, stay_s=stay_s), marker)


def test_who_was_asked_longest_ago_makes_room(store: Store, marker: Marker) -> None:
    rooms = hall(store, marker)
    packages = {line: rooms.add(line, 40) for line in ("a", "b")}
    rooms.deployments.poll()
    assert rooms.awake() == {"a", "b"}
    rooms.used = {packages["a"]: time.monotonic()}
    packages["c"] = rooms.add("c", 40)
    rooms.deployments.poll()
    assert rooms.awake() == {"a", "c"}
    assert rooms.placed["b"].asleep == {packages["b"]}
    assert rooms.placed["b"].rollout.stable is not None
    rooms.used[packages["c"]] = time.monotonic()
    rooms.wake("b", packages["b"])
    assert rooms.awake() == {"b", "c"}
    assert rooms.placed["b"].asleep == frozenset()


def test_who_has_just_come_stays_and_the_others_wait(store: Store, marker: Marker) -> None:
    rooms = hall(store, marker, stay_s=60.0)
    packages = {line: rooms.add(line, 40) for line in ("a", "b", "c")}
    rooms.deployments.poll()
    assert rooms.awake() == {"a", "b"}
    rooms.wake("c", packages["c"])
    assert rooms.awake() == {"a", "b"}
    rooms.deployments._loaded_s[packages["a"]] -= 61.0  # a minute later, nobody calls again
    rooms.deployments.poll()
    assert rooms.awake() == {"b", "c"}


def test_what_is_only_kept_to_return_to_pushes_nobody_out(store: Store, marker: Marker) -> None:
    rooms = hall(store, marker)
    first = rooms.add("a", 60)
    second = rooms.add("a", 60, "deploy", seed=1)
    rooms.deployments.poll()
    placement = rooms.placed["a"]
    assert set(placement.models) == {second}
    assert placement.asleep == {first}
    assert placement.rollout.previous == first


def test_a_package_larger_than_the_shelf_has_it_for_itself(store: Store, marker: Marker) -> None:
    rooms = hall(store, marker)
    rooms.add("a", 10)
    rooms.deployments.poll()
    rooms.add("b", 500)
    rooms.deployments.poll()
    assert rooms.awake() == {"b"}


def test_a_line_is_unloaded_and_loaded_as_somebody_wishes(store: Store, marker: Marker) -> None:
    rooms = hall(store, marker)
    package = rooms.add("a", 10)
    rooms.deployments.poll()
    assert rooms.ask("a", False) == {}
    assert rooms.placed["a"].asleep == {package}
    rooms.wake("a", package)  # a request does not undo what a person wanted
    assert rooms.awake() == set()
    again = hall(store, marker)  # nor does another server of the same home
    again.deployments._loader.sizes[package] = 10
    again.deployments.poll()
    assert again.awake() == set()
    assert rooms.ask("a", True) == {}
    again.deployments.poll()
    assert rooms.awake() == again.awake() == {"a"}


def test_loading_says_what_went_wrong(store: Store, marker: Marker) -> None:
    rooms = hall(store, marker)
    bad = small_package(store, "a", graph=b"no graph")
    place(store, "a", "deploy", bad)
    assert bad in rooms.ask("a", True)
    rooms.wake("a", bad)
    rooms.deployments.poll()
    assert len(store.ledger.events(kinds=["serve.load_failed"])) == 1  # it is said once


def test_requests_wake_what_sleeps(home: Path, store: Store) -> None:
    packages = {line: small_package(store, line) for line in ("a", "b")}
    for line, package in packages.items():
        place(store, line, "deploy", package)

    def script(client: Client) -> None:
        def asleep() -> list[str]:
            return [name for name in packages if client.line(name)["asleep"]]

        assert len(asleep()) == 1
        for line in "abab":
            assert client.infer(line, FEW).package == packages[line]
            until(lambda: len(asleep()) == 1)
        with pytest.raises(Problem):
            client.infer("c", FEW)

    # Room for one of them, whatever it was measured to take.
    limits = Limits(poll_s=0.01, memory_bytes=4_000_000, stay_s=0.0)
    serve_here(home, script, limits=limits, guarded=True)
