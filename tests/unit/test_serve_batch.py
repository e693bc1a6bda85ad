"""Lanes: what is computed together, what one bad request costs the others, and slow packages."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.serve.lanes.batch import Lane
from genba.serve.lanes.compute import reason
from genba.serve.lanes.curve import Curve
from genba.serve.lanes.jobs import Job, Part
from genba.serve.lanes.pool import Pool
from genba.serve.limits import Limits
from genba.testing.lanes import Doubler, Heard, numbers

LIMITS = Limits(queue_rows=16, stalls=2, threads=2, stuck_s=0.2)
POOLS: list[Pool] = []  # of the scenario; their threads end with it


class Seen:
    """What a lane reported."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.parts: list[Part] = []
        self.gone: list[tuple[Job, bool]] = []
        self.limits = limits
        self.pool = Pool(asyncio.get_running_loop(), limits)
        POOLS.append(self.pool)

    def lane(self, model: Doubler) -> Lane:
        return Lane(model, self.pool, self.limits, "pump", self)  # type: ignore[arg-type]  # a stand-in

    def write(self, part: Part) -> None:
        pass

    def finished(self, part: Part) -> None:
        self.parts.append(part)

    def expired(self, job: Job, *, at_fault: bool) -> None:
        self.gone.append((job, at_fault))


def job(*values: float, first: int = 0, deadline_s: float = 5.0, urgent: bool = True) -> Job:
    call = Heard(deadline_s, urgent=urgent)
    return Job(call, numbers(values), first, "stable")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await asyncio.wait_for(scenario(), 20)
        finally:
            while POOLS:
                POOLS.pop().close()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_one_turn_of_the_loop_is_one_batch() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Doubler()
        lane = seen.lane(model)
        assert lane.inline
        for value in (1, 2, 3):
            lane.submit(job(value))
        assert lane.waiting_rows == 3
        await asyncio.sleep(0)
        assert model.batches == [[1, 2, 3]]
        assert lane.idle
        assert model.threads == {threading.get_ident()}
        (part,) = seen.parts
        assert part.outputs["y"].tolist() == [2, 4, 6]
        assert part.bad_rows is None
        assert part.seconds > 0

    run(scenario)


def test_batches_count_rows_and_large_requests_are_whole() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Doubler()
        lane = seen.lane(model)
        sizes = (3, 3, 3, 12, 1)
        for size in sizes:
            lane.submit(job(*range(size)))
        await asyncio.sleep(0)
        assert [len(batch) for batch in model.batches] == [6, 3, 12, 1]
        assert sum(part.rows for part in seen.parts) == sum(sizes)

    run(scenario)


def test_the_queue_is_bounded_in_rows() -> None:
    async def scenario() -> None:
        lane = Seen().lane(Doubler())
        lane.submit(job(*range(10)))
        assert lane.has_room(6, 0)
        assert not lane.has_room(7, 0)
        await asyncio.sleep(0)
        assert lane.has_room(16, 0)

    run(scenario)


def test_a_failing_request_does_not_take_the_others_with_it() -> None:
    async def scenario() -> None:
        seen = Seen()
        lane = seen.lane(Doubler())
        for value in (1, 13, 3):
            lane.submit(job(value))
        await asyncio.sleep(0)
        assert [part.error is None for part in seen.parts] == [True, False, True]
        assert [part.tensors["x"].tolist() for part in seen.parts] == [[1], [13], [3]]

    run(scenario)


def test_not_a_number_is_told_by_row() -> None:
    async def scenario() -> None:
        seen = Seen()
        lane = seen.lane(Doubler())
        lane.submit(job(1, 99))
        lane.submit(job(2))
        await asyncio.sleep(0)
        (part,) = seen.parts
        assert part.bad_rows is not None
        assert part.bad_rows.tolist() == [False, True, False]

    run(scenario)


