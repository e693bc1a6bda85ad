"""From a name to a device: here, probed, of the catalogue; and what each of them can do."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from genba.core.line import Limits
from genba.core.problem import Problem
from genba.core.values import Measure
from genba.engines.onnxruntime import OnnxRuntime
from genba.targets import registry
from genba.targets.cataloged import Entry, catalog_names, cataloged, entry
from genba.targets.devices import CatalogedDevice, ProbedDevice
from genba.targets.limits import exceeded
from genba.targets.profile import MeterReading, Number, Profile, with_meter, write_profile
from genba.targets.registry import as_target, open_target, target_names, unprobed
from genba.testing.checks import CheckFailed
from genba.testing.graphs import small_batch, small_graph
from genba.testing.targets import check_target, target_checks

#: A device that is this machine behind a command; it finds Genba where this process does.
THERE = ("env", f"PYTHONPATH={Path(__file__).parents[2]}")
FP32 = {"precision": "float32", "threads": 1}


def probed(name: str, **changes: Any) -> Profile:
    known = unprobed("this-machine")
    said = {f: getattr(known, f) for f in known.__dataclass_fields__}
    there = {"reach": THERE, "python": sys.executable}
    return Profile(**{**said, "name": name, **there, **changes})


class TestOpening:
    def test_here(self, tmp_path: Path) -> None:
        found = open_target("this-machine", tmp_path)
        assert (found.name, found.reach, found.measurable) == ("this-machine", (), True)
        assert found.profile.rates == ()
        assert found.profile.cores == found.facts()["cores"]

    def test_a_probed_device_wins_over_the_catalogue(self, tmp_path: Path) -> None:
        assert isinstance(open_target("raspberry-pi-5", tmp_path), CatalogedDevice)
        write_profile(tmp_path, probed("raspberry-pi-5"))
        found = open_target("raspberry-pi-5", tmp_path)
        assert isinstance(found, ProbedDevice)
        assert (found.reach, found.measurable) == (THERE, True)
        assert target_names(tmp_path)["raspberry-pi-5"] == "probed"
        assert target_names(tmp_path)["raspberry-pi-4"] == "catalog"
        assert target_names(tmp_path)["this-machine"] == "here"

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("jetson-orin-nana", "jetson-orin-nano"),
            ("this-mashine", "this-machine"),
            ("../targets/line7", None),
            ("", None),
        ],
    )
    def test_an_unknown_name_is_refused_with_the_nearest(
        self, tmp_path: Path, name: str, near: str | None
    ) -> None:
        with pytest.raises(Problem) as caught:
            open_target(name, tmp_path)
        assert caught.value.code == "G612"
        assert caught.value.tries[0] == f'device = "{near or "this-machine"}"'
        assert (f"did you mean {near}?" in caught.value.what) is (near is not None)

    def test_a_home_carried_to_another_machine_forgets_its_profile(self, tmp_path: Path) -> None:
        write_profile(tmp_path, probed("this-machine", processor="Another", reach=()))
        assert open_target("this-machine", tmp_path).profile.processor != "Another"
        write_profile(tmp_path, probed("this-machine", probed_s=7.0, reach=()))
        assert open_target("this-machine", tmp_path).profile.probed_s == 7.0

    def test_an_altered_profile_is_refused_not_passed_over(self, tmp_path: Path) -> None:
        path = write_profile(tmp_path, probed("raspberry-pi-5"))
        path.write_text(path.read_text().replace("cores = ", "cores = 1"))
        with pytest.raises(Problem) as caught:
            open_target("raspberry-pi-5", tmp_path)
        assert caught.value.code == "G616"


class Bare:
    """A device of another package, which knows nothing of profiles."""

    def __init__(self, **measures: Measure) -> None:
        self._measures = measures

    def facts(self) -> dict[str, Any]:
        return {"processor": "bare", "cores": 1, "memory_mib": 64}

    def measure(self, engine: Any, tensors: Any) -> dict[str, Measure]:
        return dict(self._measures)

    def fits(self, measures: Any, limits: Any) -> tuple[str, ...]:
        return ()


class TestEnergyOfADevice:
    CPU = Measure(value=2.0, unit="ms")
    MODELLED = Measure(value=10.0, unit="mJ", method="modelled")
    METER = MeterReading(idle_w=10.0, full_w=20.0, accuracy=0.01, dated="2026-11-23")

    def measured(self, profile: Profile, **measures: Measure) -> dict[str, Measure]:
        target = as_target(Bare(**measures), "bare", profile)
        engine: Any = None
        return dict(target.measure(engine, {}))

    def test_a_meter_that_was_read_beats_an_assumption(self) -> None:
        plain = unprobed("bare")
        metered = with_meter(plain, self.METER)
        both = {"cpu_ms": self.CPU, "energy_mj": self.MODELLED}
        assert self.measured(plain, **both)["energy_mj"] == self.MODELLED
        found = self.measured(metered, **both)["energy_mj"]
        assert found.method == "estimated"
        assert found.value == pytest.approx(2.0 * 10.0 / plain.cores)
        facts = as_target(Bare(), "bare", metered).facts()
        assert facts["external_meter"]["full_w"] == 20.0

    def test_a_counter_beats_a_meter_and_nothing_is_made_up(self) -> None:
        metered = with_meter(unprobed("bare"), self.METER)
        counted = Measure(value=3.0, unit="mJ")
        both = {"cpu_ms": self.CPU, "energy_mj": counted}
        assert self.measured(metered, **both)["energy_mj"] == counted
        assert "energy_mj" not in self.measured(metered, cpu_ms=self.CPU)


class TestProbed:
    def test_an_engine_is_measured_in_a_process_over_there(self) -> None:
        device = ProbedDevice(probed("line7"), seconds=0.02)
        found = device.measure(OnnxRuntime(small_graph(), FP32), small_batch(20))
        assert found["latency_ms_p99"].value > 0
        assert found["energy_mj"].method in ("modelled", "measured")
        assert device.facts()["known_from"] == "measured"
        assert device.fits(found, Limits(latency_ms_p99=1e-9))

    def test_an_engine_that_cannot_be_made_again_is_refused(self) -> None:
        class Sealed:
            name = "sealed"

        engine: Any = Sealed()
        with pytest.raises(Problem) as caught:
            ProbedDevice(probed("line7")).measure(engine, small_batch(2))
        assert caught.value.code == "G617"

    def test_a_device_that_is_gone_says_so(self) -> None:
        device = ProbedDevice(probed("line7", reach=("sh", "-c", "exit 3", "sh")))
        with pytest.raises(Problem) as caught:
            device.measure(OnnxRuntime(small_graph(), FP32), small_batch(2))
        assert caught.value.code == "G628"


class TestCatalogue:
    @pytest.mark.parametrize("name", catalog_names())
    def test_every_number_has_a_source_and_says_how_far_to_trust_it(self, name: str) -> None:
        found = entry(name)
        assert found.name == name
        assert found.number("cores") is not None
        for number in found.numbers:
            assert number.source
            assert number.status in ("seen", "memory")
            if number.status == "seen":
                assert "https://" in number.source
        assert len({number.name for number in found.numbers}) == len(found.numbers)

    @pytest.mark.parametrize("name", catalog_names())
    def test_rates_are_bands_below_what_is_promised(self, name: str) -> None:
        profile, found = cataloged(name), entry(name)
        clock, wide = found.needed("clock_mhz").value, found.needed("fp32_flops_per_cycle").value
        peak = clock * wide / 1000
        one = profile.rate("gemm", "fp32")
        assert one is not None
        assert 0 < one.low < one.value < one.high <= peak * 1.001
        all_cores = profile.rate("gemm", "fp32", threads=int(profile.cores))
        assert all_cores is not None
        assert all_cores.value == pytest.approx(one.value * int(profile.cores))
        memory = profile.rate("memory", "fp32")
        assert memory is not None
        assert memory.low <= memory.value <= memory.high
        assert memory.high <= found.needed("memory_gb_per_s").value
        calls = profile.rate("call", "fp32", engine="onnxruntime")
        assert calls is not None
        assert 5_000 < calls.low < calls.value < calls.high < 300_000
        watts = profile.watts_per_core
        assert watts is not None
        assert 0 < watts.low < watts.value < watts.high < 20

    def test_a_card_computes_more_than_its_host(self) -> None:
        h100 = cataloged("nvidia-h100")
        card, host = h100.rate("gemm", "bf16", on="gpu"), h100.rate("gemm", "fp32")
        assert card is not None
        assert host is not None
        assert card.value > 1000 * host.value
        assert h100.rate("gemm", "bf16") is None
        assert cataloged("raspberry-pi-5").rate("gemm", "fp16", on="gpu") is None

    def test_the_weakest_number_says_how_a_rate_is_known(self) -> None:
        l4 = cataloged("nvidia-l4")
        card, host = l4.rate("gemm", "fp32", on="gpu"), l4.rate("gemm", "fp32")
        assert card is not None
        assert host is not None
        assert (card.status, host.status) == ("seen", "memory")

    def test_what_every_device_needs_is_missed_by_name(self) -> None:
        bare = Entry(
            name="bare", description="", processor="", architecture="", dated="", numbers=()
        )
        with pytest.raises(AssertionError, match="bare has no cores"):
            bare.needed("cores")


class TestContract:
    def test_probed_and_cataloged_devices_keep_it(self, tmp_path: Path) -> None:
        write_profile(tmp_path, probed("line7"))
        for name in ("line7", "nvidia-l4"):
            assert [r for r in check_target(name, tmp_path) if not r.passed] == []

    def fails(self, monkeypatch: pytest.MonkeyPatch, device: Any, title: str) -> None:
        monkeypatch.setattr("genba.testing.targets.open_target", lambda *_: device)
        with pytest.raises(CheckFailed):
            target_checks("any")[title]()

    def test_a_description_that_measures_is_caught(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Boastful(CatalogedDevice):
            def measure(self, engine: Any, tensors: Any) -> Any:
                return {}

        device = Boastful(cataloged("nvidia-l4"))
        self.fails(monkeypatch, device, "does not measure what is not there")

    @pytest.mark.parametrize(
        "number",
        [
            Number(name="cores", value=4, status="seen", source="somewhere"),
            Number(name="cores", value=4, status="measured", source="https://here"),
            Number(name="cores", value=4, status="memory", source=""),
        ],
    )
    def test_a_number_without_a_source_is_caught(
        self, monkeypatch: pytest.MonkeyPatch, number: Number
    ) -> None:
        good = cataloged("nvidia-l4")
        said = {f: getattr(good, f) for f in good.__dataclass_fields__}
        device = CatalogedDevice(Profile(**{**said, "numbers": (number,)}))
        self.fails(monkeypatch, device, "says where every number is from")

    def test_a_rate_that_is_senseless_is_caught(self, monkeypatch: pytest.MonkeyPatch) -> None:
        good = cataloged("nvidia-l4")
        said = {f: getattr(good, f) for f in good.__dataclass_fields__}
        rate = good.rates[0]
        wrong = type(rate)(
            **{f: getattr(rate, f) for f in rate.__dataclass_fields__} | {"low": math.nan}
        )
        device = CatalogedDevice(Profile(**{**said, "rates": (wrong,)}))
        self.fails(monkeypatch, device, "has a profile that reads back")


def test_limits_are_refused_worst_first() -> None:
    measures = {"memory_mib": Measure(value=90.0, unit="MiB")}
    limits = Limits(memory_mib=60, latency_ms_p99=1, energy_mj=2)
    first, *rest = exceeded("pi", measures, limits)
    assert first == "memory_mib is 90 MiB; pi allows 60 MiB (50 % too much)."
    assert rest == [
        "latency_ms_p99 could not be measured; pi allows 1 ms.",
        "energy_mj could not be measured; pi allows 2 mJ.",
    ]
    assert "20 times as much" in exceeded("pi", measures, Limits(memory_mib=4.5))[0]


def test_this_machine_is_described_once() -> None:
    registry.unprobed.cache_clear()
    assert unprobed("this-machine") is unprobed("this-machine")
