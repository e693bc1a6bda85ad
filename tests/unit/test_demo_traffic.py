"""Recorded months become live samples: everything the turbines reported, in order, with books."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genba.core.resolve import resolve
from genba.store.home import Store
from genba.testing.generated import ingest_line
from genba.ui.demo.plan import Plan
from genba.ui.demo.traffic import Traffic, load_traffic
from tests.farm import TURBINES, farm_line, write_farm

SINCE, UNTIL = "2024-03-01T00:00:00Z", "2024-03-21T00:00:00Z"
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety days; of the later ones, a sensor broke for two days and rows were logged twice."""
    path = tmp_path_factory.mktemp("farm") / "farm.csv"
    write_farm(path, 90)
    rows = pl.read_csv(path)
    later = rows["time"] >= SINCE
    broken = later & (rows["turbine"] == "T1") & (rows["time"] < "2024-03-03")
    rows = rows.with_columns(air=pl.when(broken).then(-273.2).otherwise(pl.col("air")))
    pl.concat([rows, rows.filter(later).head(5)]).write_csv(path)
    return path


@pytest.fixture(scope="module")
def plan(records: Path) -> Plan:
    return Plan(line=farm_line(records), train_until=SINCE, live_until=UNTIL, entities=("T1", "T2"))


@pytest.fixture(scope="module")
def settings(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Store.open(tmp_path_factory.mktemp("home")) as store:
        view = ingest_line(plan.early, store)
        assert view.sheet()["rows"]["kept"] == 2 * 60 * 24, "the model learns from the plan's part"
        derived: dict[str, Any] = resolve("task", plan.line.task)().derive(plan.early, view)
    return derived


@pytest.fixture(scope="module")
def traffic(plan: Plan, settings: dict[str, Any]) -> Traffic:
    return load_traffic(plan.early, settings, plan.train_until, plan.live_until)


def test_it_is_all_there_in_the_order_of_time(traffic: Traffic) -> None:
    hours = 20 * 24
    assert len(traffic) == 3 * hours
    assert sorted(set(traffic.entity)) == sorted(TURBINES), "also who was not trained on"
    assert np.all(np.diff(traffic.time) >= 0)
    moments = np.unique(traffic.time)
    assert len(moments) == hours, "what was logged twice is sent once"
    assert written(moments[0]) == SINCE
    assert moments[-1] == moments[0] + (hours - 1) * HOUR_MS
    together = [e for e, t in zip(traffic.entity, traffic.time, strict=True) if t == moments[0]]
    assert together == sorted(TURBINES)


def test_the_last_row_of_a_sample_is_the_record_itself(
    traffic: Traffic, settings: dict[str, Any], records: Path
) -> None:
    at = next(i for i, name in enumerate(traffic.entity) if name == "T3")
    rows = pl.read_csv(records).filter(turbine="T3", time=written(traffic.time[at]))
    wanted = [rows[name].item() for name in settings["sensors"]]
    assert traffic.window[at, -1] == pytest.approx(wanted, abs=1e-3)


def test_a_broken_sensor_is_sent_as_it_was_read(traffic: Traffic, settings: dict[str, Any]) -> None:
    air = traffic.window[:, -1, settings["sensors"].index("air")]
    broken = {e for e, value in zip(traffic.entity, air, strict=True) if value < -200}
    assert broken == {"T1"}


def test_the_books_are_of_the_whole_farm(traffic: Traffic, records: Path) -> None:
    rows = pl.read_csv(records).filter(pl.col("time") >= written(traffic.time[0]))
    lost = set(rows.filter(pl.col("loss_kwh") > 0)["time"])
    assert {written(time) for time in traffic.time[traffic.loss]} == {t for t in lost if t < UNTIL}
    assert {written(time) for time in traffic.time[~traffic.loss]}.isdisjoint(lost)
    assert 0 < traffic.loss.mean() < 0.5


def written(time_ms: int) -> str:
    return f"{np.datetime64(int(time_ms), 'ms').astype('datetime64[s]')}Z"
