import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.codec import encode
from genba.core.task import Scores
from genba.core.values import Measure
from genba.learn import regimes as clusters
from genba.learn.grouped import folds, group_quantile
from genba.tasks.sensor.remaining_life import regimes
from genba.tasks.sensor.remaining_life.calibrate import Seen, in_time, spread
from genba.tasks.sensor.remaining_life.compare import compare
from genba.tasks.sensor.remaining_life.features import Spans, statistics
from genba.tasks.sensor.remaining_life.policy import (
    Prices,
    Run,
    choose_age,
    choose_alarm,
    fates,
    first_alarms,
)
from genba.tasks.sensor.remaining_life.score import phm08

PRICES = Prices(missed=10.0, stop=1.0, lead=5.0)


def run(end: float, bias: float = 0.0) -> Run:
    age = np.arange(1.0, end + 1.0)
    return Run(age=age, expected=np.maximum(end - age + bias, 0.0), end=end)


def test_folds_never_divide_a_group() -> None:
    group = np.repeat(np.arange(7), [5, 1, 9, 2, 2, 3, 4])
    held = list(folds(group, 3, 0))
    assert np.sum(held, axis=0).tolist() == [1] * len(group)
    for part in held:
        assert not set(group[part]) & set(group[~part])
    assert len(list(folds(group, 50, 0))) == 7


def test_a_group_quantile_covers_a_row_of_a_new_group() -> None:
    """Scores differ far more between groups than within: rows must not count as cases."""
    chance = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        size = np.exp(chance.normal(0, 1, 21))
        group = np.repeat(np.arange(20), 30)
        scores = np.abs(chance.normal(0, 1, 600)) * size[group]
        found = group_quantile(scores, group, 0.9)
        hits.append(abs(chance.normal()) * size[20] <= found.value)
    assert found.guaranteed
    assert 0.88 <= np.mean(hits) <= 0.99


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.floats(0.5, 0.99))
def test_a_group_quantile_is_a_score_and_grows_with_the_level(
    values: list[float], level: float
) -> None:
    scores = np.array(values)
    group = np.arange(len(scores)) // 3
    found = group_quantile(scores, group, level)
    assert found.value in scores
    assert found.value >= group_quantile(scores, group, 0.5).value
    few = len(np.unique(group)) / (len(np.unique(group)) + 1) < level - 1e-9
    assert not (found.guaranteed and few)
    assert found.guaranteed or found.value == scores.max()


def test_without_groups_nothing_is_guaranteed() -> None:
    nothing = group_quantile(np.zeros(0), np.zeros(0, dtype=np.int64), 0.9)
    assert (nothing.value, nothing.guaranteed) == (0.0, False)


def test_clusters_are_found_again_whatever_the_seed() -> None:
    chance = np.random.default_rng(1)
    truth = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    points = truth[chance.integers(0, 3, 600)] + chance.normal(0, 0.1, (600, 2))
    for seed in range(4):
        found = clusters.smallest(points, 0.95, seed)
        assert np.allclose(found.centers, truth[[0, 2, 1]], atol=0.05)


def test_a_cluster_of_a_few_points_is_none() -> None:
    points = np.r_[np.zeros(500), np.full(5, 100.0)][:, None]
    assert len(clusters.smallest(points, 0.95, 0).centers) == 1
    assert len(clusters.cluster(np.zeros((50, 1)), 3, 0).centers) == 1


def test_slopes_within_a_regime_are_those_of_the_line_that_was_drawn() -> None:
    chance = np.random.default_rng(2)
    conditions = chance.uniform(-1, 1, (400, 1))
    regime = (conditions[:, 0] > 0).astype(np.int64)
    readings = np.where(regime == 1, 5.0, -2.0)[:, None] * conditions
    found = clusters.slopes(conditions, readings, regime, 3)
    assert np.allclose(found[:, 0, 0], [-2.0, 5.0, 0.0], atol=0.5)


def settings_of(sensors: list[str], conditions: list[str]) -> dict[str, object]:
    return {"sensors": sensors, "conditions": conditions}


