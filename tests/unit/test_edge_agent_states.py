"""The agent's state machine: whatever happens in whatever order, something good answers."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.core.codec import decode, encode
from genba.edge.agent.record import told
from genba.edge.agent.rules import Judged, Plan, Tally, judge, plan_of
from genba.edge.agent.states import due, free_slot, step
from genba.edge.agent.values import (
    Confirmed,
    Event,
    Failed,
    Fetched,
    Filled,
    Forgiven,
    Healthy,
    Observed,
    Offer,
    Offered,
    Proven,
    Rejected,
    Started,
    State,
    Verified,
)

PLAN = Plan(shadow_answers=10, canary_answers=10, watch_answers=10)
GOOD = Tally(answers=10, compared=10, span_ms=1_000)
BAD = replace(GOOD, disagreed=10)
HOUR_MS = 3_600_000

numbers = st.integers(1, 5)
tallies = st.builds(
    Tally,
    answers=st.integers(0, 30),
    compared=st.integers(0, 10),
    disagreed=st.integers(0, 10),
    failed=st.integers(0, 3),
    trips=st.integers(0, 40),
    span_ms=st.integers(0, 3 * HOUR_MS),
)
plans = st.builds(
    Plan,
    confirm=st.sampled_from(["updates", "always", "never"]),
    shadow_answers=st.integers(1, 20),
    canary_answers=st.integers(1, 20),
    starts=st.integers(1, 3),
)
events = st.one_of(
    st.builds(Offered, offer=st.builds(Offer, release=numbers, digest=st.just("d"))),
    st.just(Fetched()),
    st.builds(Filled, slot=st.sampled_from(["a", "b"])),
    st.builds(Verified, package=st.just("p"), root=st.just("r"), plan=plans),
    st.just(Proven()),
    st.builds(Failed, reason=st.just("broken")),
    st.builds(Confirmed, release=numbers, by=st.just("kei")),
    st.builds(Rejected, release=numbers, by=st.just("kei")),
    st.builds(Observed, candidate=tallies, active=tallies),
    st.just(Started()),
    st.just(Healthy()),
    st.builds(Forgiven, release=numbers),
)


def run(state: State, *happened: Event, now_ms: int = 0) -> State:
    for event in happened:
        state = step(state, event, now_ms)
    return state


def installed(release: int, plan: Plan = PLAN) -> tuple[Event, ...]:
    """The events that bring a release into a slot and through its self-test."""
    offer = Offer(release=release, digest=f"d{release}")
    return (
        Offered(offer=offer),
        Fetched(),
        Filled(slot="a" if release % 2 else "b"),
        Verified(package=f"p{release}", root=f"r{release}", plan=plan),
        Proven(),
    )


def in_service(plan: Plan = PLAN) -> State:
    return run(State(line="pump"), *installed(1, plan))


def active_of(state: State) -> int:
    assert state.active is not None
    return state.active.release


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(events, st.integers(0, 100 * HOUR_MS)), max_size=40))
def test_whatever_happens(happened: list[tuple[Event, int]]) -> None:
    state, now_ms = State(line="pump"), 0
    for event, later_ms in happened:
        before, now_ms = state, now_ms + later_ms
        state = step(before, event, now_ms)
        check(before, event, state)
        assert decode(State, encode(state)) == state
        assert step(before, event, now_ms) == state
        if state != before:
            assert told(before, state)


def check(before: State, event: Event, after: State) -> None:
    held = [i for i in (after.active, after.candidate, after.previous) if i is not None]
    assert len({i.slot for i in held}) == len(held), "two releases in one slot"
    assert before.active is None or after.active is not None, "nothing answers any more"
    assert free_slot(after) not in {i.slot for i in (after.active, after.candidate) if i}
    assert due(after) != "fill" or after.previous is None, "a slot that is named is written to"
    for install in (after.candidate, after.offer):
        if install is not None:
            assert after.refusal(install.release) is None, "a refused release is tried again"
    if after.active is not None and before.active is not None:
        check_change(before, event, after)


def check_change(before: State, event: Event, after: State) -> None:
    assert before.active is not None
    assert after.active is not None
    if after.active.release == before.active.release:
        return
    if after.active.release > before.active.release:
        assert isinstance(event, Observed)
        assert before.candidate is not None
        assert before.candidate.phase == "canary"
        assert before.candidate.confirmed_by, "nobody agreed"
        assert after.previous is not None
        assert after.previous.release == before.active.release
    else:
        assert before.previous is not None
        assert after.active.release == before.previous.release
        assert after.refusal(before.active.release) is not None


def test_the_first_release_goes_into_service_by_itself() -> None:
    state = in_service()
    assert active_of(state) == 1
    assert state.candidate is None
    assert due(state) == "none"


def test_the_first_release_waits_where_its_plan_says_so() -> None:
    plan = replace(PLAN, confirm="always")
    state = in_service(plan)
    assert state.active is None
    assert state.candidate is not None
    assert state.candidate.phase == "tested"
    assert active_of(run(state, Confirmed(release=1, by="kei"))) == 1


def test_the_whole_way_of_an_update() -> None:
    state = run(in_service(), *installed(2))
    assert state.candidate is not None
    assert state.candidate.phase == "shadow"
    state = run(state, Observed(candidate=GOOD))
    assert state.candidate is not None
    assert state.candidate.phase == "shadow", "nobody agreed yet"
    state = run(state, Confirmed(release=2, by="kei"), Observed(candidate=GOOD))
    assert state.candidate is not None
    assert (state.candidate.phase, state.candidate.confirmed_by) == ("confirmed", "kei")
    state = run(state, Observed())
    assert state.candidate is not None
    assert state.candidate.phase == "canary"
    state = run(state, Observed(candidate=GOOD))
    assert active_of(state) == 2
    assert state.previous is not None
    assert state.previous.release == 1
    state = run(state, Observed(active=GOOD))
    assert state.active is not None
    assert state.active.settled


def test_nobody_is_asked_where_the_plan_says_so() -> None:
    plan = replace(PLAN, confirm="never")
    state = run(in_service(), *installed(2, plan), Observed(candidate=GOOD), Observed())
    assert state.candidate is not None
    assert state.candidate.phase == "canary"


@pytest.mark.parametrize("phase", ["shadow", "canary"])
def test_a_release_that_decides_otherwise_is_thrown_out(phase: str) -> None:
    state = run(in_service(), *installed(2))
    if phase == "canary":
        agreed = (Confirmed(release=2, by="kei"), Observed(candidate=GOOD), Observed())
        state = run(state, *agreed)
    state = run(state, Observed(candidate=BAD))
    assert active_of(state) == 1
    assert state.candidate is None
    refusal = state.refusal(2)
    assert refusal is not None
    assert "10 of 10 decisions differ" in refusal.reason
    again = run(state, Offered(offer=Offer(release=2, digest="d2")))
    assert again == state, "it is not taken again"
    forgiven = run(state, Forgiven(release=2), Offered(offer=Offer(release=2, digest="d2")))
    assert forgiven.offer is not None


def update_in_service() -> State:
    agreed = (Confirmed(release=2, by="kei"), Observed(candidate=GOOD), Observed())
    return run(in_service(), *installed(2), *agreed, Observed(candidate=GOOD))


def test_a_release_in_service_goes_back() -> None:
    state = run(update_in_service(), Observed(active=replace(GOOD, trips=60, span_ms=HOUR_MS)))
    assert active_of(state) == 1
    refusal = state.refusal(2)
    assert refusal is not None
    assert "stepped in 60 times" in refusal.reason


def test_a_crash_loop_goes_back() -> None:
    state = run(update_in_service(), *[Started()] * 3, Healthy(), *[Started()] * 3)
    assert active_of(state) == 2, "it had answered in between"
    assert active_of(run(state, Started())) == 1


def test_a_crash_loop_in_a_trial_blames_what_is_on_trial() -> None:
    state = run(in_service(), *installed(2), *[Started()] * 4)
    assert active_of(state) == 1
    assert state.candidate is None
    refusal = state.refusal(2)
    assert refusal is not None
    assert "started 4 times" in refusal.reason


def test_with_nothing_to_go_back_to_it_stays() -> None:
    state = run(in_service(), *[Started()] * 9, Observed(active=BAD), Rejected(release=1, by="k"))
    assert active_of(state) == 1


def test_a_shadow_that_gets_no_answers_is_given_up() -> None:
    state = run(in_service(), *installed(2))
    few = Observed(candidate=Tally(answers=2))
    assert run(state, few, now_ms=71 * HOUR_MS).candidate is not None
    late = run(state, few, now_ms=73 * HOUR_MS)
    assert late.candidate is None
    assert late.refusal(2) is not None


def test_a_canary_that_gets_no_answers_is_given_up() -> None:
    agreed = (Confirmed(release=2, by="kei"), Observed(candidate=GOOD), Observed())
    state = run(in_service(), *installed(2), *agreed)
    late = run(state, Observed(), now_ms=73 * HOUR_MS)
    assert active_of(late) == 1
    assert late.refusal(2) is not None


def test_a_newer_release_takes_the_place_of_one_in_shadow() -> None:
    state = run(in_service(), *installed(2), Offered(offer=Offer(release=3, digest="d3")))
    assert state.candidate is None
    assert state.offer is not None
    assert state.offer.release == 3
    assert due(state) == "fetch"


def test_an_older_release_is_not_taken() -> None:
    state = run(update_in_service(), Offered(offer=Offer(release=1, digest="d1")))
    assert state.offer is None


@pytest.mark.parametrize(
    ("tally", "beside", "said"),
    [
        (replace(GOOD, failed=5), Tally(), "5 of 10 answers failed"),
        (replace(GOOD, abstained=9), Tally(), "9 of 10 answers were abstentions"),
        (replace(GOOD, unlikely=9), Tally(), "looked unlike"),
        (replace(GOOD, trips=99), Tally(), "stepped in 99 times"),
        (replace(GOOD, abstained=9), Tally(answers=30, abstained=29), ""),
        (replace(GOOD, trips=99), Tally(answers=30, trips=500, span_ms=HOUR_MS), ""),
        (Tally(answers=3, abstained=1), Tally(), ""),
    ],
)
def test_rules(tally: Tally, beside: Tally, said: str) -> None:
    judged = judge(tally, beside, PLAN, 10)
    assert (said in " ".join(judged.broken)) if said else not judged.broken


def test_a_trial_that_ends_over_its_limit_is_over_its_limit() -> None:
    tally = Tally(answers=1_000, compared=1_000, disagreed=55)  # 5.5 %: by chance, one in five
    assert judge(tally, Tally(), PLAN, 2_000) == Judged(broken=(), complete=False)
    assert judge(tally, Tally(), PLAN, 1_000).broken


def test_a_plan_of_a_newer_factory_is_read() -> None:
    given: dict[str, Any] = {"starts": 9, "moon": "full"}
    assert decode(Plan, plan_of(given)).starts == 9
