"""Energy counters against a made-up /sys and a made-up NVML, on a clock turned by hand."""

import ctypes
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.edge import counters, timing
from genba.edge.counters import Count, Metered, Nvml, Rapl, find_counter
from genba.engines.onnxruntime import OnnxRuntime
from genba.testing.graphs import small_batch, small_graph

ZONES = "sys/class/powercap"


class Machine:
    """A machine that draws what a test says, with a clock that only `wait` moves."""

    def __init__(self, root: Path, *, range_uj: int = 262_143_328_850) -> None:
        self.root, self.now, self.uj, self.own = root, 1000.0, 5_000_000, 2.0
        self.others_busy = 0.0
        self.range_uj = range_uj
        self.add("intel-rapl:0", "package-0")
        (root / "proc").mkdir()
        self.write()

    def add(self, zone: str, name: str) -> None:
        folder = self.root / ZONES / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{self.range_uj}\n")
        (folder / "energy_uj").write_text("5000000\n")

    def write(self) -> None:
        (self.root / ZONES / "intel-rapl:0/energy_uj").write_text(f"{self.uj % self.range_uj}\n")
        busy = round((self.own + self.others_busy) * 100)
        (self.root / "proc/stat").write_text(f"cpu  {busy} 0 0 999999 5 0 0 0\ncpu0 1 2 3\n")

    def wait(self, seconds: float, *, watts: float = 10.0, own: float = 0.0) -> None:
        self.now += seconds
        self.uj += round(watts * seconds * 1e6)
        self.own += own
        self.write()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(time, "process_time", lambda: made.own)
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    return made


def between(counter: Any, machine: Machine, seconds: float, **how: float) -> float | None:
    before = counter.read()
    machine.wait(seconds, **how)
    found: float | None = counter.joules(before, counter.read())
    return found


class TestRapl:
    def test_joules_are_the_difference(self, machine: Machine) -> None:
        assert between(Rapl(machine.root), machine, 2.0, watts=30.0) == pytest.approx(60.0)

    def test_a_counter_that_begins_again_is_followed(self, machine: Machine) -> None:
        machine.uj = machine.range_uj - 1_000_000
        machine.write()
        assert between(Rapl(machine.root), machine, 2.0, watts=30.0) == pytest.approx(60.0)

    def test_a_counter_that_may_have_begun_again_twice_tells_nothing(
        self, machine: Machine
    ) -> None:
        assert between(Rapl(machine.root), machine, 3600.0) is None

    def test_memory_beside_the_package_counts_and_cores_inside_it_do_not(
        self, machine: Machine
    ) -> None:
        machine.add("intel-rapl:0:0", "core")
        machine.add("intel-rapl:0:1", "dram")
        machine.add("intel-rapl:1", "psys")
        rapl = Rapl(machine.root)
        before = rapl.read()
        assert len(before.counts) == 2
        (machine.root / ZONES / "intel-rapl:0:1/energy_uj").write_text("7000000\n")
        assert rapl.joules(before, rapl.read()) == pytest.approx(2.0)

    def test_without_a_readable_counter_there_is_none(self, tmp_path: Path) -> None:
        assert find_counter(root=tmp_path) is None
        folder = tmp_path / ZONES / "intel-rapl:0"
        folder.mkdir(parents=True)
        (folder / "name").write_text("package-0")  # but energy_uj belongs to root
        assert find_counter(root=tmp_path) is None
        (folder / "energy_uj").write_text("12")
        assert find_counter(root=tmp_path) is not None


