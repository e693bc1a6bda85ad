"""The Pareto front of what was measured, and one choice of it by a stated preference."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from genba.codesign.values import Trial
from genba.core.values import Measure

#: What a preference means: the measure that decides, and those that decide between equals.
OBJECTIVES: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("cpu_ms", "latency_ms_p50"),
    "latency": ("latency_ms_p99", "cpu_ms"),
    "energy": ("energy_mj", "latency_ms_p50"),
    "size": ("size_mib", "cpu_ms", "latency_ms_p50"),
    "cost": ("cost_usd_per_1k", "cpu_ms", "latency_ms_p50"),
    "quality": ("disagreement", "cpu_ms", "latency_ms_p50"),
}
#: What is weighed against each other on the front; all of them are better when smaller.
AXES: Final = ("cpu_ms", "latency_ms_p99", "memory_mib", "size_mib", "disagreement")
#: Differences below this share are noise: measured twice, the median point moves as much.
_ALIKE: Final = 0.03


def value_of(trial: Trial, name: str) -> Measure | None:
    """Return a measure of a trial; `disagreement` is the share of decisions unlike the reference.

    Example:
        >>> from genba.codesign.values import Point
        >>> from genba.core.task import Parity
        >>> alike = Parity(decision_agreement=0.99, max_error=0.0, samples=100, passed=True)
        >>> trial = Trial(point=Point(engine="a", settings={}), parity=alike)
        >>> round(value_of(trial, "disagreement").value, 3)
        0.01
    """
    if name != "disagreement":
        return trial.measures.get(name)
    if trial.parity is None:
        return None
    return Measure(value=1.0 - trial.parity.decision_agreement, n=trial.parity.samples)


def dominates(one: Trial, other: Trial) -> bool:
    """Say whether one is as good in everything and clearly better in something.

    "As good" leaves room for the noise of measuring, so that the front does not hold every point
    that was lucky once (epsilon-dominance: Laumanns, Thiele, Deb and Zitzler, "Combining
    convergence and diversity in evolutionary multiobjective optimization", Evolutionary
    Computation 10(3), 2002).
    """
    better = False
    for name in AXES:
        mine, theirs = value_of(one, name), value_of(other, name)
        if mine is None or theirs is None:
            continue
        room = _ALIKE * abs(theirs.value)
        if mine.value > theirs.value + room:
            return False
        better = better or mine.value < theirs.value - room
    return better


def front(trials: Sequence[Trial]) -> list[Trial]:
    """Return the measured trials that no other one dominates, the least CPU time first."""
    found = [t for t in trials if "cpu_ms" in t.measures and (t.parity is None or t.parity.passed)]
    best = [t for t in found if not any(dominates(o, t) for o in found if o is not t)]
    return sorted(best, key=lambda t: m.value if (m := t.measures.get("cpu_ms")) else math.inf)


def ranked(trials: Sequence[Trial], prefer: str) -> list[Trial]:
    """Return trials by preference, the best first."""
    left, order = list(trials), []
    while left:
        order.append(preferred(left, prefer))
        left.remove(order[-1])
    return order


def preferred(trials: Sequence[Trial], prefer: str) -> Trial:
    """Return the best by a preference.

    Of those that the deciding measure cannot tell apart (their intervals reach down to the
    smallest), the best by the next measure; of those that none can tell apart, the one that was
    offered first, which is the simplest.

    Args:
        trials: At least one.
        prefer: A key of `OBJECTIVES`.
    """
    left = list(trials)
    for name in OBJECTIVES[prefer]:
        left = _level(left, name)
    return left[0]


def _level(trials: Sequence[Trial], name: str) -> list[Trial]:
    """Return those whose interval reaches down to that of the smallest, in their order."""
    known = [(t, m) for t in trials if (m := value_of(t, name)) is not None]
    if not known:
        return list(trials)
    best = min((m for _, m in known), key=lambda m: m.value)
    edge = best.value if best.high is None else best.high
    return [t for t, m in known if (m.value if m.low is None else m.low) <= edge]
