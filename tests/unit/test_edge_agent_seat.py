"""What answers on a device: who gets which input, what is counted, what a crash leaves behind."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.agent.arriving import Arriving
from genba.edge.agent.counting import Canary, same, tally_of
from genba.edge.agent.observed import observed, read_counts
from genba.edge.agent.record import FOLDER, Record
from genba.edge.agent.rules import Plan, Tally
from genba.edge.agent.seat import Seat
from genba.edge.agent.values import (
    Confirmed,
    Event,
    Fetched,
    Filled,
    Install,
    Offer,
    Offered,
    Proven,
    Rejected,
    State,
    Verified,
)
from genba.edge.clocks import HandClock
from genba.edge.safety import Answer, Trip

PLAN = Plan(shadow_answers=4, canary_answers=4, watch_answers=50, canary_share=0.5, starts=2)
NO, YES = np.array([False]), np.array([True])


@dataclass
class Release:
    """A release that says what it is told."""

    number: int
    alarm: Array = field(default_factory=lambda: NO)
    fails: bool = False
    closed: int = 0
    asked: int = 0

    def answer(self, sample: Any) -> Answer:
        self.asked += 1
        if self.fails:
            raise RuntimeError("it broke")
        return Answer({"alarm": self.alarm}, "model")

    def close(self) -> None:
        self.closed += 1


class Bench:
    """A device with release 1 in service."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.record = Record(state / FOLDER, "pump")
        self.clock = HandClock()
        self.releases = {number: Release(number) for number in (1, 2, 3)}
        self.opened: list[tuple[int, str]] = []
        self.install(1)

    def take(self, *events: Event) -> State:
        for event in events:
            self.record.step(event, self.clock.now_ms())
        return self.record.read().state

    def install(self, release: int) -> State:
        state = self.record.read().state
        slot: Any = "b" if state.active and state.active.slot == "a" else "a"
        return self.take(
            Offered(offer=Offer(release=release, digest="d")),
            Fetched(),
            Filled(slot=slot),
            Verified(package=f"p{release}", root=f"r{release}", plan=PLAN),
            Proven(),
        )

    def seat(self, **how: Any) -> Seat:
        return Seat(self.state, "pump", self.make, self.clock, **{"background": False, **how})

    def make(self, install: Install, role: str) -> Release:
        self.opened.append((install.release, role))
        return self.releases[install.release]

    def judge(self) -> State:
        """What the agent does now and then."""
        state = self.record.read().state
        self.take(observed(read_counts(self.state / FOLDER), state))
        state = self.record.read().state
        if state.candidate and state.candidate.phase == "confirmed":
            return self.take(observed(read_counts(self.state / FOLDER), state))
        return state

    def answers(self, seat: Seat, count: int) -> list[int]:
        """Answer some inputs; return which release answered each."""
        found = []
        for n in range(count):
            self.clock.turn(300)
            told = seat.answer(n, key=str(n))
            seat.beside(n, told)
            found.append(told.release)
        seat.write()
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_in_service(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="G687"):
        Seat(tmp_path, "pump", lambda *_: Release(1))


def test_the_whole_way_of_an_update_without_a_restart(bench: Bench) -> None:
    seat = bench.seat()
    assert (seat.release, seat.install.package) == (1, "p1")
    bench.install(2)
    assert set(bench.answers(seat, 4)) == {1}, "a shadow's answers go nowhere"
    assert bench.releases[2].asked == 4
    bench.take(Confirmed(release=2, by="kei"))
    state = bench.judge()
    assert state.candidate is not None
    assert state.candidate.phase == "canary"
    answered = bench.answers(seat, 12)
    assert set(answered) == {1, 2}
    assert 3 <= answered.count(2) <= 9
    assert bench.answers(seat, 12) == bench.answers(seat, 12), "the same ones again"
    state = bench.judge()
    assert state.active is not None
    assert state.active.release == 2
    assert set(bench.answers(seat, 3)) == {2}
    assert bench.opened == [(1, "active"), (2, "shadow")], "it was loaded once"
    assert bench.releases[1].closed == 1
    bench.take(Rejected(release=2, by="kei"))
    assert set(bench.answers(seat, 2)) == {1}, "at once, and loaded anew"
    seat.close()


def test_a_shadow_that_disagrees_is_thrown_out(bench: Bench) -> None:
    seat = bench.seat()
    bench.releases[2].alarm = YES
    bench.install(2)
    bench.answers(seat, 4)
    counts = read_counts(bench.state / FOLDER)
    assert counts.candidate is not None
    assert (counts.candidate.tally.compared, counts.candidate.tally.disagreed) == (4, 4)
    state = bench.judge()
    assert state.candidate is None
    assert "4 of 4 decisions differ" in state.refused[-1].reason
    bench.answers(seat, 1)
    assert bench.releases[2].closed == 1


def test_a_shadow_that_fails_disturbs_nobody(bench: Bench) -> None:
    seat = bench.seat()
    bench.releases[2].fails = True
    bench.install(2)
    assert set(bench.answers(seat, 4)) == {1}
    assert "it broke" in seat.trouble
    assert bench.judge().candidate is None


