"""Bootstrap, conformal thresholds, ridge, trees and drift: the arithmetic of learning."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from genba.learn import bootstrap, conformal, drift, linear, trees
from genba.learn.threads import one_thread

HOUR = 3_600_000
DAY = 24 * HOUR


def test_blocks_are_as_long_as_they_can_be() -> None:
    lengths = bootstrap.block_lengths(has_clock=True, step_ms=600_000)
    assert lengths[0] == 3 * DAY
    month, week = (np.arange(0, d * DAY, HOUR) for d in (60, 7))
    assert bootstrap.block_of(month, lengths).max() == 19
    assert bootstrap.block_of(week, lengths).max() == 27  # quarter days: seven days are too few
    assert bootstrap.block_lengths(has_clock=True, step_ms=2 * DAY) == (3 * DAY, 2 * DAY)
    assert bootstrap.block_lengths(has_clock=False, step_ms=None) == (64, 16, 1)
    assert len(bootstrap.block_of(np.zeros(0, dtype=np.int64), (1,))) == 0


def test_an_interval_covers_the_truth_and_respects_blocks() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(40):
        level = np.repeat(rng.normal(0, 1, 40), 25)  # 25 equal rows per block: 40 facts, not 1000
        blocks = np.repeat(np.arange(40), 25)
        sums = bootstrap.sums_by_block(blocks, level, np.ones(1000))
        _, low, high = bootstrap.interval(bootstrap.ratio(0, 1), sums, seed)
        assert low is not None
        assert high is not None
        hits += low <= 0.0 <= high
        assert high - low > 0.25  # were all rows independent, it would be 0.12
    assert hits >= 35


def test_what_cannot_be_known_has_no_interval() -> None:
    two = np.ones((2, 2))
    assert bootstrap.interval(bootstrap.ratio(0, 1), two) == (1.0, None, None)
    nothing = np.zeros((5, 2))
    assert bootstrap.measure(bootstrap.ratio(0, 1), nothing, n=0) is None
    rare = np.zeros((4, 2))
    rare[0] = 1.0
    value, low, high = bootstrap.interval(lambda s: np.where(s[..., 0] < 9, np.nan, 1.0), rare)
    assert np.isnan(value)
    assert (low, high) == (None, None)


def test_episodes_merge_and_do_not_cross_entities() -> None:
    entity = np.array([0, 0, 0, 1, 1])
    time = np.array([0, 1, 9, 1, 2])
    alarm = np.array([True, True, True, False, True])
    assert conformal.onsets(alarm, entity, time, 2).tolist() == [0, 2, 4]
    assert len(conformal.onsets(np.zeros(5, dtype=bool), entity, time, 2)) == 0


@given(st.integers(20, 400), st.sampled_from([0.01, 0.05, 0.2]), st.integers(0, 99))
def test_the_conformal_rate_holds_on_its_own_rows(n: int, rate: float, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=n).round(1)  # with ties
    found = conformal.quantile_threshold(scores, rate)
    above = int((scores > found.value).sum())
    if found.guaranteed:
        assert (above + 1) / (n + 1) <= rate + 1e-12 or above == 0
    else:
        assert above == 0
    assert not np.isin(found.value, scores)


def test_the_conformal_rate_holds_on_new_rows() -> None:
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(200):
        found = conformal.quantile_threshold(rng.exponential(size=300), 0.05)
        rates.append((rng.exponential(size=300) > found.value).mean())
    assert np.mean(rates) == pytest.approx(0.05, abs=0.005)


def test_the_risk_threshold_keeps_the_budget_of_days() -> None:
    rng = np.random.default_rng(2)

    def days() -> tuple[Any, Any, Any]:
        time = np.arange(60 * 144) * 600_000
        return rng.exponential(size=len(time)), np.zeros(len(time), dtype=np.int64), time

    rates = []
    for _ in range(10):
        scores, entity, time = days()
        loss = conformal.episodes_per_unit(scores, entity, time, day=DAY, merge=HOUR, cap=4)
        found = conformal.risk_threshold(scores, loss, 0.5, 4)
        assert found.guaranteed
        assert found.units == 60
        assert loss(found.value).mean() <= 0.5
        new, _, _ = days()
        rates.append(len(conformal.onsets(new > found.value, entity, time, HOUR)) / 60)
    assert 0.25 < np.mean(rates) <= 0.5


def test_too_few_days_guarantee_nothing_and_alarm_least() -> None:
    scores, time = np.arange(20.0), np.arange(20) * HOUR
    entity = np.zeros(20, dtype=np.int64)
    loss = conformal.episodes_per_unit(scores, entity, time, day=DAY, merge=HOUR, cap=4)
    found = conformal.risk_threshold(scores, loss, 0.25, 4)
    assert not found.guaranteed
    assert found.value > 19.0


def test_ridge_bends_at_its_knots() -> None:
    rng = np.random.default_rng(3)
    u = rng.uniform(-2, 2, (4000, 2))
    target = np.maximum(0.0, u[:, :1] - 0.5) * 3 + np.abs(u[:, 1:])
    hinges = linear.make_hinges(u, 16)
    gram, moment = linear.normal_equations(hinges, u, target)
    allowed = np.ones((len(gram), 1), dtype=bool)
    weights = linear.solve(gram, moment, 1e-8, allowed)
    error = linear.apply(hinges, weights, u) - target
    assert np.sqrt((error**2).mean()) < 0.05
    assert linear.apply(hinges, weights, u[:0]).shape == (0, 1)
    shy = linear.solve(gram, moment, 100.0, allowed)
    assert linear.apply(hinges, shy, u).std() < 0.2  # only the constant is left


def test_a_target_uses_only_what_it_may() -> None:
    u = np.random.default_rng(4).normal(size=(500, 2))
    hinges = linear.make_hinges(u, 4)
    made_of = hinges.sources(2)
    allowed = np.stack([made_of != 0, made_of != 1], axis=1)
    weights = linear.solve(*linear.normal_equations(hinges, u, u), 1e-6, allowed)
    assert (weights[made_of == 0, 0] == 0.0).all()
    assert np.abs(weights[made_of == 0, 1]).max() > 0.0


def grown(rows: int = 600) -> tuple[Any, trees.Forest]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    target = np.stack([x[:, 1] > 0, x[:, 0] * x[:, 2]], axis=1).astype(np.float64)
    settings = {"iterations": 30, "leaves": 8, "rate": 0.3, "min_rows": 5}
    return x, trees.grow(x, target, settings, [np.array([1, 2]), np.array([0, 2])])


def test_trees_read_as_arrays_and_predict_as_they_were_grown() -> None:
    x, forest = grown()
    found = forest.predict(x)
    target = np.stack([x[:, 1] > 0, x[:, 0] * x[:, 2]], axis=1)
    assert ((found - target) ** 2).mean(axis=0).max() < 0.05
    again = trees.Forest.from_arrays(forest.to_arrays())
    assert np.array_equal(again.predict(x), found)
    assert np.array_equal(grown()[1].value, forest.value)
    moved = x.copy()
    moved[:, 0] += 5.0  # the first target may not look at the first feature
    assert np.array_equal(forest.predict(moved)[:, 0], found[:, 0])
    assert forest.predict(x[:0]).shape == (0, 2)
    assert 1 <= forest.depth <= 8


def test_thresholds_rounded_to_float32_decide_alike() -> None:
    exact = np.random.default_rng(6).normal(size=10_000)
    rounded = trees._round_down(exact)
    assert (rounded.astype(np.float64) <= exact).all()
    above = np.nextafter(rounded, np.float32(np.inf)).astype(np.float64)
    assert (above > exact).all()


def test_psi_is_zero_without_and_large_with_drift() -> None:
    rng = np.random.default_rng(7)
    made = drift.reference(rng.normal(size=20_000))
    assert len(made["edges"]) == 9
    assert sum(made["p"]) == pytest.approx(1.0)
    same = drift.psi(made["p"], drift.counts(made["edges"], rng.normal(size=5000)))
    moved = drift.psi(made["p"], drift.counts(made["edges"], rng.normal(1.0, size=5000)))
    assert same < 0.02 < 0.5 < moved
    with_gaps = np.array([np.nan, np.inf, 0.0])
    assert drift.counts(made["edges"], with_gaps).sum() == 1
    assert drift.reference(np.array([np.nan]))["p"] == [0.0] * 10


def test_the_null_knows_that_neighbours_are_alike() -> None:
    rng = np.random.default_rng(8)
    time = np.arange(20_000) * 600_000
    white = rng.normal(size=20_000)
    slow = np.repeat(rng.normal(size=200), 100)  # changes every 17 hours only
    nulls = [drift.null_quantile(v, time, 500, 0.001, block=DAY) for v in (white, slow)]
    assert nulls[0] < 0.2 < nulls[1]
    fresh = np.repeat(rng.normal(size=200), 100)
    made = drift.reference(slow)
    found = [
        drift.psi(made["p"], drift.counts(made["edges"], fresh[i : i + 500]))
        for i in range(0, 20_000, 500)
    ]
    assert np.mean(np.array(found) > nulls[1]) <= 0.05


def test_missing_readings_are_no_drift_of_their_own() -> None:
    rng = np.random.default_rng(6)
    time = np.arange(20_000) * 600_000
    whole = rng.normal(size=20_000)
    holed = np.where(rng.random(20_000) < 0.2, np.nan, whole)
    nulls = [drift.null_quantile(v, time, 2_000, 0.001, block=DAY) for v in (whole, holed)]
    assert nulls[1] < 1.5 * nulls[0]
    moved = drift.counts(drift.reference(holed)["edges"], holed[:2_000] + 0.5)
    assert drift.psi(drift.reference(holed)["p"], moved) > nulls[1]


def test_one_thread_is_a_context() -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    with one_thread():
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert [pool["num_threads"] for pool in threadpool_info()] == before
