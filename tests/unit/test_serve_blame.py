"""Who is to blame: clients that left, inputs without bounds, and packages that cannot count."""

import math
import time
from typing import Any

import numpy as np
import pytest

from genba.serve.http.connection import Connection
from genba.serve.lanes.admission import Forecast, Queue
from genba.serve.lanes.compute import compute
from genba.serve.lanes.jobs import Job, Part
from genba.serve.limits import Limits
from genba.serve.watch.capture import Tally
from genba.testing.lanes import Doubler, Heard, numbers
from tests.unit.http_clients import GET, Owner, connected, feed


def job(*values: float) -> Job:
    return Job(Heard(5.0), numbers(values), 0, "stable")


def computed(*values: float) -> Part:
    model: Any = Doubler()
    (part,) = compute(model, [job(*values)], {}, lambda _: None)
    return part


@pytest.mark.parametrize(
    ("values", "bad", "counted"),
    [
        ((1, 99), [False, True], 1),  # the package forgets what a number is
        ((1, math.inf), [False, True], 0),  # it was asked for it
        ((3e38, 99), [True, True], 1),  # twice as much is no float32 any more
    ],
)
def test_who_asks_for_infinity_is_not_the_package(
    values: tuple[float, ...], bad: list[bool], counted: int
) -> None:
    with np.errstate(over="ignore"):
        part = computed(*values)
    assert part.bad_rows is not None
    assert part.bad_rows.tolist() == bad
    tally = Tally()
    tally.add(part, [0.001])
    assert (tally.n, tally.not_a_number) == (2, counted)


def test_who_has_left_is_not_computed() -> None:
    model = Doubler()
    queue, forecast = Queue(Limits()), Forecast(model.curve)
    jobs = [job(n) for n in range(3)]
    for one in jobs:
        queue.add(one)
    left = jobs[1].call
    assert isinstance(left, Heard)
    left.gone = True
    taken, late = queue.take(time.perf_counter(), forecast)
    assert (taken, late) == ([jobs[0], jobs[2]], [jobs[1]])
    assert queue.rows == 0


def test_a_request_knows_that_its_client_left() -> None:
    owner = Owner(hold=True)
    connection: Connection
    connection, _ = connected(owner)
    feed(connection, GET)
    before = owner.held[0].gone
    connection.connection_lost(None)
    assert (before, owner.held[0].gone) == (False, True)
