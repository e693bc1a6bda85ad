"""In whatever order things happen: one answer for every request, from a package that may give it.

A line is driven by hand: the clock, the event loop and the threads are the test's, so every
interleaving of requests, batches, failures, hung engines and placements can be replayed.
"""

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from genba.core.rollout import Rollout, fold
from genba.core.values import Event
from genba.serve.http.responses import Refusal
from genba.serve.lanes.jobs import Job
from genba.serve.lanes.pool import Pool, Turn
from genba.serve.limits import Limits
from genba.testing.clockwork import Asked, Hands, Loop, World
from genba.testing.lanes import NOT_A_NUMBER, UNLUCKY, Heard, numbers

PACKAGES = ("a", "b", "c", "d")
#: Seconds of a batch by package: the first two run on the event loop, the others on threads.
SECONDS = {"a": 0.0, "b": 0.0, "c": 0.05, "d": 0.05}
LIMITS = Limits(queue_rows=12, queue_bytes=400, threads=2, spare_threads=2, stuck_s=1.0)
DEADLINES_S = (0.01, 0.3, 3.0)
#: Numbers, deadline, and whether somebody waits.
REQUEST = st.tuples(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, UNLUCKY, NOT_A_NUMBER]), min_size=1, max_size=3),
    st.sampled_from((*DEADLINES_S, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0)),
    st.sampled_from([True, True, False]),
)


