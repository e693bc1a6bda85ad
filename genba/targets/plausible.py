"""Is a probe's answer true? What arithmetic, physics and the clock on the wall say about it.

Whoever controls a device can make it say anything. What can be caught here: an answer that was
prepared or recorded (nonce), that was changed on its way (binding digest), that claims more than
its own cores, clock and memory allow, or more time than passed. What is slow and says it is fast
within those bounds shows when engines are measured there: see `refuse_disagreement`.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.core.values import Measure
from genba.edge.probe import ROUNDS
from genba.targets.answers import Answer, Row

_MOST_CLOCK_MHZ: Final = 7000.0
_LEAST_CLOCK_MHZ: Final = 50.0
_RISES: Final = 2.5  # a virtual machine lists 2.6 GHz where the core rises above 4
_LISTED: Final = 1.15  # above the highest clock that the processor itself lists
_MOST_CORES: Final = 4096
_MOST_MEMORY_MIB: Final = 64 << 20
_MOST_GB_PER_S: Final = (200.0, 2000.0)  # of one thread, of a whole machine
_MOST_CALLS: Final = 5e7
_BYTES_PER_FLOP: Final = 2.0  # of a matrix by a vector in float32, each number read once
_READ_TO_COPY: Final = 3.0  # reading alone, partly from a cache, against copying
_APART: Final = 10.0  # repeats of one kernel by CPU time, however busy the device
_MOST_NUMBER: Final = 1e18
_NO_NUMBER: Final = "One of its numbers is none, or larger than anything that can be measured."
_LONG_S: Final = 0.05  # a shorter round can be lost to whatever the host did meanwhile
_SLACK: Final = (1.05, 1.0)  # share and seconds that clocks may differ
_CPU_TO_WALL: Final = (1.15, 0.05)
#: Multiply-adds count twice. Of the widest vectors that any processor with the instructions has.
_FLOPS_PER_CYCLE: Final = (
    *(("sme", 1024), ("avx512f", 64), ("sve", 64)),
    *(("avx2", 32), ("asimd", 32)),
)
_NARROW: Final = 16
_UNTOLD: Final = 1024  # a system that does not list its instructions, as Linux does
_MATRICES: Final = {("bf16", "amx_bf16"): 2048.0, ("int8", "amx_int8"): 4096.0}
_TIMES_FP32: Final = {"fp32": 1.0, "fp64": 0.5, "bf16": 1.0, "int8": 4.0}
_EXTENDED: Final = {
    ("bf16", "avx512_bf16"): 2.0,
    ("bf16", "bf16"): 4.0,
    ("int8", "i8mm"): 8.0,
}
_FEW_POINTS: Final = 3
_TOO_FAR: Final = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """When the answer was asked for and when it came, by the factory's clock."""

    asked_ms: int
    answered_ms: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.answered_ms - self.asked_ms) / 1000


def refuse_implausible(answer: Answer, heard: Heard, target: str) -> None:
    """Refuse an answer that cannot be true.

    Raises:
        Problem: G614 with what contradicts what.
    """
    # Each may trust what the one before it has found sound.
    finding = _machine(answer) or _time(answer, heard) or _rows(answer) or _memory(answer)
    finding = finding or ("" if all(map(_sound, _numbers_of(encode(answer)))) else _NO_NUMBER)
    if finding:
        raise _lie(target, finding)


def peak_gflops(answer: Answer, precision: str) -> float:
    """Return more than one core of the device can compute, by its clock and its instructions."""
    there = set(answer.machine.instructions)
    least = _NARROW if answer.machine.system.startswith("Linux") else _UNTOLD
    fp32 = next((wide for name, wide in _FLOPS_PER_CYCLE if name in there), least)
    factors = [f for (p, name), f in _EXTENDED.items() if p == precision and name in there]
    per_cycle = fp32 * max([_TIMES_FP32.get(precision, 1.0), *factors])
    tiles = [n for (p, name), n in _MATRICES.items() if p == precision and name in there]
    return max([per_cycle, *tiles]) * _clock_mhz(answer) / 1000


def _clock_mhz(answer: Answer) -> float:
    machine = answer.machine
    if machine.clock_max_mhz is not None:
        return min(machine.clock_max_mhz * _LISTED, _MOST_CLOCK_MHZ)
    return min((machine.clock_mhz or _MOST_CLOCK_MHZ) * _RISES, _MOST_CLOCK_MHZ)


def _numbers_of(value: Any) -> Iterator[float | int]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers_of(inner)


def _sound(number: float | int) -> bool:
    return -_MOST_NUMBER < number < _MOST_NUMBER


def _machine(answer: Answer) -> str:
    machine = answer.machine
    if not 0 < machine.cores <= _MOST_CORES:
        return f"It says it has {machine.cores:g} cores."
    if not 0 < machine.memory_mib <= _MOST_MEMORY_MIB:
        return f"It says it has {machine.memory_mib} MiB of memory."
    for clock in (machine.clock_mhz, machine.clock_max_mhz):
        if clock is not None and not _LEAST_CLOCK_MHZ <= clock <= _MOST_CLOCK_MHZ:
            return f"It says its clock is {clock:g} MHz."
    degrees = [t for t in answer.temperature_c if t is not None]
    if not all(-60 < t < 200 for t in degrees):
        return f"It says it is {max(degrees, key=abs):g} degrees Celsius hot."
    return ""


