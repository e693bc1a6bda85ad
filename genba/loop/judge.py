"""Whether a package in service behaves: counts against limits, challenger against stable.

To be thrown out, a package must be bad beyond doubt: a window that a package exactly at its limit
would show once in a thousand times. To be let in, it must simply be within the limits.
"""

import math
from dataclasses import dataclass
from typing import Final

from genba.core.chance import tail
from genba.core.line import RollBackOn
from genba.loop.traffic import Traffic

#: Chance of throwing out, on one look, a package that is exactly at its limit.
DOUBT: Final = 0.001
#: The share of predictions that may be slower than `latency_ms_p99`.
SLOW_SHARE: Final = 0.01
#: A challenger may raise this many more alarms per prediction than the stable package.
ALARM_MARGIN: Final = 0.02
#: One slow batch is a hiccup of the machine, and so may be two; three are a pattern.
_PATTERN: Final = 3
_Z95: Final = 1.959964


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What the predictions of a challenger say about it."""

    passed: bool
    reason: str


def difference(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two proportions (Newcombe's hybrid score).

    Args:
        one: Count and total of the first.
        other: Count and total of the second.

    Example:
        >>> low, high = difference((56, 70), (48, 80))
        >>> round(low, 4), round(high, 4)
        (0.0524, 0.3339)
    """
    p, q = one[0] / one[1], other[0] / other[1]
    (p_low, p_high), (q_low, q_high) = interval(*one), interval(*other)
    low = p - q - math.hypot(p - p_low, q_high - q)
    high = p - q + math.hypot(p_high - p, q - q_low)
    return low, high


def interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of one proportion (Wilson's score interval)."""
    p, z2 = count / n, _Z95 * _Z95
    centre, scale = (p + z2 / (2 * n)), 1 + z2 / n
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (centre - half) / scale, (centre + half) / scale


def faults(traffic: Traffic, limits: RollBackOn, window: int) -> tuple[str, ...]:
    """Return one sentence for each limit that the newest window breaks beyond doubt.

    Args:
        traffic: What the package answered.
        limits: What it may not exceed.
        window: Predictions that make the window full.
    """
    now = traffic.window()
    found = [
        _too_many("error_rate", now.errors, now.n, limits.error_rate),
        _too_many("not_a_number_rate", now.not_a_number, now.n, limits.not_a_number_rate),
    ]
    slow = traffic.slow(limits.latency_ms_p99)
    batches = sum(b.slow(limits.latency_ms_p99) > 0 for b in traffic.newest)
    sure = slow >= SLOW_SHARE * now.n if now.n >= window else tail(slow, now.n, SLOW_SHARE) < DOUBT
    if batches >= _PATTERN and sure:
        found.append(_slow(slow, now.n, limits.latency_ms_p99))
    return tuple(sentence for sentence in found if sentence)


def _too_many(name: str, count: int, n: int, limit: float) -> str:
    if n and tail(count, n, limit) < DOUBT:
        return _above(name, count, n, limit)
    return ""


def _above(name: str, count: int, n: int, limit: float) -> str:
    return f"{name} is {count / n:.4g} ({count} of the newest {n} predictions), above {limit:g}"


def _slow(slow: int, n: int, limit_ms: float) -> str:
    return (
        f"latency_ms_p99 is above {limit_ms:g} ms: at least {slow} of the newest {n} predictions "
        f"({slow / n:.2%}) took longer"
    )


def judge(challenger: Traffic, beside: Traffic, limits: RollBackOn) -> Judgement:
    """Say whether a challenger may become stable.

    Args:
        challenger: What it answered since it was placed.
        beside: What the stable package answered in the same time.
        limits: What it may not exceed.
    """
    n, newest = challenger.n, challenger.window()
    slow = challenger.slow(limits.latency_ms_p99)
    batches = sum(b.slow(limits.latency_ms_p99) > 0 for b in newest.newest)
    pattern = batches >= min(_PATTERN, len(newest.newest))
    reasons = [
        _above(name, count, n, limit)
        for name, count, limit in (
            ("error_rate", challenger.errors, limits.error_rate),
            ("not_a_number_rate", challenger.not_a_number, limits.not_a_number_rate),
        )
        if count > limit * n
    ]
    if slow and pattern and slow >= SLOW_SHARE * newest.n:
        reasons.append(_slow(slow, newest.n, limits.latency_ms_p99))
    alarms = _alarms(challenger, beside)
    if alarms.passed and not reasons:
        fine = (
            f"{n} predictions, {challenger.errors} errors, {challenger.not_a_number} not a number"
        )
        return Judgement(passed=True, reason=f"{fine}; {alarms.reason}")
    if not alarms.passed:
        reasons.append(alarms.reason)
    return Judgement(passed=False, reason="; ".join(reasons))


def _alarms(challenger: Traffic, beside: Traffic) -> Judgement:
    if not beside.n:
        return Judgement(passed=True, reason="the stable package answered nothing to compare with")
    low, high = difference((challenger.alarms, challenger.n), (beside.alarms, beside.n))
    rates = (
        f"alarms per prediction {challenger.alarms / challenger.n:.4g} against "
        f"{beside.alarms / beside.n:.4g} of the stable package, "
        f"difference {low:+.4f} to {high:+.4f}"
    )
    if low > ALARM_MARGIN:
        return Judgement(passed=False, reason=f"{rates}, above the margin of {ALARM_MARGIN:g}")
    return Judgement(passed=True, reason=rates)
