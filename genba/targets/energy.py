"""Joules, and how they are known: from a counter, from a calibrated meter, or from a model.

A number that was read and one that was modelled are never added silently: `Energy` refuses to,
and `together` keeps the parts. One value alone would be believed; the band says how far it may be.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from genba.core.problem import Problem
from genba.core.values import Measure, Method
from genba.targets.profile import MeterReading
from genba.targets.tables import Assumed

EnergyMethod = Literal["nvml_counter", "rapl", "external_meter", "cpu_seconds_model"]
Scope = Literal["process", "machine", "device"]

#: A counter is read; a calibrated core is an estimate; watts that were assumed are a model.
_KNOWN: Final[dict[EnergyMethod, Method]] = {
    "nvml_counter": "measured",
    "rapl": "measured",
    "external_meter": "estimated",
    "cpu_seconds_model": "modelled",
}
_PER: Final = {"J": 1.0, "mJ": 1e-3}
_JOULES_PER_KWH: Final = 3.6e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Energy with its band, how it is known, what it covers, and whether idling is in it."""

    value: float
    low: float
    high: float
    unit: Literal["J", "mJ"] = "J"
    method: EnergyMethod
    scope: Scope  # what the number covers: this process, all of the machine, or one accelerator
    idle_included: bool

    def __add__(self, other: "Energy") -> "Energy":
        """Add what is known in the same way; the bands add as well.

        Raises:
            Problem: G619 when they are not known in the same way; see `together`.
        """
        if self.kind != other.kind:
            raise Problem(
                "G619",
                f"{self} and {other} are not known in the same way and are not added.",
                why="The sum would look as sure as its better part.",
                tries=["genba explain G619"],
            )
        second = other.to(self.unit)
        return replace(
            self,
            value=self.value + second.value,
            low=self.low + second.low,
            high=self.high + second.high,
        )

    def __str__(self) -> str:
        """Return it as people write it."""
        idle = "with idling" if self.idle_included else "without idling"
        return (
            f"{self.value:.4g} {self.unit} [{self.low:.4g} to {self.high:.4g}] "
            f"({self.method.replace('_', ' ')}, {self.scope}, {idle})"
        )

    @property
    def kind(self) -> tuple[str, str, bool]:
        """What must be equal for two to be added."""
        return self.method, self.scope, self.idle_included

    def to(self, unit: Literal["J", "mJ"]) -> "Energy":
        """Return it in another unit.

        Example:
            >>> one = model(2.0, ASSUMED)
            >>> one.to("mJ").value
            10000.0
        """
        return replace(self.scaled(_PER[self.unit] / _PER[unit]), unit=unit)

    def scaled(self, factor: float) -> "Energy":
        """Return so many times as much."""
        return replace(
            self, value=self.value * factor, low=self.low * factor, high=self.high * factor
        )

    def as_measure(self, n: int | None = None) -> Measure:
        """Return the number as the rest of the house writes numbers."""
        return Measure(
            value=self.value,
            unit=self.unit,
            low=self.low,
            high=self.high,
            method=_KNOWN[self.method],
            n=n,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """A sum of energies that are known in different ways, which says so."""

    parts: tuple[Energy, ...]  # one for each way

    @property
    def joules(self) -> Measure:
        """The sum; called measured only when all of it was."""
        each = [part.to("J") for part in self.parts]
        ways = {_KNOWN[part.method] for part in self.parts}
        weakest = next(m for m in ("modelled", "estimated", "measured") if m in ways)
        return Measure(
            value=sum(e.value for e in each),
            unit="J",
            low=sum(e.low for e in each),
            high=sum(e.high for e in each),
            method=weakest,
        )

    def __str__(self) -> str:
        """Return the sum with its parts: 12 J [9 to 17] (modelled) = 2 J … + 10 J …."""
        return f"{self.joules} = {' + '.join(map(str, self.parts))}"


def together(energies: Iterable[Energy]) -> Together:
    """Add energies of any kind, keeping apart what is known in different ways."""
    sums: dict[tuple[str, str, bool], Energy] = {}
    for one in energies:
        sums[one.kind] = sums[one.kind] + one if one.kind in sums else one.to("J")
    return Together(parts=tuple(sums.values()))


#: One busy core of a server or industrial PC, where nothing better is known.
ASSUMED: Final = Assumed(
    value=5.0, low=3.0, high=8.0, dated="2026-11-22", source="assumed band for one busy core"
)


def model(cpu_seconds: float, watts: Assumed) -> Energy:
    """Return CPU seconds, which are measured, times watts of a busy core, which are assumed.

    Example:
        >>> print(model(2.0, ASSUMED))
        10 J [6 to 16] (cpu seconds model, process, without idling)
    """
    return Energy(
        value=cpu_seconds * watts.value,
        low=cpu_seconds * watts.low,
        high=cpu_seconds * watts.high,
        method="cpu_seconds_model",
        scope="process",
        idle_included=False,
    )


def calibrated(cpu_seconds: float, watts: Assumed) -> Energy:
    """Return CPU seconds times the watts of a busy core that an external meter told."""
    return replace(model(cpu_seconds, watts), method="external_meter")


def watts_per_core(reading: MeterReading, cores: float) -> Assumed:
    """Return what one busy core draws, from two readings of a power meter.

    The difference between all cores busy and idle, shared among the cores. The band is what the
    meter's accuracy leaves open, both readings wrong in opposite directions. That power grows
    evenly from idle to full is assumed; the first busy core of a machine draws more than the last.

    Raises:
        Problem: G619 when the readings cannot be of one machine, or tell nothing at this accuracy.

    Example:
        >>> plug = MeterReading(idle_w=10, full_w=30, accuracy=0.02, dated="2026-11-23")
        >>> (found := watts_per_core(plug, 4)).value, found.low, found.high
        (5.0, 4.8, 5.2)
    """
    idle, full, wrong = reading.idle_w, reading.full_w, reading.accuracy
    _check_reading(idle, full, wrong)
    low = full * (1 - wrong) - idle * (1 + wrong)
    if low <= 0:
        raise _unusable(
            f"A meter that is {wrong:.1%} off cannot tell {idle:g} W from {full:g} W.",
            why="The whole difference may be the meter's error.",
        )
    high = full * (1 + wrong) - idle * (1 - wrong)
    return Assumed(
        value=(full - idle) / cores,
        low=low / cores,
        high=high / cores,
        dated=reading.dated,
        source=f"{reading.source}: {idle:g} W idle, {full:g} W with {cores:g} cores busy, "
        f"each within {wrong:.1%}; power assumed to grow evenly between them",
    )


def _check_reading(idle: float, full: float, wrong: float) -> None:
    if not 0 <= idle < full < _MOST_W:
        raise _unusable(
            f"{idle:g} W idle and {full:g} W with every core busy cannot be of one machine.",
            why=f"Both are at least 0, below {_MOST_W:g} W, and the second is more.",
        )
    if not 0 < wrong < 1:
        raise _unusable(
            f"An accuracy of {wrong:g} is no fraction.",
            why="A plug meter that is good to 2 % has an accuracy of 0.02.",
        )


_MOST_W: Final = 20_000.0


def _unusable(what: str, why: str) -> Problem:
    return Problem(
        "G619",
        what,
        why=why,
        tries=["genba targets meter NAME --idle 8.2 --full 14.5", "genba explain G619"],
    )


def per_correct(energy: Energy, accuracy: Measure) -> Energy:
    """Return the energy for each correct decision, from that of each decision.

    A model that is wrong half of the time costs twice its joules. The ends of the band take the
    ends of the accuracy's interval.

    Args:
        energy: Of one decision.
        accuracy: The share of decisions that are right, above 0 and at most 1.

    Raises:
        Problem: G619 when no decision is right, or the share is none.

    Example:
        >>> each = per_correct(model(0.02, ASSUMED), Measure(value=0.8, low=0.75, high=0.9))
        >>> print(f"{each.value:.3f} J [{each.low:.3f} to {each.high:.3f}]")
        0.125 J [0.067 to 0.213]
    """
    low = accuracy.value if accuracy.low is None else accuracy.low
    high = accuracy.value if accuracy.high is None else accuracy.high
    if not 0 < accuracy.value <= 1:
        raise Problem(
            "G619",
            f"There are no joules per correct decision at an accuracy of {accuracy.value:g}.",
            why="The accuracy is a share of decisions, above 0 and at most 1.",
            tries=["genba explain G619"],
        )
    return replace(
        energy,
        value=energy.value / accuracy.value,
        low=energy.low / min(high, 1.0),
        high=energy.high / low if low > 0 else float("inf"),
    )


def carbon_g(energy: Energy, grams_per_kwh: Assumed) -> Measure:
    """Return the greenhouse gas of some energy, in grams of CO2 equivalent.

    Example:
        >>> grid = Assumed(value=400, low=300, high=500, dated="2026-11-23", source="example")
        >>> str(carbon_g(model(720_000, ASSUMED), grid))
        '400 g CO2e [180 to 800] (modelled)'
    """
    kwh = energy.to("J").scaled(1 / _JOULES_PER_KWH)
    return Measure(
        value=kwh.value * grams_per_kwh.value,
        unit="g CO2e",
        low=kwh.low * grams_per_kwh.low,
        high=kwh.high * grams_per_kwh.high,
        method="modelled",
    )
