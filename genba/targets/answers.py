"""A probe's answer, read strictly: its form, its nonce, and the digest that holds it together."""

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.edge.probe import FORMAT, bound, prove
from genba.targets.profile import Kind, Power, Precision

Unit = Literal["GFLOP", "GB", "calls"]

MOST_BYTES: Final = 4 << 20
_MOST_TEXT: Final = 500  # characters of one field


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One kernel: what a call does, and what six rounds of calls took."""

    kind: Kind
    precision: Precision
    engine: str
    threads: int
    unit: Unit
    work: float
    calls: int
    cpu_s: tuple[float, ...]
    wall_s: tuple[float, ...]

    @property
    def name(self) -> str:
        """The kernel as people write it."""
        cores = "one core" if self.threads == 1 else f"{self.threads} cores"
        return f"{self.kind} {self.precision} in {self.engine} on {cores}"

    @property
    def rates(self) -> tuple[float, ...]:
        """Work per second of each round: of CPU time on one core, by the clock on several."""
        seconds = self.cpu_s if self.threads == 1 else self.wall_s
        return tuple(self.work * self.calls / s for s in seconds)

    @property
    def wall_rate(self) -> float:
        """Work per second by the clock, the middle round."""
        return statistics.median(self.work * self.calls / s for s in self.wall_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineFacts:
    """What the device is, as it says."""

    processor: str
    architecture: str
    cores: float
    memory_mib: int
    instructions: tuple[str, ...]
    system: str
    board: str
    clock_max_mhz: float | None
    clock_mhz: float | None
    cache_mib: float | None
    accelerators: tuple[str, ...]
    energy_counters: tuple[str, ...]
    power: Power


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A kernel that could not be measured, and why."""

    kind: str
    precision: str
    engine: str
    reason: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.kind} {self.precision} in {self.engine}: {self.reason}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """All that a probe says."""

    format: str
    nonce: str
    machine: MachineFacts
    runtimes: Mapping[str, str]
    python: str
    rates: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    load: tuple[float, ...]
    temperature_c: tuple[float | None, ...]
    began_ms: int
    proof: str
    spent_s: float
    ended_ms: int
    bound: str


def read_answer(output: bytes, nonce: str, target: str) -> Answer:
    """Read what came back from a device.

    Args:
        output: Its standard output; a login banner may come first.
        nonce: What was asked with.
        target: Its name.

    Raises:
        Problem: G615 when it is no whole answer of this probe, was given to another question, or
            was changed on its way.
    """
    data = _parsed(output, target)
    if data.get("nonce") != nonce:
        raise _refused(target, "It is the answer to another question.")
    if data.get("bound") != bound(data):
        raise _refused(target, "It was changed after the probe had finished.")
    if data.get("proof") != prove(nonce):
        raise _refused(target, "The computation that it had to do came out wrong.")
    if strange := next(_strange(data), ""):
        raise _refused(target, f"It holds text that no device has: {strange[:40]!r}.")
    try:
        return decode(Answer, data)
    except Problem as problem:
        raise _refused(target, problem.what) from problem


def _parsed(output: bytes, target: str) -> dict[str, Any]:
    if len(output) > MOST_BYTES:
        raise _refused(target, f"It is longer than {MOST_BYTES >> 20} MiB.")
    lines = [line for line in output.splitlines() if line.startswith(b"{")]
    try:
        data = json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _refused(target, "It is no whole answer of this probe.")
    return data


def _strange(value: Any) -> Iterator[str]:
    """Yield texts that are endless, or could do something to a terminal or to a file."""
    if isinstance(value, str):
        if len(value) > _MOST_TEXT or not value.isprintable():
            yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (*_strange(key), *_strange(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _strange(inner)


def _refused(target: str, why: str) -> Problem:
    return Problem(
        "G615",
        f"The answer of the probe on {target} is not accepted.",
        where=target,
        why=why,
        tries=[f"genba targets probe {target}", "genba explain G615"],
    )