def test_a_slow_package_has_a_thread_and_batches_while_it_is_busy() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        seen, model = Seen(), Doubler(seconds=1.0, wait=lambda: gate.wait(10))
        lane = seen.lane(model)
        assert not lane.inline
        lane.submit(job(1))
        await asyncio.sleep(0.01)
        for value in (2, 3, 4):
            lane.submit(job(value))
        await asyncio.sleep(0.01)
        assert not lane.idle
        gate.set()
        await until(lambda: lane.idle)
        assert model.batches == [[1], [2, 3, 4]]
        assert threading.get_ident() not in model.threads
        assert len(model.threads) == 1
        lane.retire()
        assert model.closed

    run(scenario)


def test_a_package_that_becomes_slow_leaves_the_event_loop() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Doubler(wait=lambda: time.sleep(0.02))
        lane = seen.lane(model)
        for value in (1, 2, 3):
            lane.submit(job(value))
            await until(lambda: lane.idle)
        assert not lane.inline
        assert len(model.threads) == 2
        lane.retire()

    run(scenario)


def test_retiring_lets_the_last_job_finish() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Doubler()
        lane = seen.lane(model)
        lane.submit(job(1))
        lane.retire()
        assert not model.closed
        await asyncio.sleep(0)
        assert len(seen.parts) == 1
        assert model.closed

    run(scenario)


def test_a_stuck_package_does_not_hold_its_requests() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        seen, model = Seen(), Doubler(seconds=0.02, wait=lambda: gate.wait(10))
        lane = seen.lane(model)
        lane.submit(job(1))
        await asyncio.sleep(0.01)
        lane.submit(job(2))
        lane.submit(job(3, deadline_s=60))
        now = time.perf_counter()
        lane.expire(now + 1)  # it should have come back long ago: nobody waits for it any longer
        assert [(job.tensors["x"].tolist(), at_fault) for job, at_fault in seen.gone] == [
            ([2], True),
            ([3], True),
        ]
        assert refused(lane) == "stuck"
        for _ in range(2):
            lane.expire(now + 6)
        assert (len(seen.gone), lane.owes) == (3, False)
        assert seen.pool.lost == 1
        lane.retire()
        gate.set()
        await until(lambda: lane.idle)
        assert model.batches == [[1]]  # what nobody waits for any more is not computed
        await until(lambda: bool(model.closed))
        assert refused(lane) == ""

    run(scenario)


def test_a_package_that_comes_back_late_goes_on() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        seen, model = Seen(), Doubler(seconds=0.02, wait=lambda: gate.wait(10))
        lane = seen.lane(model)
        lane.submit(job(1, deadline_s=60))
        await asyncio.sleep(0.01)
        lane.expire(time.perf_counter() + 1)
        assert refused(lane) == "stuck"
        gate.set()
        await until(lambda: lane.idle)
        assert refused(lane) == ""
        lane.submit(job(2))
        await until(lambda: len(seen.parts) == 2)
        assert model.batches == [[1], [2]]

    run(scenario)


def refused(lane: Lane, rows: int = 1, deadline_s: float = 5.0, *, urgent: bool = True) -> str:
    """Say why the lane would refuse a request, "" if it would not."""
    found = lane.refusal(rows, 4, time.perf_counter() + deadline_s, urgent=urgent)
    return found[0] if found else ""


def test_who_is_waited_for_comes_first_and_has_the_whole_queue() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Doubler(batch_rows=4)
        lane = seen.lane(model)
        for value in range(4):
            lane.submit(job(value, 10, urgent=False))
        assert refused(lane, urgent=False) == "queue"  # half of the queue is all they may have
        assert refused(lane) == ""
        for value in range(4, 8):
            lane.submit(job(value, 20))
        assert refused(lane) == "queue"
        await asyncio.sleep(0)
        assert [batch[::2] for batch in model.batches] == [[4, 5], [6, 7], [0, 1], [2, 3]]
        assert lane.waiting_rows == 0
        assert refused(lane, rows=16, urgent=False) == ""  # alone it may be as large as it wants

    run(scenario)


