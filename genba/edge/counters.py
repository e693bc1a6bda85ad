"""Energy counters that a device can read: RAPL of its processor, NVML of its accelerator.

A counter covers the whole processor or card, other programs and idling with it. What one
prediction takes is the difference over many of them, less what the device draws when idle; the
band goes from the share of it that this process had of the busy time, to all of it.

RAPL counts in microjoules, steps about once a millisecond and begins again at `max_energy_range_uj`
(Linux, Documentation/power/powercap). NVML counts in millijoules since the driver was loaded
(nvmlDeviceGetTotalEnergyConsumption). How far a counter itself is off nobody says; 5 % is assumed.
"""

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from genba.core.values import Measure

_ACCURACY: Final = 0.05
_MOST_W: Final = 2000.0  # of one package: a counter that could begin again twice tells nothing
_IDLE_S: Final = 0.3
_IDLE_HOLDS_S: Final = 60.0
_LEAST_CALLS: Final = 3
_BUSY_COLUMNS: Final = (1, 2, 3, 6, 7)  # of /proc/stat: user, nice, system, irq, softirq
_LIBRARY: Final = "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True)
class Count:
    """What the counters said at one moment."""

    at_s: float
    counts: tuple[int, ...]  # as read
    busy_s: float  # CPU seconds of all processes since the machine started
    own_s: float  # of this one


class Counter(Protocol):
    """Something that counts energy."""

    method: ClassVar[str]
    scope: ClassVar[str]
    window_s: ClassVar[float]  # the shortest that it can resolve

    def read(self) -> Count:
        """Read it now."""
        ...

    def joules(self, before: Count, after: Count) -> float | None:
        """Return the energy between two readings, None when they do not tell."""
        ...


class Rapl:
    """The counters of a processor: its packages, and their memory where it has one of its own."""

    method: ClassVar[str] = "rapl"
    scope: ClassVar[str] = "machine"
    window_s: ClassVar[float] = 0.4

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        folders = sorted((root / "sys/class/powercap").glob("intel-rapl*:*"))
        self._zones = [folder for folder in folders if _counts(folder)]
        self._ranges = [_whole(folder / "max_energy_range_uj") or 0 for folder in self._zones]

    @property
    def readable(self) -> bool:
        """Whether there is one and this user may read it."""
        return bool(self._zones)

    def read(self) -> Count:
        """Read every zone now."""
        counts = tuple(_whole(folder / "energy_uj") or 0 for folder in self._zones)
        return _count(counts, self._root)

    def joules(self, before: Count, after: Count) -> float | None:
        """Return the energy between two readings.

        A counter that is lower than before has begun again once. None when so much time passed
        that it may have begun again more often.
        """
        seconds, total = after.at_s - before.at_s, 0
        for first, last, most in zip(before.counts, after.counts, self._ranges, strict=True):
            if most and seconds * _MOST_W * 1e6 > most:
                return None
            total += last - first if last >= first else last - first + most
        return total / 1e6


def _counts(folder: Path) -> bool:
    """Say whether a zone is a package, or memory beside one; cores are inside a package."""
    name = _read(folder / "name")
    return name.startswith(("package", "dram")) and _whole(folder / "energy_uj") is not None


class Nvml:
    """The counters of the NVIDIA accelerators.

    Args:
        library: The library, for tests; the system's when None.

    Raises:
        OSError: When there is none, or it does not answer.
    """

    method: ClassVar[str] = "nvml_counter"
    scope: ClassVar[str] = "device"
    window_s: ClassVar[float] = 1.0

    def __init__(self, library: Any = None) -> None:
        self._nvml = ctypes.CDLL(_LIBRARY) if library is None else library
        _check(self._nvml.nvmlInit_v2())
        count = ctypes.c_uint()
        _check(self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        self._handles = [ctypes.c_void_p() for _ in range(count.value)]
        for index, handle in enumerate(self._handles):
            _check(self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)))
        self.read()

    def read(self) -> Count:
        """Read every accelerator now."""
        found = []
        for handle in self._handles:
            value = ctypes.c_ulonglong()
            _check(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)))
            found.append(value.value)
        return _count(tuple(found), Path("/"))

    def joules(self, before: Count, after: Count) -> float | None:
        """Return the energy between two readings, None when the driver was loaded anew."""
        pairs = zip(before.counts, after.counts, strict=True)
        spent = [last - first for first, last in pairs]
        return sum(spent) / 1e3 if all(each >= 0 for each in spent) else None


