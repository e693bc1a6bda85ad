"""What people are asked next: what is worth most, and nothing twice."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genba.loop.queue import queue
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from tests.unit.feedback_store import (
    T0,
    about,
    capture,
    manifest,
    outcomes,
    prepare,
    say,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        prepare(opened)
        yield opened


def test_the_queue_asks_first_where_the_score_is_near_the_threshold(store: Store) -> None:
    capture(store, rows=4, score=[0.1, 1.05, 20.0, np.nan])
    capture(store, rows=1, entity="R2", first=10, score=[0.6])
    items = queue(store, "farm")
    assert [i.prediction for i in items] == ["s1-1", "s1-10"]
    assert items[0].reasons == ("the score 1.05 is near the threshold 1",)
    assert items[0].priority == pytest.approx(1 / 1.05)


def test_one_answer_settles_an_episode(store: Store) -> None:
    capture(store, rows=20, score=np.linspace(0.5, 0.9, 20))
    items = queue(store, "farm")
    assert [i.prediction for i in items] == ["s1-19", "s1-13", "s1-7", "s1-1"]


def test_without_a_clock_there_are_no_episodes(store: Store) -> None:
    capture(store, rows=3, clock=False, score=[0.9, 0.8, 0.7])
    assert len(queue(store, "farm")) == 3


def test_what_is_settled_is_not_asked_again_and_ties_come_first(store: Store) -> None:
    capture(store, rows=1, score=[0.99])
    capture(store, rows=1, entity="R2", first=20, score=[0.1])
    say(store, about(0))
    say(store, about(20, "fault"), about(20, "normal", "bob"))
    (item,) = queue(store, "farm")
    assert item.prediction == "s1-20"
    assert item.reasons == ("people disagree about it",)


def test_models_that_disagree_are_worth_a_question(store: Store) -> None:
    def rows(package: str, role: str, score: float, first: int) -> CapturedRows:
        return CapturedRows(
            package=package,
            n=np.array([first]),
            received_ms=np.array([T0]),
            role=[role],
            entity=["R1"],
            time=[T0],
            latency_us=np.array([1]),
            status=["ok"],
            features={"window": np.zeros((1, 2, 2), np.float32)},
            outputs={"score": np.array([score]), "alarm": np.array([score > 1])},
        )

    store.ledger.record("package", "q", manifest(), line="farm")
    both = (rows("p", "stable", 0.1, 0), rows("q", "shadow", 9.0, 0))
    packages = {"p": {"n": 1}, "q": {"n": 1}}
    CaptureWriter(store, "farm", "s1").write(
        Interval(from_ms=T0, to_ms=T0, packages=packages, rows=both)
    )
    (item,) = queue(store, "farm")
    assert item.reasons == ("the models disagree about the alarm",)
    assert item.priority == pytest.approx(1.1)


def test_readings_of_a_drifted_sensor_are_worth_a_question(store: Store) -> None:
    drift = {"columns": {"wind": {"edges": list(range(1, 10)), "p": [0.1] * 10}}}
    store.ledger.record("package", "d", manifest(drift=drift), line="farm")
    finding = {"name": "wind", "kind": "input", "drifted": True}
    store.ledger.append("watch", {"package": "d", "findings": [finding]}, line="farm")
    capture(store, package="d", rows=2, score=[0.1, 0.1], now=[[5.0, 0.0], [30.0, 0.0]])
    capture(store, package="p", rows=1, entity="R9", first=5, score=[0.1], now=[[30.0, 0.0]])
    items = queue(store, "farm")
    assert items[0].prediction == "s1-1"
    assert items[0].priority == pytest.approx(1.1)
    assert items[0].reasons == ("wind has drifted and reads what calibration hardly saw",)
    assert items[1].reasons == ()


def test_captures_without_scores_have_nothing_to_ask(store: Store) -> None:
    part = CapturedRows(
        package="p",
        n=np.array([0]),
        received_ms=np.array([T0]),
        role=["stable"],
        entity=["R1"],
        time=[T0],
        latency_us=np.array([1]),
        status=["error"],
        features={"window": np.zeros((1, 2, 2), np.float32)},
    )
    CaptureWriter(store, "farm", "s1").write(
        Interval(from_ms=T0, to_ms=T0, packages={"p": {"n": 1}}, rows=(part,))
    )
    assert queue(store, "farm") == []
    assert outcomes(say(store, about(0, "fault"))) == {"accepted": 1}


def test_the_queue_is_as_long_as_asked(store: Store) -> None:
    capture(store, rows=3, clock=False, score=[0.9, 0.8, 0.7])
    assert len(queue(store, "farm", 2)) == 2
