"""When a release on trial may go on, and when the device goes back: counts against a plan.

To be thrown out, a release must be bad beyond doubt (one in a thousand by chance at its limit), or
over its limit when its trial ends. What the release in service shows on the same inputs is never
held against the new one: a sensor that fails makes both of them abstain.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from genba.core.chance import rare, tail

#: Chance of throwing out, on one look, a release that is exactly at its limit.
DOUBT: Final = 0.001
_HOUR_MS: Final = 3_600_000
_FEW: Final = 20  # answers of the other release, below which its rates say nothing

Confirm = Literal["updates", "always", "never"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a release is tried on a device, and what sends it back. Signed with the release."""

    confirm: Confirm = "updates"  # what a person must agree to; the first release is the enrolment
    shadow_answers: int = 200  # beside the release in service, before it may answer
    trial_hours: float = 72.0  # of shadow, and of canary; without enough answers it is given up
    disagreement: float = 0.05  # share of decisions that may differ from the release in service
    canary_share: float = 0.25  # of the inputs that it answers at first
    canary_answers: int = 500
    watch_answers: int = 2_000  # in service, during which it may still be sent back
    failures: float = 0.01  # share of answers that the runtime may fail to give
    abstained: float = 0.2  # share of answers that may be abstentions
    unlikely: float = 0.2  # share of inputs that may look unlike what it was trained on
    trips_per_hour: float = 10.0  # of the safety envelope, for reasons that are the model's
    starts: int = 3  # without a healthy answer, before it counts as a crash loop


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What one release did in one role since it took it."""

    answers: int = 0
    compared: int = 0  # with the release in service, on the same input
    disagreed: int = 0
    failed: int = 0
    abstained: int = 0
    unlikely: int = 0
    trips: int = 0
    span_ms: int = 0  # of the time in which it answered

    def add(self, other: "Tally") -> "Tally":
        """Return the sum of both.

        Example:
            >>> Tally(answers=1).add(Tally(answers=2, trips=1)).answers
            3
        """
        names = [field.name for field in fields(self)]
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What a tally says."""

    broken: tuple[str, ...]  # one sentence per limit
    complete: bool  # the trial has what it needs


def judge(tally: Tally, beside: Tally, plan: Plan, needed: int) -> Judged:
    """Hold a release against its plan.

    Args:
        tally: Of the release on trial.
        beside: Of the release in service on the same inputs, or in the same time; empty for none.
        plan: Its limits.
        needed: Answers that complete the trial.

    Example:
        >>> judge(Tally(answers=40, compared=40, disagreed=20), Tally(), Plan(), 200).broken
        ('20 of 40 decisions differ from those of the release in service, above 5%',)
    """
    complete = tally.answers >= needed
    return Judged(broken=tuple(_broken(tally, beside, plan, complete)), complete=complete)


def _broken(tally: Tally, beside: Tally, plan: Plan, complete: bool) -> Iterator[str]:
    told = "decisions differ from those of the release in service"
    if _over(tally.disagreed, tally.compared, plan.disagreement, complete):
        yield f"{tally.disagreed} of {tally.compared} {told}, above {plan.disagreement:.0%}"
    for name, what in (
        ("failed", "answers failed"),
        ("abstained", "answers were abstentions"),
        ("unlikely", "inputs looked unlike what it was trained on"),
    ):
        limit = float(getattr(plan, "failures" if name == "failed" else name))
        count = int(getattr(tally, name))
        usual = getattr(beside, name) / beside.answers if beside.answers >= _FEW else 0.0
        allowed = max(limit, usual)
        if _over(count, tally.answers, allowed, complete):
            yield f"{count} of {tally.answers} {what}, above {allowed:.1%}"
    yield from _tripped(tally, beside, plan, complete)


def _tripped(tally: Tally, beside: Tally, plan: Plan, complete: bool) -> Iterator[str]:
    usual = beside.trips * _HOUR_MS / beside.span_ms if beside.span_ms else 0.0
    allowed = max(plan.trips_per_hour, usual)
    hours = tally.span_ms / _HOUR_MS
    # Within its first hour a release may spend the hour's allowance, not more.
    expected = allowed * max(hours, 1.0)
    over = complete and hours >= 1.0 and tally.trips > expected
    if over or rare(tally.trips, expected) < DOUBT:
        yield (
            f"the safety envelope stepped in {tally.trips} times in {hours:.2f} hours, "
            f"above {allowed:g} an hour"
        )


def _over(count: int, n: int, limit: float, complete: bool) -> bool:
    if not n:
        return False
    return tail(count, n, limit) < DOUBT or (complete and count > limit * n)


def plan_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a plan that this version knows; what is newer is left out.

    Example:
        >>> plan_of({"confirm": "never", "a_newer_rule": 1})
        {'confirm': 'never'}
    """
    known = {field.name for field in fields(Plan)}
    return {name: value for name, value in given.items() if name in known}
