"""What to do next on a line: a pure function of the line, its folded events and the clock.

One change at a time, the most urgent first: take out what misbehaves, then judge the challenger,
then offer a new one, then train. After each change the state is folded again, so no decision is
ever made on what the previous one has already altered.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal

from genba.core.line import Line
from genba.core.protocols import Trigger
from genba.core.resolve import resolve
from genba.loop.judge import faults, judge
from genba.loop.state import MAX_FAILURES, LineState

Kind = Literal[
    "start_run",
    "deploy",
    "canary",
    "shadow",
    "promote",
    "roll_back",
    "withdraw",
    "ask",
    "alert",
    "give_up",
]

#: A run that was asked for and has not started by then is asked for again.
START_GRACE_MS: Final = 120_000
#: A run is lost when it gave no sign of life for this long, plus four times its training budget.
LOST_AFTER_MS: Final = 15 * 60_000
#: Wait after the first failed run in a row; it doubles.
BACK_OFF_MS: Final = 60_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """One thing to do, and why. The key makes it happen once, whoever tries and how often.

    With `would`, the line only observes: the action is written down and not carried out.
    """

    kind: Kind
    key: str
    reason: str
    package: str = ""
    run: str = ""
    share: float = 0.0
    trigger: str = ""
    attempt: int = 0
    epoch: int = 0
    dataset: str | None = None
    would: bool = False


def decide(line: Line, state: LineState, now_ms: int) -> tuple[Action, ...]:
    """Return what to do now; nothing when all is well.

    Args:
        line: The line as it is configured.
        state: The fold of its events.
        now_ms: The time, ms since 1970 UTC. A clock that jumps, either way, delays or hastens
            retries but breaks no rule.

    Returns:
        The actions of the most urgent matter; fold and ask again after carrying them out.
    """
    for step in (_safety, _lost, _judge, _offer, _train):
        actions = step(line, state, now_ms)
        if line.rollout.decide == "observe":
            actions = _observed(actions)
        actions = tuple(a for a in actions if a.key not in state.noted)
        if actions:
            return actions
    return ()


def _observed(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """Of a line that only observes, carry out bookkeeping and note the rest."""
    real = ("give_up", "alert")
    return tuple(
        a if a.kind in real else replace(a, would=True, key=f"{a.key}/would") for a in actions
    )


def _key(state: LineState, *parts: object) -> str:
    return "/".join(map(str, ("loop", state.line, *parts)))


def _safety(line: Line, state: LineState, now_ms: int) -> tuple[Action, ...]:
    """Take out what misbehaves in service, the stable package first."""
    del now_ms
    limits, stable, placed = line.rollout.roll_back_on, state.rollout.stable, state.placed
    if stable:
        bad = _bad(state, stable.package) or faults(state.stable, limits, state.window)
        if bad:
            return (_roll_back(state, stable.package, stable.since_seq, "; ".join(bad)),)
    if placed:
        bad = _bad(state, placed.package) or faults(state.challenger, limits, state.window)
        if bad:
            return (_withdraw(state, "; ".join(bad)),)
    return ()


def _bad(state: LineState, package: str) -> tuple[str, ...]:
    why = state.broken.get(package)
    return (f"the server could not load it: {why}",) if why is not None else ()


def _roll_back(state: LineState, package: str, since: int, bad: str) -> Action:
    previous = state.rollout.previous
    if previous and previous not in state.rollout.condemned:
        return Action(
            kind="roll_back",
            key=_key(state, "roll_back", package, since),
            package=package,
            reason=f"{bad}; back to {previous[:12]}",
        )
    return Action(
        kind="alert",
        key=_key(state, "alert", package, since),
        package=package,
        reason=f"{bad}; there is no earlier package to return to",
    )


def _withdraw(state: LineState, reason: str) -> Action:
    placed = state.placed
    assert placed is not None, "only a placed challenger is withdrawn"
    return Action(
        kind="withdraw",
        key=_key(state, "withdraw", placed.package, placed.since_seq),
        package=placed.package,
        reason=reason,
    )


def _lost(line: Line, state: LineState, now_ms: int) -> tuple[Action, ...]:
    """Give up runs without a sign of life, and requests nobody takes."""
    patience_ms = LOST_AFTER_MS + int(4 * 60_000 * line.train.budget.minutes)
    for run in state.running.values():
        quiet_ms = abs(now_ms - run.seen_ms)
        if quiet_ms >= patience_ms:
            return (
                Action(
                    kind="give_up",
                    key=_key(state, "lost", run.run),
                    run=run.run,
                    reason=f"no sign of life for {quiet_ms / 60_000:.0f} minutes",
                ),
            )
    request = state.request
    if request and abs(now_ms - request.time_ms) >= START_GRACE_MS:
        again = Action(
            kind="start_run",
            key=_key(state, "run", request.epoch, request.attempt + 1),
            reason=request.reason,
            trigger=request.trigger,
            dataset=request.dataset,
            attempt=request.attempt + 1,
            epoch=request.epoch,
        )
        if request.attempt < MAX_FAILURES:
            return (again,)
        why = f"a run was asked for {request.attempt} times and never started"
        return (
            replace(again, kind="give_up", key=_key(state, "never", request.epoch), reason=why),
        )
    return ()


def _judge(line: Line, state: LineState, now_ms: int) -> tuple[Action, ...]:
    """Let a challenger in, or not, once it has answered enough."""
    del now_ms
    placed = state.placed
    if not placed:
        return ()
    approved = state.approvals.get(placed.package)
    if approved is False:
        return (_withdraw(state, "it was not approved"),)
    if state.challenger.n < line.rollout.decide_after:
        return ()
    judgement = judge(state.challenger, state.beside, line.rollout.roll_back_on)
    if not judgement.passed:
        return (_withdraw(state, judgement.reason),)
    kind: Kind = "ask" if line.rollout.decide == "ask" and not approved else "promote"
    return (
        Action(
            kind=kind,
            key=_key(state, kind, placed.package, placed.since_seq),
            package=placed.package,
            reason=judgement.reason,
        ),
    )


def _offer(line: Line, state: LineState, now_ms: int) -> tuple[Action, ...]:
    """Put a package that passed its gates into service as a challenger."""
    del now_ms
    candidate = state.candidate
    if not candidate or state.placed or candidate.package in state.rollout.condemned:
        return ()
    if not state.rollout.stable:
        return (
            Action(
                kind="deploy",
                key=f"first:{state.line}:{candidate.package}",  # the run itself uses it as well
                package=candidate.package,
                run=candidate.run,
                reason="the first package that passed its gates",
            ),
        )
    share = line.rollout.canary
    kind: Kind = "canary" if share > 0 else "shadow"
    return (
        Action(
            kind=kind,
            key=_key(state, kind, candidate.package, candidate.run),
            package=candidate.package,
            run=candidate.run,
            share=share,
            reason=f"passed its gates in {candidate.run}",
        ),
    )


def _train(line: Line, state: LineState, now_ms: int) -> tuple[Action, ...]:
    """Start a run when a trigger asks for one and nothing else is under way."""
    busy = state.running or state.request or state.candidate or state.placed
    if busy or not state.rollout.stable:
        return ()
    wait_ms = BACK_OFF_MS * 2 ** (state.failures - 1) if state.failures else 0
    if abs(now_ms - state.failed_ms) < wait_ms:
        return ()
    for name, threshold in line.retrain.when.items():
        reason = trigger(name).reason(state, threshold, now_ms)
        if reason:
            return (
                Action(
                    kind="start_run",
                    key=_key(state, "run", state.epoch, 1),
                    reason=f"{name}: {reason}",
                    trigger=name,
                    attempt=1,
                    epoch=state.epoch,
                ),
            )
    return ()


@cache
def trigger(name: str) -> Trigger:
    """Return a trigger of the catalog.

    Raises:
        Problem: G105 when there is none of that name.
    """
    made: Any = resolve("trigger", name)()
    checked: Trigger = made
    return checked
