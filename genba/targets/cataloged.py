"""The catalogue of devices: TOML files, each number with its source and how far to trust it.

What a device computes is modelled from its documents: what the makers promise times the share of
it that programs reach. The share is wide, since it is what nobody knows before measuring.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from genba.core.codec import decode
from genba.targets.profile import Kind, Number, Place, Precision, Profile, Rate, Status
from genba.targets.tables import HERE, Assumed

_FOLDER: Final = HERE / "devices"
_HERE: Final = "this-machine"
_MIB_PER_GIB: Final = 1024
_COMPUTES: Final[tuple[Kind, ...]] = ("gemm", "conv", "depthwise")
_PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
#: The share of a promised peak that a network's layers reach: value, low, high. On one core of an
#: AMD EPYC (Zen 5, 2026-11) the probe reached 0.1 of the peak in depthwise convolutions, and 0.4
#: to 0.8 in dense layers at a clock between what is promised and what it rises to.
_REACHED: Final[Mapping[Kind, tuple[float, float, float]]] = {
    "gemm": (0.6, 0.25, 1.0),
    "conv": (0.45, 0.1, 0.9),
    "depthwise": (0.08, 0.01, 0.25),
    "memory": (0.6, 0.3, 1.0),
}
#: Of one core alone: its part among so many, and what its cache lines under way allow at most.
_ALONE: Final = (1.5, 4.0, 25.0)
#: Empty calls that ONNX Runtime makes in a second for each MHz of a core: 269,000 on an AMD EPYC
#: (Zen 5, 2026-11) at some 4,200 MHz. Other cores do less in a cycle: value, low, high of it.
_CALLS_PER_MHZ: Final = 64.0
_AS_WIDE: Final = (0.4, 0.08, 1.0)
_GIGA_PER_TERA: Final = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A device as its TOML describes it."""

    name: str
    description: str
    processor: str
    architecture: str
    dated: str
    numbers: tuple[Number, ...]
    instructions: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()

    def number(self, name: str) -> Number | None:
        """Return one of its numbers, None when it is not known."""
        return next((n for n in self.numbers if n.name == name), None)

    def needed(self, name: str) -> Number:
        """Return a number that every device of the catalogue has."""
        found = self.number(name)
        assert found is not None, f"{self.name} has no {name}"
        return found


@cache
def catalog_names() -> tuple[str, ...]:
    """Return the names of the catalogue.

    Example:
        >>> "raspberry-pi-5" in catalog_names()
        True
    """
    return tuple(sorted(p.stem for p in _FOLDER.glob("*.toml") if p.stem != _HERE))


@cache
def entry(name: str) -> Entry:
    """Return what the catalogue says of a device."""
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return decode(Entry, tomllib.loads(text), where=f"{name}.toml")


@cache
def cataloged(name: str) -> Profile:
    """Return the profile of a device of the catalogue; every rate in it is modelled.

    Example:
        >>> pi = cataloged("raspberry-pi-5")
        >>> rate = pi.rate("gemm", "fp32")
        >>> f"{rate.value:.1f} GFLOP/s [{rate.low:.1f} to {rate.high:.1f}] {rate.status}"
        '23.0 GFLOP/s [9.6 to 38.4] memory'
    """
    found = entry(name)
    cache_mib = found.number("cache_mib")
    return Profile(
        name=found.name,
        source="catalog",
        dated=found.dated,
        description=found.description,
        processor=found.processor,
        architecture=found.architecture,
        cores=found.needed("cores").value,
        memory_mib=round(found.needed("memory_gib").value * _MIB_PER_GIB),
        instructions=found.instructions,
        accelerators=found.accelerators,
        clock_mhz=found.needed("clock_mhz").value,
        cache_mib=cache_mib.value if cache_mib else None,
        rates=(*_cpu_rates(found), *_memory_rates(found), _calls(found), *_gpu_rates(found)),
        watts_per_core=_watts(found),
        numbers=found.numbers,
    )