class LineMachine(RuleBasedStateMachine):
    """All that can happen to a line."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.CRITICAL)  # clients that are gone are logged, over and over
        self.world = World(LIMITS, SECONDS)
        self.calls: list[Asked] = []
        self.refused_at_once = 0
        self.asleep: frozenset[str] = frozenset()
        self.seq = 0

    @initialize(package=st.sampled_from(PACKAGES))
    def begin(self, package: str) -> None:
        self.deploy("deploy", package, 1.0)

    @rule(
        requests=st.lists(REQUEST, min_size=1, max_size=4),
        pin=st.integers(0, 9),
        turn=st.sampled_from([True, True, False]),
    )
    def ask(
        self,
        requests: list[tuple[list[float], float, bool]],
        pin: int,
        turn: bool,
    ) -> None:
        pins = dict(enumerate(("a", *sorted(self.world.answering)), start=7))
        version = pins.get(pin)  # seldom
        for values, deadline_s, urgent in requests:
            self._ask(values, deadline_s, urgent, version)
        if turn:
            self.world.loop.run()

    def _ask(
        self, values: list[float], deadline_s: float, urgent: bool, version: str | None
    ) -> None:
        call = Asked(self.world, values, deadline_s, urgent)
        if version is not None:
            call.may &= {version}
        self.calls.append(call)
        try:
            self.world.line.ask(call, version, lambda schema: numbers(values))
        except Refusal as refusal:
            assert not call.told
            call.told.append(refusal)
            self.refused_at_once += 1

    @rule(urgent=st.booleans(), deadline_s=st.sampled_from(DEADLINES_S))
    def admit(self, urgent: bool, deadline_s: float) -> None:
        try:
            refusal = self.world.line.admit(None, 4, self.world.now + deadline_s, urgent=urgent)
        except Refusal as none_in_service:
            refusal = none_in_service
        assert refusal is None or refusal.status == 503

    @rule()
    def turn(self) -> None:
        self.world.loop.run()

    @precondition(lambda self: self.world.hands.work)
    @rule(at=st.integers(0, 9), most=st.integers(1, 4), turn=st.sampled_from([True, True, False]))
    def finish(self, at: int, most: int, turn: bool) -> None:
        work = self.world.hands.work
        for _ in range(min(most, len(work))):
            work.pop(at % len(work))()
            if turn:
                self.world.loop.run()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.05, 0.1, 0.4, 2.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.line.expire(self.world.now)

    @rule(
        action=st.sampled_from(["deploy", "canary", "canary", "shadow", "promote"]),
        package=st.sampled_from(PACKAGES),
        share=st.sampled_from([0.5, 1.0]),
    )
    def place(self, action: str, package: str, share: float) -> None:
        self.deploy(action, package, share)

    @precondition(lambda self: self.world.answering)
    @rule(
        action=st.sampled_from(["roll_back", "withdraw"]),
        at=st.integers(0, 1),
        then=st.sampled_from(["", *PACKAGES]),
    )
    def take_out(self, action: str, at: int, then: str) -> None:
        answering = sorted(self.world.answering)
        self.deploy(action, answering[at % len(answering)], 0.0)
        if then and not self.world.answering:
            self.deploy("deploy", then, 1.0)

    @precondition(lambda self: not self.world.answering)
    @rule(package=st.sampled_from(PACKAGES))
    def begin_anew(self, package: str) -> None:
        self.deploy("deploy", package, 1.0)

    def deploy(self, action: str, package: str, share: float) -> None:
        self.seq += 1
        event = Event(
            seq=self.seq,
            time_ms=self.seq,
            kind="deploy",
            line="pump",
            subject=package,
            body={"action": action, "package": package, "share": share},
            previous="",
            digest="",
        )
        self._place(fold([event], self.world.rollout))

    @precondition(lambda self: not self.asleep)
    @rule(asleep=st.sampled_from(PACKAGES))
    def sleep(self, asleep: str) -> None:
        self.asleep = frozenset({asleep})
        self._place(self.world.rollout)

    @precondition(lambda self: self.world.woken)
    @rule()
    def wake(self) -> None:
        self.asleep -= {*self.world.woken}
        self.world.woken.clear()
        self._place(self.world.rollout)

    @precondition(lambda self: self.calls)
    @rule(at=st.integers(0, 9))
    def lose_connection(self, at: int) -> None:
        self.calls[-1 - at % len(self.calls)].lost = True

    def _place(self, rollout: Rollout) -> None:
        world = self.world
        before = world.rollout
        world.rollout = rollout  # what is answered inside of `place` counts as after it
        for call in self.calls:
            if not call.told:
                call.may |= world.answering
        world.rollout = before
        world.place(rollout, self.asleep)

    @invariant()
    def every_answer_is_right(self) -> None:
        assert self.world.wrong == []

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        assert all(len(call.told) <= 1 for call in self.calls)

    @invariant()
    def no_package_computes_or_is_closed_twice(self) -> None:
        assert all(m.closed <= 1 and not m.used_after_close for m in self.world.loaded)

    @invariant()
    def threads_are_bounded(self) -> None:
        pool = self.world.pool
        assert 0 <= pool.running <= LIMITS.threads
        assert self.world.hands.count <= LIMITS.threads + LIMITS.spare_threads
        assert pool.running + pool.lost == len(self.world.hands.work) + len(
            [1 for callback, _ in self.world.loop.soon if callback == pool._done]
        )

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        world = self.world
        for _ in range(3):
            world.now += max(DEADLINES_S) + 1  # every deadline has passed, every hung batch ends
            world.loop.run()
            world.line.expire(world.now)
            while world.hands.work:
                world.hands.work.pop()()
                world.loop.run()
        assert not world.line.busy
        assert all(len(call.told) == 1 for call in self.calls)
        self._check_counts()
        world.place(Rollout(), frozenset())
        assert all(model.closed == 1 for model in world.loaded)

    def _check_counts(self) -> None:
        self.world.cut()
        answered = [call for call in self.calls if not isinstance(call.told[0], Refusal)]
        counts = self.world.metrics._requests
        broken = sum(call.broke for call in answered)
        assert counts["infer", 200] == len(answered) - broken
        assert counts.total() + self.refused_at_once == len(self.calls) - broken
        well = sum(
            rows
            for package in self.world.metrics._packages.values()
            for (_, status), rows in package.predictions.items()
            if status != "error"
        )
        shown = sum(
            job.rows
            for part in self.world.parts
            for job in part.jobs
            if part.error is None and job.role == "shadow" and not job.given_up
        )
        assert well == shown + sum(len(call.values) for call in answered)
        assert len({call.first for call in answered}) == len(answered)
        assert sum(tally.n - tally.errors for tally in self.world.tallies) == well


LineMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLine = LineMachine.TestCase


class Backlog:
    """A lane that always has something to compute.

    Args:
        costs: Seconds of its batches, again and again.
        error: How far its forecasts are off.
    """

    def __init__(self, costs: Sequence[float], error: float, *, urgent: bool = True) -> None:
        self.virtual_s = 0.0
        self.used_s = 0.0
        self.costs = costs
        self.most_s = max(costs) * max(error, 1.0)
        self._error = error
        self._batches = 0
        self._urgent = urgent

    def may_run(self, threads: int) -> bool:
        return True

    def begin(self, now: float) -> Turn | None:
        self._batches += 1
        job: Any = Heard(urgent=self._urgent)
        job.rows = 1
        cost = self.costs[self._batches % len(self.costs)]
        turn = Turn(self, [job], cost * self._error, now)
        turn.rows = round(cost * 1e9)
        return turn

    def compute(self, jobs: Sequence[Job]) -> list[Any]:
        raise AssertionError("time is all that counts here")

    def done(self, turn: Turn, parts: Sequence[Any], now: float) -> None:
        self.used_s += turn.rows / 1e9


def serve_for(seconds: float, lanes: Sequence[Backlog], threads: int) -> None:
    """Let lanes compete for threads, by the clock of a simulation."""
    now = 0.0
    loop: Any = Loop()
    started: list[tuple[float, Turn]] = []
    pool = Pool(loop, Limits(threads=threads), Hands(), lambda: now)
    real = pool._start

    def start(turn: Turn) -> None:
        real(turn)
        started.append((now + turn.rows / 1e9, turn))

    pool._start = start  # type: ignore[method-assign]  # the clock needs to know
    for lane in lanes:
        pool.ready(lane)
    while now < seconds:
        started.sort(key=lambda pair: pair[0])
        now, turn = started.pop(0)
        done: Any = SimpleNamespace(seconds=turn.rows / 1e9)
        pool._threads.work.clear()  # type: ignore[attr-defined]  # nobody computes here
        pool._done(turn, [done])


COSTS = st.lists(st.floats(0.001, 0.2), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(COSTS, st.sampled_from([0.5, 1.0, 2.0])), min_size=2, max_size=6),
    st.integers(1, 3),
)
def test_lanes_with_long_queues_get_equal_shares(
    lanes_of: list[tuple[list[float], float]], threads: int
) -> None:
    """The bound is that of start-time fair queueing: what the two lanes may have in service."""
    lanes = [Backlog(costs, error) for costs, error in lanes_of]
    serve_for(20.0, lanes, threads)
    most = sorted(lane.most_s for lane in lanes)
    bound = (threads + 1) * (most[-1] + most[-2])
    used = [lane.used_s for lane in lanes]
    assert max(used) - min(used) <= bound


def test_what_nobody_waits_for_gets_less_but_something() -> None:
    urgent, other = Backlog([0.05], 1.0), Backlog([0.05], 1.0, urgent=False)
    serve_for(20.0, [urgent, other], threads=1)
    assert 3.5 < urgent.used_s / other.used_s < 4.5


def test_a_lane_that_was_idle_has_saved_nothing_up() -> None:
    now = 0.0
    loop: Any = Loop()
    pool = Pool(loop, Limits(threads=1), Hands(), lambda: now)
    busy, late = Backlog([0.05], 1.0), Backlog([0.05], 1.0)
    serve_for(5.0, [busy], threads=1)
    pool.ready(busy)
    pool.ready(late)
    assert busy.virtual_s > 4.9
    assert late.virtual_s >= pool._now_s - 0.05
