"""What a use of a graph costs on a device, term by term, before any correction.

A roofline for each operator (Williams, Waterman and Patterson, "Roofline: an insightful visual
performance model for multicore architectures", CACM 52(4), 2009): its arithmetic at the rate that
the probe measured for such arithmetic, or its bytes at the rate of the memory, whichever takes
longer. Terms add up the operators of one kind. Two more have no rate of their own and count only
once measured points say what they cost: operators, and comparisons in trees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from genba.codesign.operations import Operation, Operations
from genba.core.protocols import Array
from genba.targets.profile import Precision, Profile, Rate

Metric = Literal["cpu_ms", "latency_ms_p50"]

#: Terms that a profile gives seconds for; a correction of 1 means "as the probe's kernels".
PRICED: Final = ("conv", "depthwise", "gemm", "elementwise", "call")
#: Terms that are counts, in millions; what one costs is known from measured points only.
COUNTED: Final = ("operators", "trees")
TERMS: Final = (*PRICED, *COUNTED)
_PRECISIONS: Final[Mapping[str, Precision]] = {"bfloat16": "bf16", "float16": "fp16"}
#: Where a rate is not known, the one that is nearest to it from below.
_INSTEAD: Final[Mapping[str, tuple[Precision, ...]]] = {
    "int8": ("int8", "fp32"),
    "bf16": ("bf16", "fp32"),
    "fp16": ("fp16", "fp32"),
    "fp32": ("fp32",),
}
_GIGA: Final = 1e9
_MEGA: Final = 1e6
_MS: Final = 1e3


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """How a graph is used: what a point of the search says, without the graph."""

    engine: str
    precision: str = "float32"
    form: str = ""
    threads: int = 1
    callers: int = 1  # streams of the runtime, each of them busy
    batch: int = 1

    @property
    def family(self) -> tuple[str, str, str, str]:
        """What decides which kernels run, and how they share the cores."""
        return (self.engine, self.form, self.precision, f"{self.threads}x{self.callers}")


def terms(profile: Profile, work: Operations, usage: Usage, metric: Metric) -> Array | None:
    """Return the milliseconds of each term (counts in millions), None where a rate is not known.

    Args:
        profile: Of the device; a rate it has is worth more than one of another runtime there.
        work: Operators of the graph in the form that is used.
        usage: How it is used.
        metric: `cpu_ms` per row, or `latency_ms_p50` of a call.
    """
    found = dict.fromkeys(TERMS, 0.0)
    spread = usage.threads if metric == "latency_ms_p50" else 1
    rates = _Rates(profile, usage, spread)
    for row in work.rows:
        if row.kind == "trees":
            found["trees"] += row.flops.of(usage.batch) / _MEGA / spread
            continue
        seconds = rates.seconds(row)
        if seconds is None:
            return None
        found[row.kind] += seconds * _MS
    call = profile.rate("call", "fp32", usage.engine) or profile.rate("call", "fp32")
    found["call"] = _MS / call.value if call else 0.0
    found["operators"] = len(work.rows) / _MEGA
    values = np.array([found[name] for name in TERMS])
    return values / usage.batch if metric == "cpu_ms" else values


class _Rates:
    """Looks rates up once for each kind."""

    def __init__(self, profile: Profile, usage: Usage, threads: int) -> None:
        self._profile = profile
        self._usage = usage
        self._threads = threads
        self._known: dict[tuple[str, bool], float | None] = {}
        memory = self._best("memory", ("fp32", "fp64", "int8"), engine="")
        self._bytes = memory * _GIGA if memory else None

    def seconds(self, row: Operation) -> float | None:
        """Return the roofline of one operator, None where nothing is known of such work."""
        batch = self._usage.batch
        moving = row.bytes.of(batch) / self._bytes if self._bytes else None
        if row.kind == "elementwise":
            return moving
        key = (row.kind, row.integer)
        if key not in self._known:
            self._known[key] = self._rate(row)
        rate = self._known[key]
        if rate is None:
            return None
        return max(row.flops.of(batch) / (rate * _GIGA), moving or 0.0)

    def _rate(self, row: Operation) -> float | None:
        wanted = _PRECISIONS.get(self._usage.precision, "fp32")
        precisions = _INSTEAD["int8" if row.integer else wanted]
        engine = self._usage.engine
        kinds = {"depthwise": ("depthwise", "conv", "gemm"), "conv": ("conv", "gemm")}
        for kind in kinds.get(row.kind, ("gemm", "conv")):
            found = self._best(kind, precisions, engine) or self._best(kind, precisions, "")
            if found is not None:
                return found
        return None

    def _best(self, kind: str, precisions: tuple[Precision, ...], engine: str) -> float | None:
        """Return a rate for the threads that are used: measured so, or as many times one."""
        for precision in precisions:
            several = self._find(kind, precision, engine, self._threads)
            if several is not None:
                return several.value
            one = self._find(kind, precision, engine, 1)
            if one is not None:
                return one.value * (1 if kind == "memory" else self._threads)
        return None

    def _find(self, kind: str, precision: Precision, engine: str, threads: int) -> Rate | None:
        known = [
            rate
            for rate in self._profile.rates
            if (rate.kind, rate.precision, rate.threads) == (kind, precision, threads)
            and rate.on == "cpu"
            and engine in ("", rate.engine)
        ]
        return max(known, key=lambda rate: rate.value, default=None)
