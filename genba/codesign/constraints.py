"""Limits and gates as constraints: who holds them, how surely, who comes nearest, what to relax."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from genba.codesign.values import Trial
from genba.core.codec import encode
from genba.core.line import Limit, Limits
from genba.core.values import Measure
from genba.targets.limits import UNITS

#: Suggest a tenth beyond what was measured: the next measurement differs a little.
_ROOM: Final = 0.1
_TIMES: Final = 10  # above this factor a percentage says nothing
_SMALL: Final = 1e-9

Side = Literal["min", "max"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """One side of what a measure must be."""

    name: str
    side: Side
    value: float
    path: str  # where the line file says so

    def over(self, measure: Measure | None) -> float:
        """Return how many times the bound a measure is; at most 1 where it holds.

        Example:
            >>> most = Bound(name="a", side="max", value=2.0, path="target.limits.a")
            >>> most.over(Measure(value=3.0)), most.over(Measure(value=1.0)), most.over(None)
            (1.5, 0.5, inf)
            >>> least = Bound(name="r2", side="min", value=0.9, path="gates.r2.min")
            >>> least.over(Measure(value=0.45))
            1.5
        """
        if measure is None or not math.isfinite(measure.value):
            return math.inf
        if self.side == "max" and self.value > 0 and measure.value >= 0:
            return measure.value / max(self.value, _SMALL)
        miss = measure.value - self.value if self.side == "max" else self.value - measure.value
        return 1.0 + miss / max(abs(self.value), _SMALL)

    def holds(self, measure: Measure | None) -> bool:
        """Say whether a measure holds it; what is not known does not."""
        if measure is None or not math.isfinite(measure.value):
            return False
        if self.side == "max":
            return measure.value <= self.value
        return measure.value >= self.value

    def sure(self, measure: Measure | None) -> bool:
        """Say whether the whole interval is on the same side of the bound as the value."""
        if measure is None or measure.low is None or measure.high is None:
            return False
        ends = (measure.low, measure.high)
        inside = [e <= self.value if self.side == "max" else e >= self.value for e in ends]
        return all(inside) if self.holds(measure) else not any(inside)

    def setting(self, measure: Measure) -> str:
        """Return what to type so that a measure holds the bound, with a tenth of room.

        Example:
            >>> most = Bound(name="a", side="max", value=1.0, path="target.limits.a")
            >>> most.setting(Measure(value=4.0)), most.setting(Measure(value=4.0, high=6.0))
            ('--set target.limits.a=4.4', '--set target.limits.a=6')
        """
        value = measure.value
        if self.side == "max":
            edge = value if measure.high is None else measure.high
            return f"--set {self.path}={rounded_up(max(value + _ROOM * abs(value), edge))}"
        miss = max(self.value - value, 0.0)
        return f"--set {self.path}={_rounded_down(value - _ROOM * miss)}"


def of_limits(limits: Limits) -> tuple[Bound, ...]:
    """Return the limits of a target that the line states."""
    return tuple(
        Bound(name=name, side="max", value=float(value), path=f"target.limits.{name}")
        for name, value in encode(limits).items()
    )


def of_gates(gates: Mapping[str, Limit]) -> tuple[Bound, ...]:
    """Return the gates of a line as bounds."""
    sides: tuple[Side, ...] = ("min", "max")
    return tuple(
        Bound(name=name, side=side, value=float(value), path=f"gates.{name}.{side}")
        for name, limit in gates.items()
        for side in sides
        if (value := getattr(limit, side)) is not None
    )


def missed(bounds: Iterable[Bound], measures: Mapping[str, Measure]) -> list[Bound]:
    """Return the bounds that are not held, the one that is exceeded most first."""
    found = [b for b in bounds if not b.holds(measures.get(b.name))]
    return sorted(found, key=lambda b: -_finite(b.over(measures.get(b.name))))


def _excess(bounds: Iterable[Bound], measures: Mapping[str, Measure]) -> float:
    """Return by how much all bounds together are exceeded, as a logarithm; 0 where all hold."""
    over = (_finite(b.over(measures.get(b.name))) for b in bounds)
    return sum(math.log(times) for times in over if times > 1.0)


def sentence(bound: Bound, measure: Measure | None, device: str) -> str:
    """Say how far a limit is exceeded.

    Example:
        >>> most = Bound(name="latency_ms_p99", side="max", value=3.0, path="")
        >>> sentence(most, Measure(value=4.0, unit="ms"), "this-machine")
        'latency_ms_p99 is 4 ms; this-machine allows 3 ms (33 % too much).'
    """
    unit = UNITS.get(bound.name, measure.unit if measure else "")
    allowed = f"{bound.value:g} {unit}".strip()
    if measure is None:
        return f"{bound.name} could not be measured; {device} allows {allowed}."
    if bound.side == "min":
        return f"{bound.name} is {measure}; at least {allowed} is asked for."
    times = measure.value / max(bound.value, _SMALL)
    over = f"{times:.0f} times as much" if times > _TIMES else f"{(times - 1) * 100:.0f} % too much"
    return f"{bound.name} is {measure}; {device} allows {allowed} ({over})."


def held(bounds: Iterable[Bound], measures: Mapping[str, Measure]) -> list[dict[str, object]]:
    """Return every bound with what was measured, whether it is held and how sure that is."""
    found: list[dict[str, object]] = []
    for bound in bounds:
        measure = measures.get(bound.name)
        found.append(
            {
                "name": bound.name,
                "side": bound.side,
                "limit": bound.value,
                "measure": None if measure is None else encode(measure),
                "holds": bound.holds(measure),
                "sure": bound.sure(measure),
            }
        )
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """The point that comes nearest to what was asked, and what would have to give."""

    trial: Trial
    misses: tuple[str, ...]  # sentences, the worst first
    relax: tuple[str, ...]  # settings to type


def nearest(
    trials: Sequence[Trial], bounds: Sequence[Bound], device: str, more: Mapping[str, Measure]
) -> Nearest | None:
    """Return the trial for which least would have to give; None where nothing was measured.

    That is the smallest product of how many times each limit is exceeded.

    Args:
        trials: Those that were measured count; of them, those that answer as the reference does
            are preferred, because no limit can be relaxed that mends wrong answers.
        bounds: All that the line asks for.
        device: For the sentences.
        more: Measures that hold for every trial, such as those of the model.
    """
    measured = [t for t in trials if t.measures]
    right = [t for t in measured if t.parity is None or t.parity.passed]
    if not right:
        return None
    best = min(right, key=lambda t: _excess(bounds, {**more, **t.measures}))
    found = {**more, **best.measures}
    over = missed(bounds, found)
    return Nearest(
        trial=best,
        misses=tuple(sentence(b, found.get(b.name), device) for b in over),
        relax=tuple(b.setting(found[b.name]) for b in over if b.name in found),
    )


def rounded_up(value: float) -> str:
    """Round up to two digits.

    Example:
        >>> rounded_up(3.21), rounded_up(0.0123)
        ('3.3', '0.013')
    """
    if not math.isfinite(value) or value <= 0:
        return "…"
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(round(value / digit, 6)) * digit:.6g}"


def _rounded_down(value: float) -> str:
    """Round down to three digits.

    Example:
        >>> _rounded_down(0.87654), _rounded_down(-0.5)
        ('0.876', '-0.5')
    """
    if not math.isfinite(value):
        return "…"
    if value == 0:
        return "0"
    digit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return f"{math.floor(round(value / digit, 6)) * digit:.6g}"


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 1e300
