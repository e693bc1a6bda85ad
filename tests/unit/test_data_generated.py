import numpy as np
import polars as pl
import pytest

from genba.core.line import Data
from genba.core.problem import Problem
from genba.data.sources import bearings
from genba.data.sources.generated import GeneratedSource
from genba.testing.sources import check_source

DATA = Data(source="generated:bearings")


def rows(address: str) -> pl.DataFrame:
    batches = GeneratedSource(address, DATA).batches()
    return pl.concat([pl.DataFrame(batch) for batch, _ in batches])


def test_it_keeps_the_contract_of_a_source() -> None:
    results = check_source("generated")
    assert [r for r in results if not r.passed] == []


def test_it_says_that_it_is_generated_and_how() -> None:
    facts = GeneratedSource("bearings?units=3", DATA).facts()
    assert facts.generated
    assert "never existed" in facts.attribution
    assert facts.bytes > 0


def test_another_seed_is_another_fleet_with_other_names() -> None:
    one, other = rows("bearings?units=3"), rows("bearings?units=3&seed=1")
    assert not set(one["bearing"]) & set(other["bearing"])
    facts = [GeneratedSource(f"bearings?units=3&seed={n}", DATA).facts() for n in (0, 1)]
    assert facts[0].fingerprint != facts[1].fingerprint


def test_a_bearing_is_the_same_whichever_others_run() -> None:
    few, more = rows("bearings?units=12"), rows("bearings?units=25")
    assert few.equals(more.filter(pl.col("bearing").is_in(few["bearing"].unique().to_list())))


def test_lives_are_of_a_plausible_length_and_end_in_failure() -> None:
    lives = [bearings.live(0, n) for n in range(1, 121)]
    cycles = np.array([life.cycles for life in lives])
    assert 130 < np.quantile(cycles, 0.05) < np.median(cycles) < np.quantile(cycles, 0.95) < 400
    assert cycles.std() > 30
    for life in lives:
        assert life.spall[-1] >= 1.0
        assert (life.spall[:-1] < 1.0).all()
        assert (np.diff(life.spall) >= 0).all()


def test_wear_is_in_the_readings_but_not_in_what_is_set() -> None:
    frame = rows("bearings?units=40")
    ends = frame.group_by("bearing").agg(pl.col("cycle").max().alias("end"))
    frame = frame.join(ends, on="bearing").with_columns(left=pl.col("end") - pl.col("cycle"))
    near, far = frame.filter(pl.col("left") < 5), frame.filter(pl.col("left") > 120)

    def apart(name: str) -> float:
        new, old = far[name].drop_nulls().to_numpy(), near[name].drop_nulls().to_numpy()
        return float((old.mean() - new.mean()) / new.std())

    for name in ("vibration_rms", "temperature_c", "ultrasound_db", "debris"):
        assert apart(name) > 0.5, name
    for name in ("load_kn", "speed_rpm"):  # a little: bearings fail while they run heavy
        assert abs(apart(name)) < 0.8
    assert set(far["load_kn"].round(0).unique()) >= {4.0, 7.0, 10.0}


def test_readings_are_missing_now_and_then() -> None:
    frame = rows("bearings?units=40")
    share = frame["vibration_rms"].null_count() / len(frame)
    assert 0.005 < share < 0.1
    assert frame["load_kn"].null_count() == 0
    assert frame["cycle"].min() == 1


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("bearing", "G240"),
        ("Bearings!", "G240"),
        ("bearings?units=0", "G241"),
        ("bearings?units=many", "G241"),
        ("bearings?size=3", "G241"),
        ("bearings?seed", "G241"),
    ],
)
def test_addresses_that_mean_nothing(address: str, code: str) -> None:
    with pytest.raises(Problem) as caught:
        GeneratedSource(address, DATA)
    assert caught.value.code == code
    assert caught.value.tries
