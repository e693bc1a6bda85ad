"""The search finds the best point of a grid with few measurements, whatever the grid does."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.codesign.constraints import Bound
from genba.codesign.predictions import Predictions, guess
from genba.codesign.search import Budget, Search, Want
from genba.codesign.values import Point, Trial
from genba.core.values import Measure
from tests.unit.codesign_world import Table, grid, measures, trials

MOST = Bound(name="latency_ms_p99", side="max", value=10.0, path="target.limits.latency_ms_p99")


def found(
    seed: int, *, noise: float = 0.0, prefer: str = "cpu", bounds: tuple[Bound, ...] = ()
) -> tuple[Trial | None, Search, Table]:
    points, truth = grid(seed)
    bench = Table(truth, noise=noise, seed=seed)
    search = Search(trials(points), bench, Want(prefer=prefer, bounds=bounds), Budget())
    search.explore()
    return search.best(), search, bench


@pytest.mark.parametrize(("prefer", "goal"), [("cpu", "cpu_ms"), ("latency", "latency_ms_p99")])
def test_it_comes_within_5_percent_with_15_of_72_measurements_far_more_often_than_chance(
    prefer: str, goal: str
) -> None:
    hits = chance = 0
    for seed in range(12):
        points, truth = grid(seed)
        best, search, _ = found(seed, noise=0.03, prefer=prefer)
        assert best is not None
        assert search.made <= 15
        least = min(m[goal].value for m in truth.values())
        hits += truth[best.point.id][goal].value <= 1.05 * least
        drawn = np.random.default_rng(seed).permutation(len(points))[:15]
        chance += min(truth[points[i].id][goal].value for i in drawn) <= 1.05 * least
    assert hits >= 9
    assert chance <= 6


def test_with_a_limit_what_it_finds_holds_the_limit() -> None:
    for seed in range(5):
        best, _, bench = found(seed, bounds=(MOST,))
        fits = [i for i, m in bench.truth.items() if m["latency_ms_p99"].value <= 10.0]
        assert (best is None) == (not fits)
        if best is not None:
            assert best.measures["latency_ms_p99"].value <= 10.0
            assert best.stand == "verified"


@given(seed=st.integers(0, 400), most=st.integers(1, 30), verified=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_it_never_measures_more_than_it_may(seed: int, most: int, verified: int) -> None:
    points, truth = grid(seed)
    bench = Table(truth, noise=0.1, seed=seed)
    budget = Budget(measurements=most, verified=verified)
    search = Search(trials(points), bench, Want(), budget)
    search.explore()
    best = search.best()
    assert len(bench.asked) + len(bench.verified) == search.made
    assert len(bench.asked) <= max(1, most)
    assert search.made <= most or (most == 1 and search.made == 2)
    assert best is not None


def test_a_target_may_have_limits_of_its_own() -> None:
    points, truth = grid(0)

    def fits(found: Mapping[str, Measure]) -> tuple[str, ...]:
        return ("memory_mib is too much.",) if found["memory_mib"].value > 150 else ()

    want = Want(bounds=(MOST,), fits=fits)
    search = Search(trials(points), Table(truth), want, Budget())
    search.explore()
    best = search.best()
    assert best is not None
    assert best.point.streams == 1


def test_what_is_expected_is_asked_again_after_each_measurement() -> None:
    points, truth = grid(5)
    best = min(points, key=lambda p: truth[p.id]["cpu_ms"].value)

    def expect(left: Sequence[Trial]) -> None:
        for trial in left:  # a model that knows, once something was measured
            if not trial.measures and any(t.measures for t in left):
                trial.expected = {"cpu_ms": truth[trial.point.id]["cpu_ms"]}

    bench = Table(truth)
    search = Search(trials(points), bench, Want(), Budget(measurements=6), expect=expect)
    search.explore()
    assert best.id in {i for i, _ in bench.asked}


def test_every_point_that_was_not_measured_says_why() -> None:
    points, truth = grid(1)
    offered = trials(points)
    search = Search(offered, Table(truth), Want(), Budget())
    search.explore()
    for trial in offered:
        assert trial.measures or trial.refused[0].startswith("Not measured")


def test_points_that_crash_or_decide_otherwise_close_their_family_and_cost_little() -> None:
    points, truth = grid(2)
    bad = frozenset(p.id for p in points if p.precision == "int8")
    crashing = frozenset(p.id for p in points if p.engine == "ov" and p.precision == "bfloat16")
    offered = trials(points)
    bench = Table(truth, unlike=bad, crashing=crashing)
    search = Search(offered, bench, Want(), Budget())
    search.explore()
    best = search.best()
    assert best is not None
    assert best.point.id not in bad | crashing
    tried = {i for i, _ in bench.asked}
    assert len(tried & bad) <= 2  # one of each runtime
    assert len(tried & crashing) <= 1
    said = "Not measured: others of its kind were refused."
    assert any(t.refused == (said,) for t in offered)


def test_a_point_that_fails_its_verification_makes_room_for_the_next() -> None:
    first, second = (Point(engine=name, settings={"precision": "float32"}) for name in "ab")
    truth = {first.id: measures(1.0, 1.0), second.id: measures(2.0, 2.0)}

    class Worse(Table):
        def verify(self, trial: Trial) -> None:
            super().verify(trial)
            if trial.point == first:
                trial.measures = measures(1.0, 50.0)

    bench = Worse(truth)
    search = Search(trials([first, second]), bench, Want(bounds=(MOST,)), Budget(verified=1))
    search.explore()
    best = search.best()
    assert best is not None
    assert best.point == second
    refused = next(t for t in search._trials if t.point == first)
    assert refused.refused[0].startswith("Measured a second time: latency_ms_p99 is 60 ms")


def test_when_time_is_over_the_rest_is_left_out_and_says_so() -> None:
    points, truth = grid(3)
    offered = trials(points)
    search = Search(offered, Table(truth), Want(), Budget(seconds=-1.0))
    search.explore()
    assert search.made == 1
    late = [t for t in offered if not t.measures]
    assert all("the others took" in t.refused[0] for t in late)
    assert search.best() is not None


def test_what_was_ruled_out_is_never_tried() -> None:
    points, truth = grid(4)
    offered = trials(points)
    for trial in offered[1:]:
        trial.rule_out("It makes no sense.")
    bench = Table(truth)
    search = Search(offered, bench, Want(), Budget())
    search.explore()
    assert {i for i, _ in bench.asked} == {offered[0].point.id}


class TestPredictions:
    """What is expected of a point follows what was measured of its relatives."""

    def test_a_measured_relative_moves_the_expectation(self) -> None:
        one, other, far = (
            Trial(point=Point(engine=e, settings={"precision": "float32", "threads": t}))
            for e, t in (("a", 1), ("a", 2), ("b", 1))
        )
        predicted = Predictions([one, other, far], "cpu_ms")
        one.measures = {"cpu_ms": Measure(value=10.0)}
        far.measures = {"cpu_ms": Measure(value=40.0)}
        predicted.learn([one, other, far])
        assert predicted.of(other) < 0.7 * predicted.of(far)

    def test_a_model_gives_the_unit_to_those_it_says_nothing_of(self) -> None:
        known, unknown = (
            Trial(point=Point(engine=e, settings={"precision": "float32"})) for e in "ab"
        )
        known.expected = {"cpu_ms": Measure(value=50.0, method="modelled")}
        predicted = Predictions([known, unknown], "cpu_ms")
        assert predicted.of(unknown) == pytest.approx(50.0)

    def test_experience_knows_what_threads_and_batches_do(self) -> None:
        one = guess(Point(engine="a", settings={"precision": "float32", "threads": 1}))
        four = guess(Point(engine="a", settings={"precision": "float32", "threads": 4}))
        batch = guess(Point(engine="a", settings={"precision": "float32"}, batch=8))
        assert four["cpu_ms"] > one["cpu_ms"]
        assert four["latency_ms_p50"] < one["latency_ms_p50"] < batch["latency_ms_p50"]