def _cpu_rates(found: Entry) -> Iterator[Rate]:
    """Yield clock times operations per cycle times the share reached, of one core and of all."""
    clock, cores = found.needed("clock_mhz"), found.needed("cores")
    for precision in _PRECISIONS:
        word = "ops" if precision == "int8" else "flops"
        each = found.number(f"{precision}_{word}_per_cycle")
        if each is None:
            continue
        peak = clock.value / _GIGA_PER_TERA * each.value
        known = _weakest(clock, each)
        for threads in sorted({1, max(1, int(cores.value))}):
            yield from _computing(precision, peak * threads, known, threads, "cpu")


def _calls(found: Entry) -> Rate:
    """Return how often a runtime can be called, which is what small graphs spend their time on."""
    clock = found.needed("clock_mhz")
    value, low, high = (clock.value * _CALLS_PER_MHZ * share for share in _AS_WIDE)
    return Rate(
        kind="call",
        precision="fp32",
        value=value,
        low=low,
        high=high,
        unit="calls/s",
        status=clock.status,
        source=f"{_CALLS_PER_MHZ:g} for each MHz, measured on one other processor, times "
        f"{_AS_WIDE[0]:g}, assumed",
    )


def _gpu_rates(found: Entry) -> Iterator[Rate]:
    for precision in _PRECISIONS:
        word = "tops" if precision == "int8" else "tflops"
        promised = found.number(f"gpu_{precision}_{word}")
        if promised is not None:
            peak = promised.value * _GIGA_PER_TERA
            yield from _computing(precision, peak, promised.status, 1, "gpu")


def _memory_rates(found: Entry) -> Iterator[Rate]:
    whole, cores = found.needed("memory_gb_per_s"), int(found.needed("cores").value)
    value, low, high = _REACHED["memory"]
    least, among, most = _ALONE
    alone = min(value / max(least, cores / among), most / whole.value)
    yield _memory(whole, (alone, alone * low / value, high), 1, "cpu")
    if cores > 1:
        yield _memory(whole, (value, low, high), cores, "cpu")
    # A device without memory of its own for the accelerator shares what it has.
    yield _memory(found.number("gpu_memory_gb_per_s") or whole, (value, low, high), 1, "gpu")


def _memory(number: Number, reached: tuple[float, float, float], threads: int, on: Place) -> Rate:
    value, low, high = (number.value * share for share in reached)
    return Rate(
        kind="memory",
        precision="fp32",
        value=value,
        low=low,
        high=high,
        unit="GB/s",
        threads=threads,
        on=on,
        status=number.status,
        source=f"{reached[0]:.2g} of the promised {number.value:g} GB/s, assumed",
    )


def _computing(
    precision: Precision, peak: float, status: Status, threads: int, on: Place
) -> Iterator[Rate]:
    for kind in _COMPUTES:
        value, low, high = (peak * share for share in _REACHED[kind])
        yield Rate(
            kind=kind,
            precision=precision,
            value=value,
            low=low,
            high=high,
            unit="GFLOP/s",
            threads=threads,
            on=on,
            status=status,
            source=f"{_REACHED[kind][0]:.2g} of a peak of {peak:.4g} GFLOP/s, assumed",
        )


def _weakest(*numbers: Number) -> Status:
    statuses = {number.status for number in numbers}
    return next(s for s in ("memory", "seen", "measured") if s in statuses)


def _watts(found: Entry) -> Assumed:
    """Return what a busy core draws: what the device draws more when busy, by its cores."""
    idle, full = found.needed("watts_idle"), found.needed("watts_full")
    gpu = found.number("gpu_watts_full")
    beside = gpu.value if gpu else 0.0
    each = (full.value - beside - idle.value) / found.needed("cores").value
    return Assumed(
        value=each,
        low=each / 2,
        high=each * 2,
        dated=found.dated,
        source=f"{full.value:g} W busy less {idle.value:g} W idle"
        + (f" and {beside:g} W of the GPU" if gpu else "")
        + f", by cores; {_weakest(idle, full)}, half and twice as much for what is not known",
    )