def _check(code: int) -> None:
    if code:
        raise OSError(f"NVML answers {code}")


def find_counter(on: str = "cpu", root: Path = Path("/")) -> Counter | None:
    """Return the counter of the processor ("cpu") or the accelerator ("gpu"), None without one."""
    if on == "gpu":
        try:
            return Nvml()
        except (OSError, AttributeError):
            return None
    rapl = Rapl(root)
    return rapl if rapl.readable else None


@cache
def metered(on: str = "cpu") -> "Metered | None":
    """Return what measures the energy of calls, None where nothing counts it.

    Args:
        on: "cpu", or "gpu" for an engine that computes on an accelerator.
    """
    counter = find_counter(on)
    return None if counter is None else Metered(counter)


class Metered:
    """Energy of calls by a counter.

    Args:
        counter: What to read.
        sleep: Waits so many seconds; tests give their own.
    """

    def __init__(self, counter: Counter, sleep: Callable[[float], None] = time.sleep) -> None:
        self._counter, self._sleep = counter, sleep
        self._idle: tuple[float, float] | None = None  # watts, and when

    def per_row(self, call: Callable[[], object], rows: int = 1) -> Measure | None:
        """Return the energy of one row in millijoules, without idling.

        Args:
            call: What is measured, many times over.
            rows: How many rows a call has.

        Returns:
            `value` is all of the energy less idling; `low` the part of it that is this process's
            by its share of the busy time; `high` all of it, idling and other programs included.
            None when the counter does not tell.
        """
        idle_w = self._idle_watts()
        before, calls = self._counter.read(), 0
        while calls < _LEAST_CALLS or time.monotonic() - before.at_s < self._counter.window_s:
            call()
            calls += 1
        after = self._counter.read()
        total = self._counter.joules(before, after)
        if total is None or idle_w is None or total <= 0:
            return None
        net = max(0.0, total - idle_w * (after.at_s - before.at_s))
        busy, own = after.busy_s - before.busy_s, after.own_s - before.own_s
        share = min(1.0, own / busy) if busy > 0 else 1.0
        each = 1e3 / (calls * rows)
        return Measure(
            value=net * each,
            unit="mJ",
            low=net * share * (1 - _ACCURACY) * each,
            high=total * (1 + _ACCURACY) * each,
            method="measured",
            n=calls * rows,
        )

    def _idle_watts(self) -> float | None:
        """Return what it draws while this process sleeps; asked again after a minute."""
        now = time.monotonic()
        if self._idle is None or now - self._idle[1] > _IDLE_HOLDS_S:
            before = self._counter.read()
            self._sleep(max(_IDLE_S, self._counter.window_s))
            after = self._counter.read()
            total = self._counter.joules(before, after)
            if total is None:
                return None
            self._idle = (total / max(after.at_s - before.at_s, 1e-9), now)
        return self._idle[0]


def _count(counts: tuple[int, ...], root: Path) -> Count:
    first = _read(root / "proc/stat").partition("\n")[0].split()
    ticks = sum(int(first[i]) for i in _BUSY_COLUMNS if i < len(first))
    return Count(
        at_s=time.monotonic(),
        counts=counts,
        busy_s=ticks / os.sysconf("SC_CLK_TCK"),
        own_s=time.process_time(),
    )


def _whole(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
