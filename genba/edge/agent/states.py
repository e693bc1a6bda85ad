"""What becomes of a release on a device: a pure function from state and event to the next state.

    downloaded -> verified -> tested -> shadow -> (a person) confirmed -> canary -> active
                                                                              previous <-'

The state is one frozen value that is written in one piece, so whatever interrupts the device leaves
the old one or the new one. What must be done next follows from the state alone (`due`), so that
work that was cut off is simply done again. There are two slots: one holds what answers, the other
what is on trial, or what answered before. A slot that a state names is never written to.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Literal

from genba.edge.agent.rules import Tally, judge
from genba.edge.agent.values import (
    Confirmed,
    Event,
    Failed,
    Fetched,
    Filled,
    Forgiven,
    Healthy,
    Install,
    Observed,
    Offered,
    Phase,
    Proven,
    Refused,
    Rejected,
    Slot,
    Started,
    State,
    Verified,
)

Effect = Literal["fetch", "fill", "verify", "test", "wait", "none"]

_REFUSED: Final = 64  # refusals that are remembered
_ANSWERS: Final = ("canary", "active")
_TRIED: Final = ("shadow", "confirmed", "canary")
_HOUR_MS: Final = 3_600_000


def due(state: State) -> Effect:
    """Return what the agent has to do next; "wait" where answers or a person are awaited.

    Example:
        >>> from genba.edge.agent.values import Offer
        >>> due(State(line="pump", offer=Offer(release=1, digest="d")))
        'fetch'
    """
    if state.candidate is not None:
        steps: dict[str, Effect] = {"downloaded": "verify", "verified": "test"}
        return steps.get(state.candidate.phase, "wait")
    if state.offer is not None:
        return "fill" if state.offer.fetched else "fetch"
    return "none"


def free_slot(state: State) -> Slot:
    """Return the slot that does not answer and is not on trial."""
    taken = {i.slot for i in (state.active, state.candidate) if i is not None}
    return "b" if "a" in taken else "a"


def step(state: State, event: Event, now_ms: int) -> State:
    """Return the state after an event; an event that does not fit changes nothing.

    Args:
        state: Before.
        event: What happened.
        now_ms: Trusted time, ms since 1970 UTC.

    Example:
        >>> from genba.edge.agent.values import Offer
        >>> state = step(State(line="pump"), Offered(offer=Offer(release=3, digest="d")), 0)
        >>> state.offer.release, due(step(state, Fetched(), 0))
        (3, 'fill')
    """
    return _HANDLERS[type(event)](state, event, now_ms)


def _offered(state: State, event: Offered, _now_ms: int) -> State:
    offer, candidate = event.offer, state.candidate
    have = [i.release for i in (state.active, candidate) if i is not None]
    if offer.release <= max(have, default=0) or state.refusal(offer.release):
        return state
    if state.offer is not None and state.offer.release >= offer.release:
        return state
    if candidate is not None and candidate.phase not in _ANSWERS:
        state = replace(state, candidate=None)  # newer than what is only being tried
    return replace(state, offer=offer)


def _fetched(state: State, _event: Fetched, _now_ms: int) -> State:
    if state.offer is None or state.candidate is not None:
        return state
    # From here on the slot of the release before is written to, so it is forgotten first.
    return replace(state, offer=replace(state.offer, fetched=True), previous=None)


def _filled(state: State, event: Filled, now_ms: int) -> State:
    offer = state.offer
    if offer is None or not offer.fetched or state.in_slot(event.slot) is not None:
        return state
    made = Install(
        release=offer.release,
        digest=offer.digest,
        slot=event.slot,
        phase="downloaded",
        since_ms=now_ms,
    )
    return replace(state, candidate=made, offer=None)


def _verified(state: State, event: Verified, now_ms: int) -> State:
    if state.candidate is None or state.candidate.phase != "downloaded":
        return state
    known = replace(state.candidate, package=event.package, root=event.root, plan=event.plan)
    return replace(state, candidate=_in_phase(known, "verified", now_ms))


def _proven(state: State, _event: Proven, now_ms: int) -> State:
    candidate = state.candidate
    if candidate is None or candidate.phase != "verified":
        return state
    if state.active is None:
        if candidate.plan.confirm == "always" and not candidate.confirmed_by:
            return replace(state, candidate=_in_phase(candidate, "tested", now_ms))
        return _promote(replace(state, candidate=candidate), now_ms)
    # "tested" is passed through: beside a release in service the trial begins at once.
    return replace(state, candidate=_in_phase(candidate, "shadow", now_ms), starts=0)


def _failed(state: State, event: Failed, now_ms: int) -> State:
    if state.candidate is not None:
        return _throw_out(state, event.reason, now_ms)
    if state.offer is not None:
        return replace(_remember(state, state.offer.release, event.reason, now_ms), offer=None)
    return state


def _confirmed(state: State, event: Confirmed, now_ms: int) -> State:
    candidate = state.candidate
    if candidate is None or candidate.release != event.release or candidate.phase in _ANSWERS:
        return state
    agreed = replace(candidate, confirmed_by=event.by or "somebody")
    state = replace(state, candidate=agreed)
    if agreed.phase == "tested":
        return _promote(state, now_ms)
    return state


def _rejected(state: State, event: Rejected, now_ms: int) -> State:
    reason = f"{event.by}: {event.reason}" if event.reason else f"refused by {event.by}"
    if state.candidate is not None and state.candidate.release == event.release:
        return _throw_out(state, reason, now_ms)
    if state.offer is not None and state.offer.release == event.release:
        return replace(_remember(state, event.release, reason, now_ms), offer=None)
    if state.active is not None and state.active.release == event.release:
        return _go_back(state, reason, now_ms)
    if state.previous is not None and state.previous.release == event.release:
        return replace(_remember(state, event.release, reason, now_ms), previous=None)
    return _remember(state, event.release, reason, now_ms)


def _observed(state: State, event: Observed, now_ms: int) -> State:
    if state.candidate is not None and state.candidate.phase in _TRIED:
        return _tried(state, state.candidate, event, now_ms)
    active = state.active
    if active is None or active.settled:
        return state
    judged = judge(event.active, Tally(), active.plan, active.plan.watch_answers)
    if judged.broken and state.previous is not None:
        return _go_back(state, "; ".join(judged.broken), now_ms)
    if judged.complete:
        return replace(state, active=replace(active, settled=True))
    return state


def _tried(state: State, candidate: Install, event: Observed, now_ms: int) -> State:
    plan, shadow = candidate.plan, candidate.phase == "shadow"
    needed = plan.shadow_answers if shadow else plan.canary_answers
    if candidate.phase == "confirmed":  # on the way; what it shows from now on is a canary's
        return replace(state, candidate=_in_phase(candidate, "canary", now_ms), starts=0)
    judged = judge(event.candidate, event.active, plan, needed)
    if judged.broken:
        return _throw_out(state, "; ".join(judged.broken), now_ms)
    if not judged.complete:
        late = now_ms - candidate.since_ms > plan.trial_hours * _HOUR_MS
        told = f"{event.candidate.answers} answers in {plan.trial_hours:g} hours, {needed} needed"
        return _throw_out(state, told, now_ms) if late else state
    if not shadow:
        return _promote(state, now_ms)
    if plan.confirm == "never" or candidate.confirmed_by:
        agreed = replace(candidate, confirmed_by=candidate.confirmed_by or "the plan")
        return replace(state, candidate=_in_phase(agreed, "confirmed", now_ms))
    return state


def _started(state: State, _event: Started, now_ms: int) -> State:
    tried = state.candidate is not None and state.candidate.phase in ("shadow", "canary")
    judged = state.candidate if tried else state.active
    if judged is None:
        return state
    starts = state.starts + 1
    if starts <= judged.plan.starts:
        return replace(state, starts=starts)
    reason = f"started {starts} times without a healthy answer"
    if tried:
        return _throw_out(state, reason, now_ms)
    return _go_back(replace(state, starts=0), reason, now_ms) if state.previous else state


def _healthy(state: State, _event: Healthy, _now_ms: int) -> State:
    return replace(state, starts=0) if state.starts else state


def _forgiven(state: State, event: Forgiven, _now_ms: int) -> State:
    kept = tuple(r for r in state.refused if r.release != event.release)
    return state if len(kept) == len(state.refused) else replace(state, refused=kept)


def _in_phase(install: Install, phase: Phase, now_ms: int) -> Install:
    return replace(install, phase=phase, since_ms=now_ms)


def _promote(state: State, now_ms: int) -> State:
    assert state.candidate is not None
    before = None if state.active is None else _in_phase(state.active, "previous", now_ms)
    taken = replace(_in_phase(state.candidate, "active", now_ms), settled=False)
    return replace(state, active=taken, previous=before, candidate=None, starts=0)


def _throw_out(state: State, reason: str, now_ms: int) -> State:
    assert state.candidate is not None
    state = _remember(state, state.candidate.release, reason, now_ms)
    return replace(state, candidate=None, starts=0)


def _go_back(state: State, reason: str, now_ms: int) -> State:
    """Let the release before answer again; without one the release in service stays."""
    before = state.previous
    if state.active is None or before is None:
        return state
    state = _remember(state, state.active.release, reason, now_ms)
    restored = replace(_in_phase(before, "active", now_ms), settled=True)
    return replace(state, active=restored, previous=None, starts=0)


def _remember(state: State, release: int, reason: str, now_ms: int) -> State:
    if state.refusal(release):
        return state
    more = (*state.refused, Refused(release=release, reason=reason, time_ms=now_ms))
    return replace(state, refused=more[-_REFUSED:])


_HANDLERS: Final[dict[type, Callable[[State, Any, int], State]]] = {
    Offered: _offered,
    Fetched: _fetched,
    Filled: _filled,
    Verified: _verified,
    Proven: _proven,
    Failed: _failed,
    Confirmed: _confirmed,
    Rejected: _rejected,
    Observed: _observed,
    Started: _started,
    Healthy: _healthy,
    Forgiven: _forgiven,
}