def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        seen, model = Seen(), Doubler(seconds=1.0, wait=lambda: gate.wait(10))
        lane = seen.lane(model)
        assert refused(lane, deadline_s=0.001) == ""  # an idle lane has to show what it can
        lane.submit(job(0))
        await asyncio.sleep(0.01)
        assert refused(lane, deadline_s=2.1) == "deadline"  # a second of waiting, one of its own
        assert refused(lane, deadline_s=2.5) == ""
        for value in range(7):
            lane.submit(job(value, urgent=False))
        assert refused(lane, deadline_s=2.5) == ""  # whoever nobody waits for is not in the way
        assert refused(lane, deadline_s=2.5, urgent=False) == "deadline"
        found = lane.refusal(1, 4, time.perf_counter() + 2.5, urgent=False)
        assert found is not None
        assert found[1].status == 503
        assert found[1].fields == b"Retry-After: 2\r\n"
        gate.set()
        await until(lambda: lane.idle)

    run(scenario)


def test_a_batch_is_as_large_as_its_earliest_deadline_allows() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Doubler()
        model.curve = Curve({1: 0.1, 4: 0.25, 8: 0.4})
        lane = seen.lane(model)
        lane.inline = True
        lane.submit(job(1, deadline_s=0.3))
        for value in range(2, 9):
            lane.submit(job(value, deadline_s=60))
        await asyncio.sleep(0)
        assert [len(batch) for batch in model.batches] == [4, 4]

    run(scenario)


def test_what_is_too_late_is_not_computed_while_others_wait() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Doubler()
        model.curve = Curve({1: 0.1, 8: 0.8})
        lane = seen.lane(model)
        lane.inline = True
        lane.submit(job(1, deadline_s=0.0))
        lane.submit(job(2, deadline_s=0.05))
        lane.submit(job(3, deadline_s=0.05))
        await asyncio.sleep(0)
        # The last one is computed though: how else would it be seen that the package is fast again.
        assert model.batches == [[3]]
        assert [(job.tensors["x"].tolist(), at_fault) for job, at_fault in seen.gone] == [
            ([1], False),
            ([2], False),
        ]

    run(scenario)


def test_as_many_batches_at_once_as_the_engine_was_set_for() -> None:
    async def scenario() -> None:
        limits = Limits(threads=4)
        gate = threading.Event()
        seen, model = Seen(limits), Doubler(seconds=0.02, wait=lambda: gate.wait(10), runners=2)
        lane = seen.lane(model)
        for value in range(3):
            lane.submit(job(value))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert (seen.pool.running, lane.waiting_rows) == (2, 1)
        gate.set()
        await until(lambda: lane.idle)
        assert sorted(model.batches) == [[0], [1], [2]]

    run(scenario)


def test_what_a_condemned_package_computes_is_thrown_away() -> None:
    async def scenario() -> None:
        gate = threading.Event()
        seen, model = Seen(), Doubler(seconds=0.02, wait=lambda: gate.wait(10))
        lane = seen.lane(model)
        lane.submit(job(1))
        await asyncio.sleep(0.01)
        lane.submit(job(2))
        assert [job.tensors["x"].tolist() for job in lane.condemn()] == [[2], [1]]
        assert not lane.owes
        lane.retire()
        gate.set()
        await until(lambda: bool(model.closed))
        assert seen.parts == []
        assert seen.gone == []

    run(scenario)


def test_an_error_of_ours_on_a_thread_is_an_answer_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        seen = Seen()
        lane = seen.lane(Doubler(seconds=0.02))
        monkeypatch.setattr(lane, "compute", lambda jobs: 1 / 0)
        lane.submit(job(1))
        await until(lambda: len(seen.parts) == 1)
        assert isinstance(seen.parts[0].error, RuntimeError)

    run(scenario)
    assert "ZeroDivisionError" in caplog.text


def test_a_shadow_job_answers_nobody() -> None:
    async def scenario() -> None:
        original = job(1, first=7)
        copy = original.shadow({"x": np.array([5.0], dtype=np.float32)})
        assert (copy.role, copy.call, copy.first) == ("shadow", None, 7)
        assert original.role == "stable"
        assert original.call is not None
        assert original.tensors["x"].tolist() == [1]

    run(scenario)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (Problem("G602", "The graph did not accept the batch.", tries=["x"]), "The graph did not"),
        (ValueError(), "ValueError: "),
        (Problem("G602", "", tries=[]), "Problem"),
    ],
)
def test_reasons_are_one_line(error: Exception, text: str) -> None:
    assert reason(error).startswith(text)
    assert "\n" not in reason(error)