def rows_at_conditions(named: bool) -> tuple[list[str], regimes.Rows]:
    chance = np.random.default_rng(3)
    count = 1_200
    wear = np.tile(np.arange(100) / 100, 12)
    duty = chance.integers(0, 3, count)
    setting = np.array([10.0, 20.0, 40.0])[duty] + chance.normal(0, 0.01, count)
    other = np.array([0.1, 0.9, 0.5])[duty] + chance.normal(0, 0.001, count)
    worn = 100.0 * duty + 2 * wear + chance.normal(0, 0.2, count)
    noise = 50.0 * duty + chance.normal(0, 0.2, count)
    readings = np.stack([setting, other, worn, noise, np.full(count, 7.0)], axis=1)
    names = ["setting1", "setting2", "s1", "s2", "s3"]
    names = names if named else [f"column_{i}" for i in range(5)]
    return names, regimes.Rows(readings=readings, wear=wear, healthy=wear < 0.3)


@pytest.mark.parametrize("named", [True, False])
def test_operating_conditions_are_found_by_name_or_by_the_data(named: bool) -> None:
    names, rows = rows_at_conditions(named)
    found, arrays = regimes.find(rows, settings_of(names, ["auto"]), 0)
    assert found["regimes"]["count"] == 3
    assert set(found["regimes"]["conditions"]) <= {*names[:2], names[3]}
    assert names[2] in found["used"]  # what wears is not taken for a condition
    assert names[4] in found["dropped"]
    place = found["used"].index(names[2])
    assert np.allclose(np.diff(np.sort(arrays["usual"][:, place])), 100, atol=1)
    assert arrays["usual"].dtype == np.float32


def test_conditions_can_be_told_or_ruled_out() -> None:
    names, rows = rows_at_conditions(named=False)
    told, _ = regimes.find(rows, settings_of(names, [names[0]]), 0)
    assert told["regimes"]["conditions"] == [names[0]]
    none, arrays = regimes.find(rows, settings_of(names, ["none"]), 0)
    assert none["regimes"] == {"conditions": [], "count": 1}
    assert arrays["usual"].shape == (1, 4)


def test_a_setting_that_nothing_follows_or_that_wears_is_no_condition() -> None:
    chance = np.random.default_rng(4)
    wear = np.tile(np.arange(100) / 100, 10)
    setting = chance.normal(0, 0.002, 1_000)
    speed = 5 - 3 * wear + chance.normal(0, 0.1, 1_000)
    reading = 3 * wear + chance.normal(0, 0.2, 1_000)
    rows = regimes.Rows(
        readings=np.stack([setting, speed, reading], axis=1), wear=wear, healthy=wear < 0.3
    )
    found, _ = regimes.find(rows, settings_of(["setting", "speed", "x"], ["auto"]), 0)
    assert found["regimes"]["conditions"] == []
    assert "speed" in found["used"]


def test_statistics_see_only_what_is_there() -> None:
    z = np.zeros((2, 12, 1))
    z[:, :, 0] = np.arange(12) / 2
    mask = np.ones_like(z)
    mask[1, :9] = 0.0
    mask[1, 11] = 0.0
    found = {name: value[:, 0] for name, value in statistics(z * mask, mask).items()}
    assert found["newest"].tolist() == [5.5, 4.75]  # the mean of what is left of the newest rows
    assert found["lowest"].tolist() == [0.0, 4.5]
    assert found["mean"][1] == 4.75
    assert found["slope"][0] > 3 * found["slope"][1] > 0  # two rows make no trend
    nothing = statistics(np.zeros((1, 12, 2)), np.zeros((1, 12, 2)))
    assert all((value == 0.0).all() for value in nothing.values())
    assert Spans.of(3).middle == 2


def test_a_stop_is_in_time_or_the_unit_has_failed() -> None:
    found = fates(np.array([80.0, 95.0, np.inf]), np.full(3, 100.0), 5.0)
    assert found.missed.tolist() == [False, True, True]
    assert found.lost.tolist() == [15.0, 0.0, 0.0]
    assert found.cost(PRICES).tolist() == [1.0, 10.0, 10.0]


def test_running_to_failure_costs_what_a_failure_costs_and_foresight_what_a_stop_costs() -> None:
    end = np.array([50.0, 90.0, 130.0])
    assert fates(np.full(3, np.inf), end, 5.0).per_life(PRICES) == pytest.approx(10.0)
    just = fates(end - 5.0 - 1e-9, end, 5.0).per_life(PRICES)
    assert just == pytest.approx(1.0, abs=1e-6)


