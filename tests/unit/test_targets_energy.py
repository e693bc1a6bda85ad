"""Joules that say how they are known: never added silently, calibrated by two readings."""

from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.problem import Problem
from genba.core.values import Measure
from genba.targets.cataloged import cataloged
from genba.targets.cost import bill, prices_of, read_prices
from genba.targets.devices import energy_of
from genba.targets.energy import (
    ASSUMED,
    Energy,
    calibrated,
    carbon_g,
    model,
    per_correct,
    together,
    watts_per_core,
)
from genba.targets.profile import MeterReading, with_meter, write_profile
from genba.targets.registry import unprobed
from genba.targets.tables import Assumed

COUNTED = Energy(value=10.0, low=9.5, high=10.5, method="rapl", scope="machine", idle_included=True)


def reading(idle: float, full: float, accuracy: float = 0.02) -> MeterReading:
    return MeterReading(idle_w=idle, full_w=full, accuracy=accuracy, dated="2026-11-23")


class TestAdding:
    def test_what_is_known_in_the_same_way_is_added_with_its_band(self) -> None:
        both = COUNTED + COUNTED.to("mJ")
        assert (both.value, both.low, both.high) == (20.0, 19.0, 21.0)

    @pytest.mark.parametrize(
        "other",
        [
            model(2.0, ASSUMED),
            calibrated(2.0, ASSUMED),
            Energy(value=1, low=1, high=1, method="rapl", scope="process", idle_included=True),
            Energy(value=1, low=1, high=1, method="rapl", scope="machine", idle_included=False),
            Energy(
                value=1, low=1, high=1, method="nvml_counter", scope="device", idle_included=True
            ),
        ],
    )
    def test_what_is_not_is_refused(self, other: Energy) -> None:
        with pytest.raises(Problem) as caught:
            COUNTED + other
        assert caught.value.code == "G619"

    def test_together_keeps_the_parts_and_the_weakest_name(self) -> None:
        mixed = together([COUNTED, model(2.0, ASSUMED), COUNTED, calibrated(1.0, ASSUMED)])
        assert len(mixed.parts) == 3
        assert mixed.joules.method == "modelled"
        assert mixed.joules.value == pytest.approx(35.0)
        assert str(mixed).startswith("35 J [28 to 45] (modelled) = 20 J")
        assert together([COUNTED, calibrated(1.0, ASSUMED)]).joules.method == "estimated"
        assert together([COUNTED, COUNTED]).joules.method == "measured"

    @given(
        seconds=st.lists(st.floats(0.001, 1e4), min_size=1, max_size=6),
        counts=st.lists(st.floats(0.001, 1e4), max_size=6),
    )
    def test_a_sum_is_called_measured_only_if_all_of_it_was(
        self, seconds: list[float], counts: list[float]
    ) -> None:
        parts = [model(s, ASSUMED) for s in seconds] + [COUNTED.scaled(c) for c in counts]
        found = together(parts).joules
        assert found.method == "modelled"
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high


