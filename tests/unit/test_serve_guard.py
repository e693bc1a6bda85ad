"""What a package has to pass before a server loads it, and what is remembered of it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genba.core.codec import decode, encode
from genba.core.problem import Problem
from genba.core.rollout import Placed, Rollout
from genba.core.values import Event, Manifest
from genba.edge.signature import sign
from genba.serve.lanes.placement import Placement
from genba.serve.limits import Limits
from genba.serve.packages import guard, trial
from genba.serve.packages.fitting import fit
from genba.serve.packages.guard import Stopped, Trials, memory_cap
from genba.serve.packages.loading import MARKS, Loader
from genba.serve.packages.marks import Marker
from genba.store.home import Store
from genba.store.signatures import check_own, sign_package
from genba.store.signing import Signer
from genba.testing.graphs import small_graph
from genba.testing.serving import faulty_engine, small_package

LIMITS = Limits(trial_s=20.0)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened


@pytest.fixture
def trials(store: Store) -> Iterator[Trials]:
    made = Trials(store.path, LIMITS)
    yield made
    made.rest()


@pytest.fixture
def loader(store: Store) -> Iterator[Loader]:
    marker = Marker(store.path / MARKS, "server-1")
    yield Loader(store, replace(LIMITS, trial_s=0.0), marker)
    marker.close()


def manifest(store: Store, package: str) -> Manifest:
    return decode(Manifest, store.ledger.get("package", package))


def refusal(work: Callable[[], Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        work()
    return caught.value


def test_a_package_is_tried_once(store: Store, trials: Trials) -> None:
    package = small_package(store, "pump")
    made = manifest(store, package)
    first = trials.passed(package, made)
    assert first.package == package
    assert 0 < first.bytes < 100_000_000
    (kept,) = (store.path / "trials").iterdir()
    assert json.loads(kept.read_bytes())["bytes"] == first.bytes
    trials.rest()
    assert trials.passed(package, made) == first
    assert trials._child is None  # nothing was started
    kept.write_bytes(b"damaged")
    assert trials.passed(package, made).package == package
    assert trials._child is not None


def test_what_crashes_a_trial_is_told_and_the_next_one_is_tried(
    store: Store, trials: Trials
) -> None:
    for fault, code, says in (
        ({"signal": int(signal.SIGSEGV)}, "G775", "Segmentation fault"),
        ({"signal": int(signal.SIGKILL)}, "G775", "Killed"),
        ({"error": True}, "G707", "drill"),
    ):
        bad = small_package(store, "pump", engine=faulty_engine(**fault))
        problem = refusal(lambda bad=bad: trials.passed(bad, manifest(store, bad)))  # type: ignore[misc]  # a default binds the loop variable
        assert problem.code == code
        assert says in problem.what
    broken = small_package(store, "pump", graph=b"no graph")
    assert refusal(lambda: trials.passed(broken, manifest(store, broken))).code == "G608"
    good = small_package(store, "pump", seed=1)
    assert trials.passed(good, manifest(store, good)).package == good


@pytest.mark.slow
def test_a_trial_has_an_end(store: Store) -> None:
    trials = Trials(store.path, replace(LIMITS, trial_s=0.5))
    package = small_package(store, "pump", engine=faulty_engine(hang=True))
    assert refusal(lambda: trials.passed(package, manifest(store, package))).code == "G776"
    trials.rest()


@pytest.mark.parametrize(("command", "code"), [("sleep 60", "G776"), ("exit 7", "G775")])
def test_a_child_that_does_not_do_its_work(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, code: str
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nexec 2>/dev/null\n{command}\n", encoding="ascii")
    fake.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(fake))
    monkeypatch.setattr(guard, "_GRACE_S", 0.2)
    trials = Trials(store.path, replace(LIMITS, trial_s=0.1))
    package = small_package(store, "pump")
    assert refusal(lambda: trials.passed(package, manifest(store, package))).code == code


def test_a_trial_is_broken_off_when_the_server_ends(store: Store, trials: Trials) -> None:
    package = small_package(store, "pump", engine=faulty_engine(hang=True))
    made = manifest(store, package)
    threading.Timer(0.6, trials.close).start()
    with pytest.raises(Stopped):
        trials.passed(package, made)
    with pytest.raises(Stopped):  # and none is begun any more
        trials.passed(package, made)


def test_servers_of_a_home_try_a_package_one_after_another(store: Store, trials: Trials) -> None:
    package = small_package(store, "pump")
    made, other = manifest(store, package), Trials(store.path, LIMITS)
    found: list[Any] = []
    with trials._alone(store.path / "x.json"):
        threads = [
            threading.Thread(target=lambda: found.append(_alone(other, store.path / "x.json")))
        ]
        threads[0].start()
        time.sleep(0.1)
        assert not found
        other.close()
        threads[0].join()
    assert found == ["stopped"]
    assert trials.passed(package, made) == Trials(store.path, LIMITS).passed(package, made)


def _alone(trials: Trials, path: Path) -> str:
    try:
        with trials._alone(path):
            return "alone"
    except Stopped:
        return "stopped"


def test_how_much_memory_packages_may_take() -> None:
    assert memory_cap(Limits(memory_bytes=5)) == 5
    assert 0 < memory_cap(Limits()) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("sizes", "leaked"),
    [
        ([10, 20, 30, 40], 10),
        ([10, 40, 40, 40], 0),  # a buffer that grew once
        ([10, 10, 10, 10.5], 0),
    ],
)
def test_what_a_leak_is(monkeypatch: pytest.MonkeyPatch, sizes: list[float], leaked: int) -> None:
    seen = iter(int(size * 2**20) for size in sizes)
    monkeypatch.setattr(trial, "resident_bytes", lambda: next(seen))
    monkeypatch.setattr(trial, "short", lambda model, rows: {"x": np.zeros((rows, 1))})
    run = {"batch_rows": 4, "batch_seconds": 0.01, "talks": None}
    model: Any = SimpleNamespace(run=lambda tensors, rows: None, **run)
    found = trial.leaked_bytes(model, seconds=0.4)  # forty runs, ten in each quarter
    assert found == leaked * 2**20 // 10
    assert trial.leaked_bytes(model, seconds=0.05) == 0  # too few to say


def test_a_home_runs_only_what_it_has_signed(store: Store, tmp_path: Path) -> None:
    package = small_package(store, "pump")
    check_own(store, package)
    unsigned = store.blobs.put(small_graph(5))
    assert refusal(lambda: check_own(store, unsigned)).code == "G605"
    stranger = Signer(tmp_path)
    signature = encode(sign(unsigned, stranger.public_key, stranger.sign))
    store.ledger.append("package.signed", signature, subject=unsigned)
    assert "not the one of this home" in refusal(lambda: check_own(store, unsigned)).why
    events = len(store.ledger.events(kinds=["package.signed"]))
    sign_package(store, "pump", package)
    assert len(store.ledger.events(kinds=["package.signed"])) - events in (0, 1)


def crash(package: str, *, alone: bool, days_ago: float = 0.0) -> Event:
    now_ms = time.time_ns() // 1_000_000
    return Event(
        seq=1,
        time_ms=round(now_ms - days_ago * 86_400_000),
        kind="serve.crashed",
        line="pump",
        subject=package,
        body={"package": package, "how": "Segmentation fault", "alone": alone},
        previous="",
        digest="",
    )


def test_who_crashed_a_server_is_not_loaded_again(store: Store, loader: Loader) -> None:
    package = small_package(store, "pump")
    loader.take(crash(package, alone=True, days_ago=2))
    loader.check(package, stable=False)
    loader.take(crash(package, alone=False))  # it may have been another
    loader.check(package, stable=False)
    loader.take(crash(package, alone=False))
    assert refusal(lambda: loader.check(package, stable=False)).code == "G775"
    loader.check(package, stable=True)
    loader.take(crash(package, alone=True))
    assert refusal(lambda: loader.check(package, stable=True)).code == "G775"


def test_a_model_that_was_loaded_is_marked_while_it_computes(
    store: Store, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = small_package(store, "pump")
    loader.check(package, stable=True)
    model = loader.load(package)
    told: list[Any] = []
    monkeypatch.setattr(loader._marker, "enter", told.append)
    monkeypatch.setattr(loader._marker, "leave", lambda: told.append("left"))
    with pytest.raises(Problem):
        model.run({}, 1)
    assert told == [loader._marker.number(package), "left"]
    model.close()


def test_a_placement_that_cannot_be() -> None:
    one = Placed(package="a", share=1.0, since_seq=1, since_ms=1)
    two = replace(one, package="b")
    held = Placement(
        line="pump",
        rollout=Rollout(stable=one, canary=two, shadow=two),
        models={},
        asleep=frozenset({"a", "b"}),
    )
    wanted = Rollout(stable=replace(one, package="c"), previous="a")
    kept, _ = fit(held, wanted, {}, {}, {"b": "it crashes", "c": "it does not load"})
    assert (kept.rollout.stable, kept.rollout.canary, kept.rollout.shadow) == (one, None, None)
    assert kept.asleep == {"a"}
    nothing = Placement(line="pump", rollout=Rollout(), models={})
    gone, _ = fit(nothing, wanted, {}, {}, {"a": "x", "c": "x"})
    assert gone.rollout.stable is None
    condemned = replace(wanted, condemned=frozenset({"a"}))
    signature: Any = SimpleNamespace(signature=None)
    back, _ = fit(nothing, wanted, {"a": signature}, {}, {"c": "x"})
    assert back.rollout.stable is not None
    assert back.rollout.stable.package == "a"
    gone, _ = fit(nothing, condemned, {"a": signature}, {}, {"c": "x"})
    assert gone.rollout.stable is None