def test_a_release_in_service_that_fails_is_counted(bench: Bench) -> None:
    seat = bench.seat()
    bench.releases[1].fails = True
    with pytest.raises(RuntimeError):
        seat.answer(0)
    seat.write()
    counts = read_counts(bench.state / FOLDER)
    assert counts.active is not None
    assert counts.active.tally.failed == 1


def test_counts_go_on_after_a_restart(bench: Bench) -> None:
    seat = bench.seat()
    bench.install(2)
    bench.answers(seat, 3)
    seat.close()
    again = bench.seat()
    bench.answers(again, 2)
    counts = read_counts(bench.state / FOLDER)
    assert counts.candidate is not None
    assert counts.candidate.tally.answers == 5
    assert counts.beside is not None
    assert counts.beside.tally.answers == 5
    assert 1_000 < counts.candidate.tally.span_ms < 3_000


def test_counts_of_another_stretch_are_not_taken_for_this_one(bench: Bench) -> None:
    seat = bench.seat()
    bench.releases[2].alarm = YES
    bench.install(2)
    bench.answers(seat, 4)
    bench.judge()
    bench.install(3)
    state = bench.record.read().state
    seen = observed(read_counts(bench.state / FOLDER), state)
    assert (seen.candidate, seen.active) == (Tally(), Tally())


def test_a_crash_loop_is_counted_and_ends(bench: Bench) -> None:
    bench.seat().close()
    bench.install(2)
    for _ in range(3):
        bench.seat()  # and killed before it had answered
    state = bench.record.read().state
    assert state.candidate is None
    assert "started 3 times" in state.refused[-1].reason


def test_what_answers_for_a_while_is_healthy(bench: Bench) -> None:
    seat = bench.seat()
    bench.answers(seat, 10)
    assert bench.record.read().state.starts == 1, "not for long enough"
    bench.answers(seat, 100)
    assert bench.record.read().state.starts == 0


def test_a_release_on_trial_that_cannot_be_opened(bench: Bench) -> None:
    def make(install: Install, role: str) -> Release:
        if install.release == 2:
            raise Problem("G601", "It cannot be loaded.", tries=[])
        return bench.make(install, role)

    seat = Seat(bench.state, "pump", make, bench.clock, background=False)
    bench.install(2)
    assert set(bench.answers(seat, 3)) == {1}
    assert "cannot be opened" in seat.trouble


def test_one_on_trial_is_opened_on_a_thread(bench: Bench) -> None:
    seat = bench.seat(background=True)
    bench.install(2)
    for _ in range(1_000):
        bench.answers(seat, 1)
        if bench.releases[2].asked:
            break
        threading.Event().wait(0.002)
    assert bench.releases[2].asked
    seat.close()
    assert bench.releases[2].closed == 1


def test_what_arrives_too_late_is_let_go(bench: Bench) -> None:
    go = threading.Event()
    release = Release(2)

    def make() -> Release:
        go.wait(10)
        return release

    state = bench.record.read().state
    assert state.active is not None
    arriving = Arriving(state.active, make)
    nothing: list[str] = []
    assert not arriving.ready(nothing.append)
    arriving.drop()
    go.set()
    arriving._thread.join()
    assert release.closed == 1
    assert arriving.take() is None

    def broken() -> Release:
        raise ValueError("no")

    told: list[str] = []
    failed = Arriving(state.active, broken)
    failed._thread.join()
    assert not failed.ready(told.append)
    assert told == ["release 1 cannot be opened: no"]


def answer(outputs: Mapping[str, Array] | None, action: Any = "model", *trips: Trip) -> Answer:
    return Answer(outputs, action, trips)


def test_what_an_answer_counts_as() -> None:
    unlike = Trip(cause="unusual:x", layer="unusual", detail="", time_ms=0, part="input")
    broken = Trip(cause="model:nan", layer="model", detail="", time_ms=0, part="model")
    plain = Tally(answers=1)
    assert tally_of(None) == replace(plain, failed=1)
    assert tally_of(answer(None, "abstain", unlike)) == replace(plain, abstained=1, unlikely=1)
    assert tally_of(answer({}, "rule", broken, broken)) == replace(plain, trips=2)
    by_rule = answer({"alarm": YES}, "rule")
    assert tally_of(answer({"alarm": NO}), by_rule).compared == 0, "no two models to compare"


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ({"x": np.array([1.0])}, {"x": np.array([1.01])}, True),
        ({"x": np.array([1.0])}, {"x": np.array([1.2])}, False),
        (None, None, True),
        (None, {"x": YES}, False),
        ({"x": YES, "y": NO}, {"x": YES}, True),
    ],
)
def test_the_same_decision(one: Any, other: Any, agree: bool) -> None:
    assert same(one, other) is agree


@pytest.mark.parametrize(("entities", "share", "taken"), [(1, 0.25, 1), (4, 0.25, 1), (8, 0.5, 4)])
def test_a_share_of_few_entities_is_at_least_one(entities: int, share: float, taken: int) -> None:
    for release in range(20):
        canary = Canary(share, f"r{release}")
        names = [f"turbine {n}" for n in range(entities)]
        for name in names:
            canary.takes(name)
        assert sum(canary.takes(name) for name in names) == taken


def test_a_share_of_many_keys_is_a_share() -> None:
    canary = Canary(0.25, "r")
    assert 1_000 < sum(canary.takes(str(n)) for n in range(5_000)) < 1_500
    assert len(canary._seen) < 100
