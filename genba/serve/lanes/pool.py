"""The threads that compute, shared fairly among all lanes of a server.

There are about as many as cores, however many packages there are. Whose turn it is follows
start-time fair queueing (Goyal, Vin & Cheng, "Start-time Fair Queueing: A Scheduling Algorithm for
Integrated Services Packet Switching Networks", SIGCOMM 1996), with compute seconds in the place of
bits: a lane's virtual time goes on by what its batches cost, and the lane that is furthest behind
comes next. A lane that was idle joins at the virtual time of now, so nobody saves up turns.

A thread that does not come back from a batch is given up: its lane gets no other one, and the pool
starts a thread in its place, up to a bound.
"""

import asyncio
import logging
import operator
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, Protocol

from genba.serve.lanes.jobs import Job, Part
from genba.serve.limits import Limits

_log = logging.getLogger("genba.serve")
_STAND_BACK: Final = 4.0  # a batch that nobody waits for counts as if it took so much longer
_PATIENCE: Final = 10.0  # a batch is stuck that takes longer than so many times what was expected


class Turn:
    """One batch of a lane on a thread."""

    __slots__ = (
        "charge", "earliest", "expected_s", "jobs", "lane", "lost", "ready", "rows", "started",
        "stuck_at", "too_slow", "void",
    )  # fmt: skip

    def __init__(self, lane: "Runs", jobs: Sequence[Job], expected_s: float, ready: float) -> None:
        self.lane = lane
        self.jobs = jobs
        self.rows = sum([job.rows for job in jobs])
        self.earliest = min([job.deadline for job in jobs])
        self.expected_s = expected_s
        self.charge = 1.0 if any(job.urgent for job in jobs) else _STAND_BACK
        self.ready = ready  # since when it could have been computed
        self.started = 0.0
        self.stuck_at = 0.0
        self.lost = False  # it did not come back in time
        self.too_slow = False  # for a deadline that would have been enough
        self.void = False  # what it gives is thrown away

    def left_s(self, now: float) -> float:
        """Return the seconds that it is still expected to need."""
        return max(self.expected_s - (now - self.started), 0.0)


class Runs(Protocol):
    """What the pool asks of a lane."""

    virtual_s: float  # compute seconds by which it is ahead, on the clock of the pool

    def may_run(self, threads: int) -> bool:
        """Say whether another batch may start, when a lane may have so many threads."""
        ...

    def begin(self, now: float) -> Turn | None:
        """Take the next batch; None when nothing is left to compute."""
        ...

    def compute(self, jobs: Sequence[Job]) -> list[Part]:
        """Compute a batch; called on a thread."""
        ...

    def done(self, turn: Turn, parts: Sequence[Part], now: float) -> None:
        """Take what came out of a batch."""
        ...


class Threads(Protocol):
    """Where work is done."""

    def start(self) -> None:
        """Start one more thread."""
        ...

    def put(self, work: Callable[[], None]) -> None:
        """Have work done by the next thread that is free."""
        ...

    def close(self) -> None:
        """End all threads that are free, and the others when they become so."""
        ...


class Workers:
    """Threads that do what is put before them; those that hang do not keep the process alive."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = 0

    def start(self) -> None:
        """Start one more thread."""
        self._count += 1
        name = f"genba-compute-{self._count}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, work: Callable[[], None]) -> None:
        """Have work done by the next thread that is free."""
        self._work.put(work)

    def close(self) -> None:
        """End all threads that are free, and the others when they become so."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # else it would hold its batch until the next one comes


class Pool:
    """Hands out threads to lanes. Belongs to the event loop.

    Args:
        loop: The event loop.
        limits: Say how many threads there are, and how many may be given up.
        threads: Where work is done.
        clock: Seconds, as the deadlines of calls count them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        threads: Threads | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.size = limits.threads or cores() + 1
        self.running = 0  # batches on threads that are not given up
        self.lost = 0  # threads that are given up
        self._limits = limits
        self._threads: Threads = Workers() if threads is None else threads
        self._alive = 0
        self._now_s = 0.0  # virtual time
        self._ready: dict[Runs, None] = {}

    def ready(self, lane: Runs) -> None:
        """Take note that a lane has something to compute."""
        if lane not in self._ready:
            self._ready[lane] = None
            lane.virtual_s = max(lane.virtual_s, self._now_s)
        self._hand_out()

    def withdraw(self, lane: Runs) -> None:
        """Take note that a lane has nothing to compute any more."""
        self._ready.pop(lane, None)

    def give_up(self, turn: Turn) -> None:
        """Give up the thread of a batch that should long be done; its lane is stuck from now on."""
        turn.lost = True
        self.running -= 1
        self.lost += 1
        if self.lost > self._limits.spare_threads:
            _log.error("%d threads hang; no more are started in their place", self.lost)
        self._hand_out()

    def close(self) -> None:
        """End the threads."""
        self._ready.clear()
        self._threads.close()

    # Helpers.

    @property
    def _free(self) -> bool:
        """Whether a batch may start now."""
        if self.running >= self.size:
            return False
        most = self.size + self._limits.spare_threads
        return self.running + self.lost < most

    def _hand_out(self) -> None:
        while self._free:
            lane = self._next()
            if lane is None:
                return
            turn = lane.begin(self.clock())
            if turn is None:
                self._ready.pop(lane, None)
            else:
                self._start(turn)

    def _next(self) -> Runs | None:
        """Return the lane that is furthest behind; of equals the one that is ready longest."""
        # One thread is left to the others, so that one package cannot hang all of them.
        most = max(self.size - 1, 1)
        able = [lane for lane in self._ready if lane.may_run(most)]
        return min(able, key=operator.attrgetter("virtual_s")) if able else None

    def _start(self, turn: Turn) -> None:
        lane = turn.lane
        self._now_s = max(self._now_s, lane.virtual_s)
        lane.virtual_s += turn.charge * turn.expected_s
        del self._ready[lane]  # to the end of the line
        self._ready[lane] = None
        self.running += 1
        if self.running + self.lost > self._alive:
            self._alive += 1
            self._threads.start()
        turn.started = self.clock()
        patience = max(self._limits.stuck_s, _PATIENCE * turn.expected_s)
        turn.stuck_at = turn.started + patience
        self._threads.put(lambda: self._work(turn))

    def _work(self, turn: Turn) -> None:
        """Compute a batch; on a thread."""
        parts: list[Part] = []
        try:
            parts = turn.lane.compute(turn.jobs)
        except BaseException:  # noqa: BLE001  # whatever it was, the jobs want their answers
            _log.exception("an error in the server")
        with suppress(RuntimeError):  # the event loop has ended, nobody is waiting any more
            self.loop.call_soon_threadsafe(self._done, turn, parts)

    def _done(self, turn: Turn, parts: list[Part]) -> None:
        if turn.lost:
            self.lost -= 1
        else:
            self.running -= 1
        now = self.clock()
        computed_s = sum(part.seconds for part in parts)
        turn.lane.virtual_s += turn.charge * (computed_s - turn.expected_s)
        turn.lane.done(turn, parts, now)
        self._hand_out()


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