def test_the_alarm_point_pays_for_the_errors_of_the_predictions() -> None:
    exact = [run(end) for end in (60.0, 80.0, 100.0)]
    late = [run(end, bias) for end, bias in ((60.0, 12.0), (80.0, 0.0), (100.0, 4.0))]
    sharp, careful = (choose_alarm(runs, PRICES, 50.0) for runs in (exact, late))
    assert 5.0 < sharp < 12.0
    assert careful > 12.0 + 5.0
    end = np.array([r.end for r in late])
    assert not fates(first_alarms(late, careful), end, 5.0).missed.any()
    cheap = Prices(missed=1.05, stop=1.0, lead=5.0)
    assert choose_alarm(late, cheap, 50.0) < careful  # where a failure costs little more


def test_a_planned_age_suits_the_shortest_life_or_none() -> None:
    end = np.array([100.0, 110.0, 120.0])
    assert 90 < choose_age(end, PRICES) < 100
    assert choose_age(end, Prices(missed=1.0, stop=1.0, lead=0.0)) >= 120


def test_what_another_alarm_point_would_miss() -> None:
    found = in_time([run(60.0), run(80.0, 7.0)], 5.0, 125.0)
    assert found == [6.0, 13.0]
    assert len(in_time([run(30.0)] * 500, 5.0, 125.0)) == 400


def test_intervals_are_as_wide_as_errors_were_at_that_level() -> None:
    chance = np.random.default_rng(0)
    expected = np.tile(np.linspace(0, 100, 500), 4)
    target = expected + chance.normal(0, 1, 2_000) * (1 + expected / 10)
    seen = Seen(
        expected=expected,
        target=target,
        left=target,
        unit=np.zeros(2_000, dtype=np.int64),
        age=expected,
    )
    found = spread(seen, 0.9, 100.0)
    assert found["spread.above"][-1] > 4 * found["spread.above"][0]
    assert np.allclose(found["spread.above"], found["spread.below"], rtol=0.5)
    flat = Seen(expected=target * 0 + 9, target=target, left=target, unit=seen.unit, age=expected)
    assert len(spread(flat, 0.9, 100.0)["spread.at"]) == 1


@given(st.floats(-120, 120))
def test_the_phm08_score_punishes_late_more_than_early(error: float) -> None:
    late, early = phm08(np.array([abs(error), -abs(error)]))
    assert late >= early >= 0.0


def scores(expected: np.ndarray, missed: list[bool]) -> Scores:
    truth = np.tile(np.arange(20.0), 4)
    block = np.repeat(np.arange(4), 20)
    per_unit = np.array(missed, dtype=np.float64)
    evidence = {
        "row": np.arange(80),
        "block": block,
        "loss": (expected - truth) ** 2,
        "unit_end": np.full(80, 100.0),
        "unit_used": np.where(per_unit, 100.0, 90.0)[block],
        "unit_cost": np.where(per_unit, 10.0, 1.0)[block],
    }
    value = np.mean(np.where(per_unit, 10.0, 1.0)) / np.mean(np.where(per_unit, 100.0, 90.0)) * 100
    return Scores(measures={"cost_per_unit": Measure(value=float(value))}, evidence=evidence)


def test_models_are_compared_by_errors_and_by_what_their_alarms_cost() -> None:
    truth = np.tile(np.arange(20.0), 4)
    good = scores(truth + 1.0, [False] * 4)
    bad = scores(truth + 9.0, [True, True, True, True])
    by_name = {c.name: c for c in compare(good, bad, "frozen test set")}
    assert by_name["squared error"].worse
    assert by_name["cost_per_unit"].worse
    assert {c.name for c in compare(bad, good, "frozen test set") if c.better} == set(by_name)
    assert not any(c.worse or c.better for c in compare(good, good, "frozen test set"))
    assert compare(Scores(measures={}), good, "x") == ()
    unknown = Scores(
        measures={},
        evidence={**good.evidence, "loss": np.full(80, np.nan), "unit_end": np.full(80, np.nan)},
    )
    assert compare(good, unknown, "x") == ()
    assert encode(by_name["cost_per_unit"])["where"] == "frozen test set"
