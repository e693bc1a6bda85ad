import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.digest import canonical_json
from genba.core.line import Limits
from genba.core.problem import Problem
from genba.core.values import Measure
from genba.edge import timing
from genba.engines.onnxruntime import OnnxRuntime
from genba.targets import cost, measure
from genba.targets.cost import bill, energy_mj, read_device, read_prices
from genba.targets.local import ThisMachine
from genba.targets.probe import Machine, fingerprint, probe
from genba.testing.faults import FaultyEngine
from genba.testing.graphs import small_batch, small_graph

F32 = {"precision": "float32"}


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CPU = "processor: 0\nmodel name\t: Test CPU\nflags\t: fpu avx2 avx512f amx_bf16\n"
MEMORY = "MemTotal:       8388608 kB\nMemFree: 1 kB\n"


class TestProbe:
    @pytest.fixture(autouse=True)
    def cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))

    def root(self, path: Path, **files: str) -> Path:
        return write(path, proc__cpuinfo=CPU, proc__meminfo=MEMORY, **files)

    def test_without_limits_the_machine_is_what_it_is(self, tmp_path: Path) -> None:
        machine = probe(self.root(tmp_path))
        assert machine.processor == "Test CPU"
        assert machine.cores == 8.0
        assert machine.memory_mib == 8192
        assert machine.instructions == ("avx2", "avx512f", "amx_bf16")

    def test_limits_of_the_new_control_groups_count_the_tightest_of_all_levels(
        self, tmp_path: Path
    ) -> None:
        root = self.root(tmp_path, proc__self__cgroup="0::/a/b\n")
        group = root / "sys/fs/cgroup"
        (group / "a/b").mkdir(parents=True)
        (group / "a/b/cpu.max").write_text("max 100000\n")
        (group / "a/cpu.max").write_text("150000 100000\n")
        (group / "a/b/memory.max").write_text("max\n")
        (group / "memory.max").write_text(f"{512 << 20}\n")
        machine = probe(root)
        assert machine.cores == 1.5
        assert machine.whole_cores == 1
        assert machine.memory_mib == 512

    def test_limits_of_the_old_control_groups_count(self, tmp_path: Path) -> None:
        groups = "5:cpu,cpuacct:/box\n4:memory:/box\n3:freezer:/other\n"
        root = self.root(tmp_path, proc__self__cgroup=groups)
        for name, value in (
            ("cpu/box/cpu.cfs_quota_us", "200000"),
            ("cpu/box/cpu.cfs_period_us", "100000"),
            ("memory/box/memory.limit_in_bytes", str(256 << 20)),
        ):
            path = root / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value)
        machine = probe(root)
        assert (machine.cores, machine.memory_mib) == (2.0, 256)

    def test_a_machine_that_says_nothing_is_still_described(self, tmp_path: Path) -> None:
        machine = probe(tmp_path)
        assert machine.processor
        assert machine.memory_mib == 0
        assert machine.instructions == ()


def test_this_machine_has_a_fingerprint_that_does_not_move() -> None:
    assert fingerprint() == fingerprint()
    assert len(fingerprint()) == 16
    assert isinstance(probe(), Machine)
    assert probe().memory_mib > 0