def _time(answer: Answer, heard: Heard) -> str:
    if not (_sound(answer.began_ms) and _sound(answer.ended_ms)):
        return "Its clock shows a time that none can show."
    share, seconds = _SLACK
    if not 0 < answer.spent_s <= heard.seconds * share + seconds:
        return (
            f"It says it worked for {answer.spent_s:.1f} s; it answered in {heard.seconds:.1f} s."
        )
    measured = math.fsum(s for row in answer.rates for s in row.wall_s)
    if not measured <= answer.spent_s * share:
        return f"Its kernels took {measured:.1f} s together, of the {answer.spent_s:.1f} s it says."
    return ""


def _rows(answer: Answer) -> str:
    if not answer.rates:
        return "It measured nothing."
    return next((finding for row in answer.rates if (finding := _row(answer, row))), "")


def _row(answer: Answer, row: Row) -> str:
    return _numbers(row) or _repeats(answer, row) or _too_fast(answer, row)


def _numbers(row: Row) -> str:
    if len(row.cpu_s) != ROUNDS or len(row.wall_s) != ROUNDS:
        return f"{row.name} has {len(row.cpu_s)} and {len(row.wall_s)} repeats, not {ROUNDS}."
    if not all(_sound(whole) for whole in (row.calls, row.threads)):
        return f"{row.name} has a number of calls or threads that cannot be counted."
    numbers = (row.work, float(row.calls), float(row.threads), *row.cpu_s, *row.wall_s)
    wrong = [n for n in numbers if not (math.isfinite(n) and n > 0)]
    return f"{row.name} has a {wrong[0]} where only a positive number can be." if wrong else ""


def _repeats(answer: Answer, row: Row) -> str:
    if len(set(row.cpu_s)) == len(set(row.wall_s)) == 1:
        return f"The {ROUNDS} repeats of {row.name} are equal to the last digit."
    if row.threads > max(1, int(answer.machine.cores)):
        return f"{row.name} ran on {row.threads} of {answer.machine.cores:g} cores."
    share, seconds = _CPU_TO_WALL
    for cpu, wall in zip(row.cpu_s, row.wall_s, strict=True):
        if cpu > max(answer.machine.cores, 1.0) * wall * share + seconds:
            return f"{row.name} took {cpu:.3f} CPU seconds in {wall:.3f} s."
    apart = max(row.rates) / min(row.rates)
    if row.threads == 1 and apart > _APART and min(row.wall_s) > _LONG_S:
        return f"The repeats of {row.name} are {apart:.0f} times apart by CPU time."
    return ""


def _too_fast(answer: Answer, row: Row) -> str:
    rate = statistics.median(row.rates)
    if row.kind == "call":
        most, unit = _MOST_CALLS, "calls/s"
    elif row.kind == "memory":
        most, unit = min(_MOST_GB_PER_S[0] * row.threads, _MOST_GB_PER_S[1]), "GB/s"
    else:
        most, unit = peak_gflops(answer, row.precision) * row.threads, "GFLOP/s"
    if rate <= most:
        return ""
    return f"{row.name} says {rate:.4g} {unit}; its cores, clock and instructions allow {most:.4g}."


def _memory(answer: Answer) -> str:
    """A matrix by a vector reads every number once: it cannot outrun the memory."""
    single = {row.kind: statistics.median(row.rates) for row in answer.rates if row.threads == 1}
    if "gemv" not in single or "memory" not in single:
        return ""
    read = single["gemv"] * _BYTES_PER_FLOP
    if read <= single["memory"] * _READ_TO_COPY:
        return ""
    return (
        f"A matrix by a vector reads {read:.4g} GB/s, and its memory copies {single['memory']:.4g}."
    )


def refuse_disagreement(target: str, points: Sequence[tuple[Measure, Measure]]) -> None:
    """Refuse a profile when what was measured on the target lies far from what it promises.

    Args:
        target: Its name.
        points: What was modelled from its profile (with its band), and what was measured.

    Raises:
        Problem: G618 when three or more points were measured, all outside their band on the same
            side, and half of them by a factor of three.

    Example:
        >>> modelled = Measure(value=2.0, unit="ms", low=1.0, high=4.0, method="modelled")
        >>> refuse_disagreement("pi", [(modelled, Measure(value=3.5, unit="ms"))] * 3)
        >>> refuse_disagreement("pi", [(modelled, Measure(value=9.0, unit="ms"))] * 3)
        Traceback (most recent call last):
        genba.core.problem.Problem: G618  What was measured on pi is not what its profile promises.
    """
    if len(points) < _FEW_POINTS:
        return
    slower = [m.value / (p.value if p.high is None else p.high) for p, m in points]
    faster = [(p.value if p.low is None else p.low) / m.value for p, m in points]
    middle = statistics.median(m.value / p.value for p, m in points)
    if (min(slower) > 1 or min(faster) > 1) and not 1 / _TOO_FAR < middle < _TOO_FAR:
        times = f"{middle:.1f} times as long as" if middle > 1 else f"{middle:.2f} of the time that"
        raise Problem(
            "G618",
            f"What was measured on {target} is not what its profile promises.",
            where=target,
            why=f"{len(points)} measurements took {times} modelled, and none is in its band.",
            tries=[f"genba targets probe {target}", "genba explain G618"],
        )


def _lie(target: str, finding: str) -> Problem:
    return Problem(
        "G614",
        f"What {target} says of itself cannot be true.",
        where=target,
        why=finding,
        tries=[f"genba targets probe {target}", "genba explain G614"],
    )