class TestMeter:
    def test_two_readings_tell_the_watts_of_a_core(self) -> None:
        found = watts_per_core(reading(10.0, 30.0), 4)
        assert found.value == 5.0
        assert (found.low, found.high) == pytest.approx((4.8, 5.2))
        assert "10 W idle, 30 W with 4 cores busy" in found.source

    @pytest.mark.parametrize(
        ("idle", "full", "accuracy", "says"),
        [
            (30.0, 30.0, 0.02, "cannot be of one machine"),
            (30.0, 10.0, 0.02, "cannot be of one machine"),
            (-1.0, 10.0, 0.02, "cannot be of one machine"),
            (10.0, 1e6, 0.02, "cannot be of one machine"),
            (float("nan"), 10.0, 0.02, "cannot be of one machine"),
            (10.0, float("nan"), 0.02, "cannot be of one machine"),
            (100.0, 101.0, 0.02, "cannot tell 100 W from 101 W"),
            (10.0, 30.0, 2.0, "is no fraction"),
            (10.0, 30.0, 0.0, "is no fraction"),
            (10.0, 30.0, float("nan"), "is no fraction"),
        ],
    )
    def test_readings_that_tell_nothing_are_refused(
        self, idle: float, full: float, accuracy: float, says: str
    ) -> None:
        with pytest.raises(Problem, match=says) as caught:
            watts_per_core(reading(idle, full, accuracy), 4)
        assert caught.value.code == "G619"

    @given(
        idle=st.floats(0.1, 500), more=st.floats(1, 500), wrong=st.floats(0.001, 0.2),
        cores=st.floats(0.5, 200), off=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    )  # fmt: skip
    def test_the_band_holds_the_truth_however_the_meter_is_off(
        self, idle: float, more: float, wrong: float, cores: float, off: tuple[float, float]
    ) -> None:
        truth = more / cores
        seen = reading(idle / (1 + off[0] * wrong), (idle + more) / (1 + off[1] * wrong), wrong)
        try:
            found = watts_per_core(seen, cores)
        except Problem:
            return  # the meter cannot tell
        assert found.low <= truth * (1 + 1e-9)
        assert found.high >= truth * (1 - 1e-9)

    def test_a_prediction_on_a_metered_device_is_estimated_not_modelled(self) -> None:
        cpu = Measure(value=2.0, unit="ms", low=1.0, high=4.0, n=9)
        plain = unprobed("here")
        assert energy_of(cpu, plain).method == "modelled"
        found = energy_of(cpu, with_meter(plain, reading(10.0, 10.0 + 5 * plain.cores)))
        assert (found.method, found.unit, found.n) == ("estimated", "mJ", 9)
        assert found.value == pytest.approx(10.0)
        assert found.low is not None
        assert found.high is not None
        assert found.low < 5.0
        assert found.high > 20.0

    def test_bills_of_this_machine_use_its_meter(self, tmp_path: Path) -> None:
        assumed = read_prices({"GENBA_HOME": str(tmp_path)})
        assert not assumed.calibrated
        here = unprobed("this-machine")
        path = write_profile(tmp_path, with_meter(here, reading(10.0, 10.0 + 7 * here.cores)))
        metered = read_prices({"GENBA_HOME": str(tmp_path)})
        assert metered.watts_per_core.value == pytest.approx(7.0)
        assert bill(1.0, 2.0, metered).joules.method == "estimated"
        assert bill(1.0, 2.0, assumed).joules.method == "modelled"
        path.write_text(path.read_text().replace("full_w = ", "full_w = 9"))
        altered = read_prices({"GENBA_HOME": str(tmp_path)})
        assert altered.watts_per_core == assumed.watts_per_core


class TestPricesOfADevice:
    HOME: ClassVar[dict[str, str]] = {"GENBA_HOME": "/nowhere"}

    def test_a_device_is_paid_for_over_its_service_and_a_server_by_the_hour(self) -> None:
        nano = prices_of(cataloged("jetson-orin-nano"), self.HOME)
        rent = nano.money.machine_usd_per_hour
        assert rent.value == pytest.approx(249 / (3 * 8766))
        assert (rent.low, rent.high) == (rent.value / 2, rent.value * 2)
        assert nano.watts_per_core == cataloged("jetson-orin-nano").watts_per_core
        assert not nano.calibrated
        assert prices_of(cataloged("nvidia-l4"), self.HOME).money.machine_usd_per_hour.value == 0.8
        assert bill(3600.0, 10.0, nano).cost_usd.value == pytest.approx(rent.value)

    def test_a_probed_device_has_its_meter_and_no_price_of_its_own(self) -> None:
        plain = unprobed("line7")
        usual = read_prices(self.HOME)
        assert prices_of(plain, self.HOME) == usual
        assert prices_of(unprobed("this-machine"), self.HOME) == usual
        metered = with_meter(plain, reading(10.0, 10.0 + 7 * plain.cores))
        found = prices_of(metered, self.HOME)
        assert found.calibrated
        assert found.watts_per_core.value == pytest.approx(7.0)
        assert found.money == usual.money


class TestPerCorrect:
    def test_a_model_that_is_wrong_half_of_the_time_costs_twice(self) -> None:
        found = per_correct(model(1.0, ASSUMED), Measure(value=0.5))
        assert (found.value, found.low, found.high) == (10.0, 6.0, 16.0)

    def test_the_interval_of_the_accuracy_widens_the_band(self) -> None:
        found = per_correct(model(1.0, ASSUMED), Measure(value=0.5, low=0.0, high=1.2))
        assert found.low == 3.0
        assert found.high == float("inf")

    @pytest.mark.parametrize("accuracy", [0.0, -0.1, 1.5, float("nan")])
    def test_an_accuracy_that_is_none_is_refused(self, accuracy: float) -> None:
        with pytest.raises(Problem) as caught:
            per_correct(model(1.0, ASSUMED), Measure(value=accuracy))
        assert caught.value.code == "G619"


def test_carbon_inherits_both_bands() -> None:
    grid = Assumed(value=100.0, low=50.0, high=200.0, dated="2026-11-23", source="test")
    found = carbon_g(COUNTED.scaled(360_000.0), grid)
    assert found.value == pytest.approx(100.0)
    assert (found.unit, found.method) == ("g CO2e", "modelled")
    assert found.low == pytest.approx(47.5)
    assert found.high == pytest.approx(210.0)