class TestCost:
    def test_joules_are_cpu_seconds_times_watts_and_say_so(self) -> None:
        made = bill(3600.0, 7200.0)
        watts = read_device("this-machine").watts_per_core
        assert made.joules.value == 7200 * watts.value
        assert (made.joules.low, made.joules.high) == (7200 * watts.low, 7200 * watts.high)
        assert {m.method for m in (made.joules, made.cost_usd, made.carbon_g)} == {"modelled"}
        prices = read_prices()
        assert made.cost_usd.value == prices.money.machine_usd_per_hour.value
        kwh = made.joules.value / 3.6e6
        assert made.carbon_g.value == pytest.approx(kwh * prices.intensity.carbon_g_per_kwh.value)

    @given(st.floats(0, 1e7), st.floats(0, 1e7))
    def test_every_value_lies_in_its_band(self, seconds: float, cpu_seconds: float) -> None:
        made = bill(max(seconds, cpu_seconds / 2), cpu_seconds)
        for found in (made.joules, made.cost_usd, made.carbon_g):
            assert found.low is not None
            assert found.high is not None
            assert found.low <= found.value <= found.high

    def test_tables_have_a_date_and_a_source(self) -> None:
        prices = read_prices()
        for table in (
            prices.watts_per_core,
            prices.money.machine_usd_per_hour,
            prices.money.electricity_usd_per_kwh,
            prices.intensity.carbon_g_per_kwh,
        ):
            assert table.low <= table.value <= table.high
            assert table.dated.startswith("20")
            assert len(table.source) > 20

    def test_a_file_of_ones_own_comes_first_then_the_home(self, tmp_path: Path) -> None:
        shipped = Path(cost.__file__).with_name("prices.toml").read_text()
        own, home = tmp_path / "own.toml", tmp_path / "home"
        own.write_text(shipped.replace("value = 0.0816", "value = 9.0"))
        home.mkdir()
        (home / "prices.toml").write_text(shipped.replace("value = 0.0816", "value = 7.0"))
        at_home = {"GENBA_HOME": str(home)}
        assert read_prices(at_home).money.machine_usd_per_hour.value == 7.0
        both = {**at_home, "GENBA_PRICES": str(own)}
        assert read_prices(both).money.machine_usd_per_hour.value == 9.0
        assert bill(3600, 0, read_prices(both)).cost_usd.value == 9.0

    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        shipped = Path(cost.__file__).with_name("intensity.toml").read_text()
        own = tmp_path / "own.toml"
        environment = {"GENBA_INTENSITY": str(own)}
        for grams in (100.0, 200.0):
            own.write_text(shipped.replace("value = 481.0", f"value = {grams}"))
            os.utime(own, ns=(int(grams), int(grams)))
            assert read_prices(environment).intensity.carbon_g_per_kwh.value == grams

    @pytest.mark.parametrize(
        ("text", "code"),
        [(None, "G606"), ("= no", "G606"), ("x = 1", "G102"), ("", "G103")],
    )
    def test_a_wrong_file_is_a_problem(self, tmp_path: Path, text: str | None, code: str) -> None:
        path = tmp_path / "prices.toml"
        if text is not None:
            path.write_text(text)
        with pytest.raises(Problem) as refused:
            read_prices({"GENBA_PRICES": str(path)})
        assert refused.value.code == code
        assert refused.value.tries

    def test_energy_of_a_time_without_interval_has_the_band_of_the_watts(self) -> None:
        watts = read_device("this-machine").watts_per_core
        assert energy_mj(Measure(value=1.0, unit="ms"), watts).low == watts.low


class _Sleepy:
    """Takes as long as it is told, alternating between rows that it has seen."""

    name = "sleepy"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rows: list[int] = []

    def run(self, tensors: Any) -> dict[str, Any]:
        self.rows.append(len(tensors["x"]))
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        return {"y": tensors["x"]}


