"""Steps, clocks, grids and gaps of forecasts."""

from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.tasks.sensor.forecast import SensorForecast, series, steps, zones
from genba.tasks.sensor.forecast.arrays import filled, mean_known
from genba.tasks.sensor.forecast.batch import scales
from genba.tasks.sensor.forecast.bodies import Part, drawn, held_out
from genba.tasks.sensor.forecast.fit import backtest, training
from tests.unit.forecast_data import HOUR, START, view

DAY = 24 * HOUR


def settings(**options: Any) -> dict[str, Any]:
    made = view(options=options)
    return SensorForecast().derive(made.line, made)


def columns(times: Any, values: Any, label: Any = np.nan) -> dict[str, Any]:
    count = len(times)
    return {
        "entity": np.zeros(count, dtype=np.int32),
        "time": np.asarray(times, dtype=np.int64),
        "row": np.arange(count) + 100,
        "label": np.full(count, label),
        "warm": np.zeros(count),
        "work": np.zeros(count),
        "y0": np.asarray(values, dtype=np.float64),
    }


@pytest.mark.parametrize(
    ("step", "horizon", "window", "seasons"),
    [
        (HOUR, 24, 504, [24, 168]),
        (HOUR // 2, 48, 672, [48, 336]),
        (HOUR // 12, 288, 1_008, [288]),
        (DAY, 14, 56, [7]),
        (7 * DAY, 12, 104, [52]),
        (30 * DAY, 12, 36, [12]),
    ],
)
def test_shapes_follow_from_the_step(
    step: int, horizon: int, window: int, seasons: list[int]
) -> None:
    step = steps.nominal(step)
    assert steps.horizon(step) == horizon
    assert steps.window(step) == window
    assert steps.seasons(step, window) == seasons


def test_months_are_one_step_each() -> None:
    months = np.arange("2020-01", "2024-01", dtype="datetime64[M]").astype("datetime64[ms]")
    made = settings() | {"step_ms": steps.nominal(31 * DAY)}
    placed = series.on_grid(columns(months.astype(np.int64), np.arange(48.0)), made, 0)
    assert placed.values[:, 2].tolist() == list(range(48))


def test_clocks_change_where_the_zone_says() -> None:
    table = zones.offsets("Australia/Melbourne")
    summer = int(np.datetime64("2014-01-15T00:00", "ms").astype(np.int64))
    before = int(np.datetime64("2014-04-05T15:59", "ms").astype(np.int64))  # UTC
    assert zones.local_ms([summer], table)[0] - summer == 11 * HOUR
    assert (zones.local_ms([before, before + 60_000], table) - before).tolist() == [
        11 * HOUR,
        10 * HOUR + 60_000,
    ]


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        zones.offsets("Europe/Lutetia")
    assert refused.value.code == "G543"


def test_every_day_has_all_its_phases() -> None:
    made = steps.calendar(HOUR)
    found = steps.phases(np.arange(0, 7 * DAY, HOUR), made)
    assert found["profile"].tolist() == list(range(168))
    assert found["day"][:25].tolist() == [*range(24), 0]


def test_gaps_are_filled_by_the_season_before_by_the_newest() -> None:
    x = np.arange(12.0)
    x[7:11] = np.nan
    assert filled(x, [1, 4, 8, 1, 2, 4], 0, np.zeros(1))[7:11].tolist() == [6, 4, 5, 6]
    assert filled(x, [1, 2, 4, 8], 0, np.zeros(1))[7:11].tolist() == [6, 6, 6, 6]
    nothing = np.full(3, np.nan)
    assert filled(nothing, [1], 0, np.full(1, 5.0)).tolist() == [5, 5, 5]
    begins = np.array([np.nan, 2.0, 4.0])
    assert filled(begins, [1], 0, np.zeros(1)).tolist() == [3, 2, 4]


def test_a_mean_of_nothing_is_missing_without_a_warning() -> None:
    assert np.isnan(mean_known([np.nan], 0))


def test_rows_fall_on_their_steps() -> None:
    made = settings()
    times = START + np.array([0, 1, 2, 2, 5]) * HOUR + [0, 60_000, 900_000, 0, 0]
    placed = series.on_grid(columns(times, [1, 2, 99, 3, 4]), made, 0)
    assert placed.row.tolist() == [100, 101, 103, -1, -1, 104]  # the row nearest to its step
    np.testing.assert_array_equal(placed.values[:, 2], [1, 2, 3, np.nan, np.nan, 4])


def test_a_long_gap_is_shortened_to_what_a_window_and_a_horizon_need() -> None:
    made = settings()
    times = START + np.array([0, 1, 500_000, 500_001]) * HOUR
    placed = series.on_grid(columns(times, [1, 2, 3, 4]), made, 0)
    assert len(placed) == 4 + made["lags"] + made["ahead"]
    assert placed.time[-1] == times[-1]


def test_what_people_say_is_the_true_value() -> None:
    made = settings()
    said = columns(START + np.arange(3) * HOUR, [1, 2, 3])
    said["label"][1] = 7.0
    assert series.on_grid(said, made, 0).values[:, 2].tolist() == [1, 7, 3]


def test_implausible_readings_are_missing() -> None:
    made = settings() | {"high": [None, None, 10.0]}
    placed = series.on_grid(columns(START + np.arange(3) * HOUR, [1, 11, 3]), made, 0)
    assert np.isnan(placed.values[1, 2])


def test_no_target_is_in_two_splits() -> None:
    made = view(rows=600)
    own = SensorForecast().derive(made.line, made)
    (one,) = series.read(made, own)
    targets = {}
    for split in ("train", "calibrate", "test"):
        at = series.origins(one, own, split)
        targets[split] = {int(a) + h for a in at for h in range(1, own["ahead"] + 1)}
        assert len(at) > 0
    assert not targets["train"] & targets["calibrate"]
    assert not targets["calibrate"] & targets["test"]


def test_origins_need_most_of_their_window_and_horizon() -> None:
    made = view(rows=600)
    own = SensorForecast().derive(made.line, made)
    (one,) = series.read(made, own)
    one.values[200:206] = np.nan
    at = series.origins(one, own, "train")
    assert 199 not in at
    assert 210 in at


def test_the_backtest_never_sees_what_it_is_judged_on() -> None:
    made = view(rows=900, entities=2)
    own = SensorForecast().derive(made.line, made)
    every = list(series.read(made, own))
    parts = training(every, own, scales(every, own, 2))
    folds = backtest(parts)
    assert len(folds) == 2
    for older, newer in folds:
        last = max(p.ready.series.time[p.at + own["ahead"]].max() for p in older)
        first = min(p.ready.series.time[p.at + 1].min() for p in newer)
        assert last < first


def test_held_out_origins_share_no_target() -> None:
    made = view(rows=900)
    own = SensorForecast().derive(made.line, made)
    every = list(series.read(made, own))
    parts = training(every, own, scales(every, own, 1))
    older, newest = held_out(parts)
    assert older[0].at.max() + own["ahead"] <= newest[0].at.min()
    tiny = [Part(ready=parts[0].ready, at=parts[0].at[:3])]
    assert held_out(tiny)[0][0].at is tiny[0].at  # too few to hold any out


def test_a_share_of_origins_is_always_the_same() -> None:
    made = view(rows=900)
    own = SensorForecast().derive(made.line, made)
    every = list(series.read(made, own))
    parts = training(every, own, scales(every, own, 1))
    first, second = drawn(parts, 0.25)[0].at, drawn(parts, 0.25)[0].at
    assert first.tolist() == second.tolist()
    assert 0.1 * len(parts[0].at) < len(first) < 0.4 * len(parts[0].at)


def test_samples_hold_the_past_and_what_is_known_of_the_future() -> None:
    made = view(rows=300)
    task = SensorForecast()
    own = task.derive(made.line, made)
    chunk = next(iter(made.chunks("train")))
    found = task.samples(chunk, own)
    at = 100
    assert found.tensors["window"][at, -1, 2] == np.float32(chunk["y0"][at])
    np.testing.assert_allclose(
        found.tensors["future"][at, :, 0], chunk["warm"][at + 1 : at + 7], rtol=1e-6
    )
    np.testing.assert_allclose(found.truth[at], chunk["y0"][at + 1 : at + 7], rtol=1e-6)
    assert np.isnan(found.tensors["window"][0, 0]).all()
    assert np.isnan(found.label).all()
    empty = task.samples({n: c[:0] for n, c in chunk.items()}, own)
    assert empty.tensors["window"].shape == (0, 48, 3)