class TestMetered:
    def meter(self, machine: Machine) -> Metered:
        return Metered(Rapl(machine.root), sleep=machine.wait)

    def test_idling_is_taken_off(self, machine: Machine) -> None:
        meter = self.meter(machine)
        found = meter.per_row(lambda: machine.wait(0.1, watts=35.0, own=0.1))
        assert found is not None
        assert found.value == pytest.approx(2500.0)  # 25 W for 0.1 s
        assert found.method == "measured"
        assert found.unit == "mJ"
        assert found.high == pytest.approx(3500.0 * 1.05)  # all of it, idling included
        assert found.low == pytest.approx(2500.0 * 0.95)

    def test_rows_of_a_call_share_its_energy(self, machine: Machine) -> None:
        found = self.meter(machine).per_row(lambda: machine.wait(0.1, watts=35.0, own=0.1), 10)
        assert found is not None
        assert found.value == pytest.approx(250.0)
        assert found.n == 40

    def test_what_others_did_meanwhile_widens_the_band_only_downwards(
        self, machine: Machine
    ) -> None:
        def call() -> None:
            machine.others_busy += 0.3
            machine.wait(0.1, watts=35.0, own=0.1)

        found = self.meter(machine).per_row(call)
        assert found is not None
        assert found.value == pytest.approx(2500.0)
        assert found.low == pytest.approx(2500.0 * 0.95 / 4)

    def test_idling_is_asked_once_a_minute(self, machine: Machine) -> None:
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            machine.wait(seconds)

        meter = Metered(Rapl(machine.root), sleep)
        for _ in range(3):
            meter.per_row(lambda: machine.wait(0.5, watts=20.0, own=0.5))
        assert len(slept) == 1
        machine.wait(70.0)
        meter.per_row(lambda: machine.wait(0.5, watts=20.0, own=0.5))
        assert len(slept) == 2

    def test_a_call_that_takes_less_than_idling_is_not_negative(self, machine: Machine) -> None:
        found = self.meter(machine).per_row(lambda: machine.wait(0.2, watts=5.0, own=0.2))
        assert found is not None
        assert found.value == 0.0

    def test_a_counter_that_stands_still_tells_nothing(self, machine: Machine) -> None:
        assert self.meter(machine).per_row(lambda: machine.wait(0.2, watts=0.0)) is None

    def test_a_window_too_long_for_the_counter_tells_nothing(self, machine: Machine) -> None:
        assert self.meter(machine).per_row(lambda: machine.wait(200.0)) is None
        asleep = Metered(Rapl(machine.root), lambda _: machine.wait(3600.0))
        assert asleep.per_row(lambda: machine.wait(0.2)) is None


class Library:
    """NVML of two cards."""

    def __init__(self, counts: list[int], answer: int = 0) -> None:
        self.counts, self.answer = counts, answer

    def nvmlInit_v2(self) -> int:
        return self.answer

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self.counts)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = index + 1
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
        value._obj.value = self.counts[handle.value - 1]
        return 0


class TestNvml:
    def test_cards_are_summed_in_millijoules(self) -> None:
        library = Library([1_000, 50_000])
        nvml = Nvml(library)
        before = nvml.read()
        library.counts = [3_500, 51_000]
        assert nvml.joules(before, nvml.read()) == pytest.approx(3.5)

    def test_a_driver_loaded_anew_tells_nothing(self) -> None:
        library = Library([5_000])
        nvml = Nvml(library)
        before = nvml.read()
        library.counts = [10]
        assert nvml.joules(before, nvml.read()) is None

    def test_a_library_that_fails_is_no_counter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(OSError, match="999"):
            Nvml(Library([1], answer=999))
        monkeypatch.setattr(ctypes, "CDLL", lambda _: Library([1], answer=9))
        assert find_counter("gpu") is None
        monkeypatch.setattr(ctypes, "CDLL", lambda _: Library([1]))
        found = find_counter("gpu")
        assert found is not None
        assert (found.method, found.scope) == ("nvml_counter", "device")


class _Steady:
    """A counter of a machine that draws 10 W, and 20 W more while anything is called."""

    method, scope, window_s = "rapl", "machine", 0.02

    def read(self) -> Count:
        now = time.monotonic()
        return Count(at_s=now, counts=(), busy_s=now, own_s=now)

    def joules(self, before: Count, after: Count) -> float:
        return 10.0 * (after.at_s - before.at_s)


def test_an_engine_is_measured_with_its_energy_where_there_is_a_counter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = OnnxRuntime(small_graph(), {"precision": "float32"})
    use = timing.Use(seconds=0.01)
    tensors = {name: np.asarray(tensor) for name, tensor in small_batch(20).items()}
    places: list[str] = []
    monkeypatch.setattr(timing, "metered", lambda place: places.append(place))
    assert "energy_mj" not in timing.timings(engine, tensors, use)
    steady: Any = _Steady()
    monkeypatch.setattr(timing, "metered", lambda _: Metered(steady, lambda _: None))
    found = timing.timings(engine, tensors, use)["energy_mj"]
    assert found.method == "measured"
    assert found.high is not None
    assert found.high > 0
    accelerated: Any = engine
    accelerated.place = "gpu"
    monkeypatch.setattr(timing, "metered", lambda place: places.append(place))
    timing.timings(accelerated, tensors, use)
    assert places == ["cpu", "gpu"]


def test_a_machine_without_counters_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counters.metered.cache_clear()
    looked: list[str] = []
    monkeypatch.setattr(counters, "find_counter", looked.append)
    assert counters.metered() is counters.metered() is None
    assert counters.metered("gpu") is None
    assert looked == ["cpu", "gpu"]
    counters.metered.cache_clear()
