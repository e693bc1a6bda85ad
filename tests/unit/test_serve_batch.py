"""Lanes: what is computed together, what one bad request costs the others, and slow packages."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.core.values import Signature, Tensor
from genba.serve.batch import Job, Lane, Part, reason
from genba.serve.limits import Limits
from genba.serve.oip import Inputs
from genba.serve.protocol import Request
from genba.serve.schema import Schema

SIGNATURE = Signature(
    inputs=(Tensor(name="x", datatype="FP32", shape=(-1,)),),
    outputs=(
        Tensor(name="y", datatype="FP32", shape=(-1,), role="score"),
        Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
    ),
)
LIMITS = Limits(batch_rows=8, queue_rows=16, stalls=2, deadline_s=0.05)


class Model:
    """Doubles numbers; 13 makes it fail, 99 makes it forget what a number is."""

    def __init__(self, seconds: float = 0.0, wait: Callable[[], object] = lambda: None) -> None:
        self.package = "p"
        self.seconds = self.batch_seconds = seconds
        self.batch_rows = LIMITS.batch_rows
        self.schema = Schema(SIGNATURE, ())
        self.batches: list[list[float]] = []
        self.threads: set[int] = set()
        self.closed = False
        self._wait = wait

    def run(self, tensors: Any, rows: int) -> dict[str, Any]:
        assert not self.closed
        self._wait()
        x = tensors["x"]
        assert len(x) == rows
        self.batches.append(x.tolist())
        self.threads.add(threading.get_ident())
        if 13 in x:
            raise ValueError("thirteen\nis unlucky")
        y = np.where(x == 99, np.nan, x * 2).astype(np.float32)
        return {"y": y, "alarm": y > 100}

    def close(self) -> None:
        self.closed = True


class Seen:
    """What a lane reported."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.expired: list[Job] = []

    def lane(self, model: Model, limits: Limits = LIMITS) -> Lane:
        return Lane(
            model,  # type: ignore[arg-type]  # stands in for a LoadedModel
            asyncio.get_running_loop(),
            limits,
            lambda _, part: self.parts.append(part),
            lambda _, job: self.expired.append(job),
            lambda part: None,
        )


def job(*values: float, first: int = 0) -> Job:
    schema = Schema(SIGNATURE, ())
    inputs = Inputs(
        {"x": np.array(values, dtype=np.float32)},
        len(values),
        entity_names=None,
        time=None,
        wanted=schema.all_outputs("", binary=True),
    )
    request = Request(None, b"POST", b"/", {})  # type: ignore[arg-type]  # nobody to answer
    return Job(request, inputs, first, "stable")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_one_turn_of_the_loop_is_one_batch() -> None:
    async def scenario() -> None:
        seen, model = Seen(), Model()
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
        seen, model = Seen(), Model()
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
        lane = Seen().lane(Model())
        lane.submit(job(*range(10)))
        assert lane.has_room(6, 0)
        assert not lane.has_room(7, 0)
        await asyncio.sleep(0)
        assert lane.has_room(16, 0)

    run(scenario)


def test_a_failing_request_does_not_take_the_others_with_it() -> None:
    async def scenario() -> None:
        seen = Seen()
        lane = seen.lane(Model())
        for value in (1, 13, 3):
            lane.submit(job(value))
        await asyncio.sleep(0)
        assert [part.error is None for part in seen.parts] == [True, False, True]
        assert [part.tensors["x"].tolist() for part in seen.parts] == [[1], [13], [3]]

    run(scenario)


def test_not_a_number_is_told_by_row() -> None:
    async def scenario() -> None:
        seen = Seen()
        lane = seen.lane(Model())
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
        seen, model = Seen(), Model(seconds=1.0, wait=lambda: gate.wait(10))
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
        seen, model = Seen(), Model(wait=lambda: time.sleep(0.02))
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
        seen, model = Seen(), Model()
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
        seen, model = Seen(), Model(seconds=1.0, wait=lambda: gate.wait(10))
        lane = seen.lane(model)
        lane.submit(job(1))
        await asyncio.sleep(0.01)
        lane.submit(job(2))
        lane.submit(job(3))
        lane.expire(time.perf_counter())
        assert seen.expired == []
        lane.expire(time.perf_counter() + 1)
        lane.expire(time.perf_counter() + 1)
        assert len(seen.expired) == 3
        lane.retire()
        gate.set()
        await until(lambda: lane.idle)
        assert model.batches == [[1]]  # what nobody waits for any more is not computed
        assert lane.waiting_rows == 0
        assert model.closed

    run(scenario)


def test_a_shadow_job_answers_nobody() -> None:
    async def scenario() -> None:
        original = job(1, first=7)
        copy = original.shadow({"x": np.array([5.0], dtype=np.float32)})
        assert (copy.role, copy.request, copy.first) == ("shadow", None, 7)
        assert original.role == "stable"
        assert original.request is not None
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
