"""Fitted monitors: what a device computes is what was fitted, and it trips as rarely as asked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.edge.safety.plausible import Residuals
from genba.edge.safety.track import Track
from genba.edge.safety.unusual import Strangeness, scores
from genba.learn.safety.bounds import upper_bound
from genba.learn.safety.calibration import conformal, limit
from genba.learn.safety.plausible import Fitted, fit_plausible, longest_runs, replay
from genba.learn.safety.rules import decided, fit_rule
from genba.learn.safety.series import Series
from genba.learn.safety.unusual import Kinds, fit_mahalanobis, fit_nearest

STEP = 1_000
ALPHA = 0.01


def series(rows: int, seed: int, *, gap: int = 0) -> Series:
    """Flow wanders, pressure follows it, a third sensor follows nothing."""
    chance = np.random.default_rng(seed)
    flow = 10 + np.cumsum(chance.normal(0, 0.1, rows)) * 0.2 + np.sin(np.arange(rows) / 30)
    pressure = 0.5 * flow**2 + chance.normal(0, 0.2, rows)
    values = np.stack([flow, pressure, chance.normal(5, 1, rows)], axis=1)
    time = np.arange(rows, dtype=np.int64) * STEP
    if gap:
        time[gap:] += 50 * STEP
    return Series(
        values=values,
        entity=np.zeros(rows, dtype=np.int64),
        time=time,
        normal=np.ones(rows, dtype=np.bool_),
        step=STEP,
    )


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    judged = np.array([False, True, False])
    return fit_plausible(series(6_000, 1), series(4_000, 2), ALPHA, judged, usable=True)


def test_only_sensors_that_are_explained_are_watched_and_the_judged_one_by_the_model(
    fitted: Fitted,
) -> None:
    cross, before = fitted.plan.cross, fitted.plan.before
    assert cross[0] > 0  # pressure explains flow
    assert cross[1] == 0  # the model judges it
    assert cross[2] == before[2] == 0  # nothing explains it
    assert before[0] > 0
    assert fitted.by_others[0] > 0.9
    assert fitted.by_others[2] < 0.1


def test_new_rows_without_a_fault_trip_about_as_rarely_as_asked_for(fitted: Fitted) -> None:
    found = replay(fitted.plan, series(4_000, 2, gap=2_000))
    limits = np.array([fitted.plan.cross, fitted.plan.before, fitted.plan.drift]).ravel()
    for at in np.flatnonzero(limits):
        assert float(np.mean(found[10:, at] > limits[at])) <= 2 * ALPHA


@pytest.mark.parametrize(("kind", "size"), [("cross", 3.0), ("predicted", 3.0), ("drift", 0.5)])
def test_a_spike_and_a_bias_are_found_by_the_look_that_is_there_for_them(
    fitted: Fitted, kind: str, size: float
) -> None:
    rows = series(200, 2)
    residuals, track = Residuals(fitted.plan), Track()
    found: list[str] = []
    for at, values in enumerate(rows.values):
        bad = values.copy()
        bad[0] += size if (at == 100 if kind == "predicted" else at >= 100) else 0.0
        z = residuals.standardise(bad)
        told = [k for k, sensor, _ in residuals.exceeded(z, track) if sensor == 0]
        found += told if 100 <= at < 160 else []
    assert kind in found


def test_broken_readings_are_cut_off_before_they_are_multiplied(fitted: Fitted) -> None:
    residuals = Residuals(fitted.plan)
    z = residuals.standardise([1e30, -1e30, 5.0])
    assert z[:2].tolist() == [10.0, -10.0]
    assert np.isfinite(residuals.statistics(z, Track())).all()


def test_without_an_order_only_the_other_sensors_promise_anything() -> None:
    judged = np.zeros(3, dtype=np.bool_)
    found = fit_plausible(series(3_000, 1), series(2_000, 2), ALPHA, judged, usable=False)
    assert found.plan.history == 0
    assert not any(found.plan.before)
    assert not any(found.plan.drift)
    assert found.plan.cross[0] > 0
    assert np.isfinite(replay(found.plan, series(50, 3))[:, 0]).all()


def test_runs_of_equal_readings_have_a_limit_at_rest_and_elsewhere() -> None:
    rows = series(2_000, 4)
    values = rows.values.copy()
    for start in range(100, 1_900, 200):
        values[start : start + 20, 0] = 0.0  # switched off
    values[:, 2] = 3.0  # says nothing
    still = Series(values=values, entity=rows.entity, time=rows.time, normal=rows.normal, step=STEP)
    first, second, third = longest_runs(still, 0.001)
    assert (first.longest, first.rest) == (3, 0.0)
    assert first.at_rest >= 20
    assert (second.longest, second.rest) == (3, None)
    assert (third.longest, third.rest, third.at_rest) == (0, 3.0, 0)  # it is not watched


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.floats(-1e6, 1e6))
def test_a_p_value_is_never_smaller_than_the_conformal_one_allows(
    known: list[float], new: float
) -> None:
    plan = fit_mahalanobis("look", np.array([[0.0], [1.0]]), np.zeros((1, 1)), 0.1, Kinds())
    strange = Strangeness(plan)
    table = conformal(np.array(known))
    strange._pooled = (list(table.at), list(table.above), table.count)
    p = strange.p_value(float(np.float64(f"{new:.7g}")))
    exact = (1 + sum(k >= new for k in known)) / (len(known) + 1)
    assert 1 / (len(known) + 1) <= p <= 1
    assert abs(p - exact) <= 0.02 + 2 / (len(known) + 1)


def test_p_values_of_rows_like_those_of_calibration_are_uniform() -> None:
    chance = np.random.default_rng(0)
    train, calibrate, new = (chance.normal(size=(n, 3)) for n in (500, 2_000, 2_000))
    for plan in (
        fit_nearest(train, calibrate, 0.05, Kinds()),
        fit_mahalanobis("look", train, calibrate, 0.05, Kinds()),
    ):
        strange = Strangeness(plan)
        p = np.array([strange.p_value(strange.score(x)) for x in new])
        assert abs(float(np.mean(p <= 0.05)) - 0.05) < 0.02
        assert abs(float(p.mean()) - 0.5) < 0.03
        assert strange.p_value(strange.score(np.full(3, 9.0))) < 0.001
        one = [strange.score(x) for x in new[:20]]
        np.testing.assert_allclose(one, scores(plan, new[:20]), rtol=1e-6, atol=1e-9)


def test_a_category_counts_only_with_rows_enough_to_promise_its_rate() -> None:
    chance = np.random.default_rng(0)
    names = ["a"] * 300 + ["b"] * 5
    plan = fit_nearest(
        chance.normal(size=(50, 2)), chance.normal(size=(305, 2)), 0.05, Kinds("entity", names)
    )
    assert (plan.by, list(plan.categories)) == ("entity", ["a"])
    assert plan.categories["a"].count == 300
    few = fit_nearest(np.zeros((5, 2)), np.zeros((5, 2)), 0.05, Kinds("entity", ["a"] * 5))
    assert few.by == ""
    assert few.alpha == pytest.approx(1 / 6)


def test_a_limit_is_exceeded_as_rarely_as_asked_for_and_none_is_known_of_nothing() -> None:
    chance = np.random.default_rng(0)
    assert (
        float(np.mean(chance.normal(size=20_000) > limit(chance.normal(size=5_000), 0.05))) < 0.06
    )
    assert limit(np.array([np.nan]), 0.1) == 0.0


@given(st.integers(1, 300), st.data())
def test_the_bound_is_where_so_few_failures_have_one_chance_in_twenty(
    count: int, data: st.DataObject
) -> None:
    failed = data.draw(st.integers(0, count))
    bound = upper_bound(failed, count)
    assert failed / count <= bound <= 1.0
    if failed < count:
        at_most = sum(
            math.comb(count, k) * bound**k * (1 - bound) ** (count - k) for k in range(failed + 1)
        )
        assert at_most == pytest.approx(0.05, abs=1e-6)


def test_a_rule_repeats_the_decision_it_was_fitted_to_on_the_device_too() -> None:
    from genba.edge.safety.fallback import decide

    chance = np.random.default_rng(0)
    values = chance.uniform(0, 10, size=(2_000, 2))
    alarm = (values[:, 0] > 7) & (values[:, 1] < 4)
    rule = fit_rule(values, alarm, ("flow", "power"), "alarm")
    assert rule is not None
    said = decided(rule, values)
    assert float(np.mean(said == alarm)) > 0.97
    one = [decide(rule, {"flow": a, "power": b}) for a, b in values[:100].tolist()]
    assert [bool(v) for v in one] == said[:100].tolist()
    assert fit_rule(values, np.zeros(2_000, dtype=np.bool_), ("flow", "power"), "alarm") is None