class TestMeasure:
    def test_latency_and_cpu_time_are_at_least_what_the_work_takes(self) -> None:
        engine: Any = _Sleepy(0.0002)
        found = measure.timings(engine, {"x": np.zeros((100, 2))}, seconds=0.02)
        assert found["latency_ms_p50"].value >= 0.2
        assert found["latency_ms_p99"].value >= found["latency_ms_p50"].value
        assert found["cpu_ms"].value > 0.1
        assert found["rows_per_s"].value <= timing.BATCH_ROWS / 0.0002
        assert set(engine.rows) == {1, timing.BATCH_ROWS}
        for name in ("latency_ms_p50", "latency_ms_p99", "cpu_ms", "rows_per_s"):
            low, high = found[name].low, found[name].high
            assert low is not None
            assert high is not None
            assert low <= found[name].value <= high
            assert found[name].n
        assert found["load"].value >= 0

    def test_a_slow_engine_is_called_a_few_times_and_few_rows_are_repeated(self) -> None:
        engine: Any = _Sleepy(0.001)
        found = measure.timings(engine, {"x": np.zeros((3, 2))}, seconds=0.001)
        assert found["cpu_ms"].n == 3 * timing.REPEATS

    def test_an_engine_that_takes_long_is_not_given_large_batches(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(timing, "_BATCH_S", 0.01)
        monkeypatch.setattr(timing, "_WARM_UP_S", 0.001)
        engine: Any = _Sleepy(0.001)
        measure.timings(engine, {"x": np.zeros((3, 2))}, seconds=0.001)
        assert 1 < max(engine.rows) <= 10
        singles = engine.rows.index(max(engine.rows))
        assert singles < 10 * timing.REPEATS + 10  # the warm-up ended early


class TestThisMachine:
    machine = ThisMachine(seconds=0.03)

    def test_facts_are_json(self) -> None:
        facts = self.machine.facts()
        canonical_json(facts)
        assert facts["name"] == "this-machine"

    def test_memory_is_measured_in_another_process_and_grows_with_the_graph(self) -> None:
        found = self.machine.measure(OnnxRuntime(small_graph(), F32), small_batch(70))
        assert 5 < found["memory_mib"].value < 500
        assert found["energy_mj"].method == "modelled"
        assert found["energy_mj"].value == pytest.approx(5 * found["cpu_ms"].value)

    def test_an_engine_that_cannot_be_made_again_has_no_memory_and_does_not_fit(self) -> None:
        engine: Any = _Sleepy(0.0)
        found = self.machine.measure(engine, {"x": np.zeros((100, 2))})
        assert "memory_mib" not in found
        misses = self.machine.fits(found, Limits(memory_mib=100))
        assert len(misses) == 1
        assert "could not be measured" in misses[0]

    def test_sentences_have_numbers_and_units(self) -> None:
        measures = {"latency_ms_p99": Measure(value=3.0, unit="ms")}
        (sentence,) = self.machine.fits(measures, Limits(latency_ms_p99=2))
        assert sentence == "latency_ms_p99 is 3 ms; this-machine allows 2 ms (50 % too much)."
        (sentence,) = self.machine.fits(measures, Limits(latency_ms_p99=0.01))
        assert sentence.endswith("allows 0.01 ms (300 times as much).")
        assert self.machine.fits(measures, Limits(latency_ms_p99=0))


class TestFaultyEngine:
    def engine(self, **settings: Any) -> FaultyEngine:
        return FaultyEngine(small_graph(), {"engine": "onnxruntime", "settings": F32, **settings})

    def test_it_answers_well_until_it_does_not(self) -> None:
        engine = self.engine(after=5, not_a_number=True)
        assert np.isfinite(engine.run(small_batch(3))["score"]).all()
        found = engine.run(small_batch(4))
        assert np.isnan(found["score"]).tolist() == [False, False, True, True]
        assert found["alarm"].dtype == np.bool_
        assert np.isnan(engine.run(small_batch(2))["score"]).all()
        engine.close()

    def test_it_is_slow_on_demand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr("genba.testing.faults.time.sleep", slept.append)
        engine = self.engine(after=1, delay_ms=40)
        engine.run(small_batch(1))
        assert slept == []
        engine.run(small_batch(1))
        assert slept == [0.04]

    def test_it_is_never_offered_and_refuses_what_it_does_not_know(self) -> None:
        assert list(FaultyEngine.candidates(8)) == []
        assert FaultyEngine.version()
        with pytest.raises(Problem) as refused:
            self.engine(delay=1)
        assert refused.value.code == "G102"
