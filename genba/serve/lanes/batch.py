"""A lane: one package, its queue and its batches. No timers: waiting never makes a batch.

A fast package runs on the event loop, once per turn of the loop, with everything that turn read.
A slow one, and every one that takes images, runs on a thread of the pool, where images are decoded
and answers are written too; whatever arrives while a batch is computed is the next batch. Either
way all state belongs to the event loop, so there are no locks.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from genba.serve.http.responses import Refusal
from genba.serve.lanes import admission
from genba.serve.lanes.admission import Forecast, Queue
from genba.serve.lanes.compute import compute
from genba.serve.lanes.jobs import Job, Part
from genba.serve.lanes.models import LoadedModel
from genba.serve.lanes.pool import Pool, Turn
from genba.serve.limits import Limits

_SAMPLE: Final = 8  # the curve learns from one batch in so many on the event loop; it costs time

_MARGIN: Final = 1.2  # a request is taken if it will be in time even when that takes longer


class Keeper(Protocol):
    """Who answers, counts and keeps what a lane computes."""

    def write(self, part: Part) -> None:
        """Write the answers of a part; called where it was computed, which may be a thread."""
        ...

    def finished(self, part: Part) -> None:
        """Take a part that was computed."""
        ...

    def expired(self, job: Job, *, at_fault: bool) -> None:
        """Take a job that passed its deadline, and whether the package is to blame for it."""
        ...


class Lane:
    """One loaded package and the jobs that wait for it.

    Args:
        model: The package.
        pool: Gives out threads, and has the event loop that owns the lane.
        limits: Of the server.
        line: Name of the line, for refusals.
        keeper: Takes what was computed.
    """

    def __init__(
        self, model: LoadedModel, pool: Pool, limits: Limits, line: str, keeper: Keeper
    ) -> None:
        self.model = model
        self.inline = (
            model.schema.image is None
            and model.seconds < limits.inline_s
            and model.batch_seconds < limits.stall_s
        )
        self.parameters: Mapping[str, float] = model.schema.parameters
        self.virtual_s = 0.0  # of the pool
        self.stuck = False  # a batch does not come back
        self._pool = pool
        self._limits = limits
        self._line = line
        self._keeper = keeper
        self._queue = Queue(limits)
        self._forecast = Forecast(model.curve)
        self._turns: dict[Turn, None] = {}
        self._scheduled = False
        self._ready_since = 0.0
        self._stalls = 0
        self._batches = 0  # on the event loop
        self._retired = False

    @property
    def waiting_rows(self) -> int:
        """Rows that wait to be computed."""
        return self._queue.rows

    @property
    def idle(self) -> bool:
        """Whether the lane has nothing to do."""
        return not self._queue.rows and not self._turns

    @property
    def owes(self) -> bool:
        """Whether somebody waits for an answer; nobody does for a batch that was given up."""
        return bool(self._queue.rows) or any(
            not job.given_up for turn in self._turns for job in turn.jobs
        )

    def has_room(self, rows: int, size: int) -> bool:
        """Say whether so many rows of so many bytes may still join the queue."""
        return not self.stuck and self._queue.has_room(rows, size)

    def refusal(
        self, rows: int, size: int, deadline: float, *, urgent: bool = True
    ) -> tuple[str, Refusal] | None:
        """Return why a request would be refused now, in a word for counting and as the answer.

        An idle lane takes every request: how else would it be seen that it is quick again.

        Args:
            rows: Of the request, 1 where they are not known yet.
            size: Bytes of the request.
            deadline: On the clock of the pool.
            urgent: Whether somebody waits for the answer.
        """
        queue = self._queue
        if self.stuck:
            return "stuck", admission.stuck(self._line)
        if not queue.has_room(rows, size, urgent=urgent):
            return "queue", admission.full(self._line)
        if not self._turns and (self.inline or not queue.rows):
            return None  # it is computed in this turn of the loop, or at once
        wait_s = self.wait_s(urgent=urgent)
        # Whoever joins last must leave time for a full batch, or all batches would become small.
        own_s = self._forecast.seconds(max(rows, self.model.curve.best_rows))
        if wait_s > 0.0 and self._pool.clock() + _MARGIN * (wait_s + own_s) > deadline:
            return "deadline", admission.too_late(self._line, admission.retry_s(wait_s))
        return None

    def wait_s(self, *, urgent: bool = True) -> float:
        """Return the seconds until a job that joins now is expected to get its turn."""
        now = self._pool.clock()
        running = [turn.left_s(now) for turn in self._turns]
        return self._forecast.wait_s(
            self._queue.ahead(urgent=urgent), running, max(self.model.runners, 1)
        )

    def submit(self, job: Job) -> None:
        """Queue a job; ask `refusal` first."""
        self._queue.add(job)
        if not self._scheduled:
            self._scheduled = True
            self._pool.loop.call_soon(self._flush)

    def expire(self, now: float) -> None:
        """Give up on jobs that are past their deadline; a stuck engine must not hold them."""
        for turn in list(self._turns):
            if turn.earliest <= now:
                self._expire_turn(turn, now)
            if not turn.lost and now >= turn.stuck_at:
                self.stuck = True
                self._pool.give_up(turn)
        gone = self._queue.clear() if self.stuck else self._queue.expired(now)
        for job in gone:
            self._give_up(job, at_fault=self.stuck or self._too_slow)
        if gone:
            self._close_if_done()

    def condemn(self) -> list[Job]:
        """Give back all jobs that have no answer yet; what comes of them here is thrown away."""
        jobs = self._queue.clear()
        for turn in self._turns:
            turn.void = True
            jobs += [job for job in turn.jobs if not job.given_up]
        for job in jobs:
            job.given_up = True  # here; whoever asks again has a copy
        self._close_if_done()
        return jobs

    def retire(self) -> None:
        """Free the package as soon as its last job is done."""
        self._retired = True
        self._close_if_done()

    # The pool calls these.

    def may_run(self, threads: int) -> bool:
        """Say whether another batch may start, when a lane may have so many threads."""
        return not self.stuck and len(self._turns) < min(max(self.model.runners, 1), threads)

    def begin(self, now: float) -> Turn | None:
        """Take the next batch; None when nothing is left to compute."""
        jobs = self._take(now)
        if not jobs:
            self._close_if_done()
            return None
        rows = sum([job.rows for job in jobs])
        turn = Turn(self, jobs, self._forecast.seconds(rows), self._ready_since)
        self._ready_since = now
        self._turns[turn] = None
        return turn

    def compute(self, jobs: Sequence[Job]) -> list[Part]:
        """Compute a batch; on a thread."""
        return compute(self.model, jobs, self.parameters, self._keeper.write)

    def done(self, turn: Turn, parts: Sequence[Part], now: float) -> None:
        """Take what came out of a batch."""
        del self._turns[turn]
        if turn.lost:
            self.stuck = any(other.lost for other in self._turns)
        self._forecast.learn(turn.rows, sum(part.seconds for part in parts), now - turn.ready)
        self._ready_since = now
        if not turn.void:
            self._finish(parts or [_failed(self.model, turn)])
        if self._queue.rows:
            self._pool.ready(self)
        self._close_if_done()

    # Helpers.

    def _flush(self) -> None:
        self._scheduled = False
        if self.inline:
            self._run_here()
        if self._queue.rows and not self.inline:
            self._ready_since = self._pool.clock()
            self._pool.ready(self)
        self._close_if_done()

    def _run_here(self) -> None:
        """Compute on the event loop, for as long as it may be kept from reading."""
        started = self._pool.clock()
        now = started
        while self._queue.rows and self.inline:
            if now - started > self._limits.stall_s:
                self._scheduled = True
                self._pool.loop.call_soon(self._flush)
                return
            jobs = self._take(now)
            if not jobs:
                return
            parts = self.compute(jobs)
            self._finish(parts)
            now = self._pool.clock()
            self._look_at_time(parts)

    def _look_at_time(self, parts: Sequence[Part]) -> None:
        seconds = sum([part.seconds for part in parts])
        self._batches += 1
        if self._batches % _SAMPLE == 0:
            self.model.curve.learn(sum([part.rows for part in parts]), seconds)
        self._stalls = self._stalls + 1 if seconds > self._limits.stall_s else 0
        # It was fast when it was loaded and is not any more: off the event loop with it.
        self.inline = self._stalls < self._limits.stalls

    def _take(self, now: float) -> list[Job]:
        jobs, late = self._queue.take(now, self._forecast)
        for job in late:
            self._give_up(job, at_fault=self._too_slow)
        return jobs

    @property
    def _too_slow(self) -> bool:
        """Whether a batch took so long that it is the fault of the package and not of the load."""
        return any(turn.too_slow for turn in self._turns)

    def _finish(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._keeper.finished(part)

    def _expire_turn(self, turn: Turn, now: float) -> None:
        for job in turn.jobs:
            if job.deadline <= now and not job.given_up:
                # Where most of the time went: into computing, or into waiting with too many others.
                at_fault = turn.started - job.received < now - turn.started
                turn.too_slow |= at_fault
                self._give_up(job, at_fault=at_fault)
        left = [job.deadline for job in turn.jobs if not job.given_up]
        turn.earliest = min(left, default=float("inf"))

    def _give_up(self, job: Job, *, at_fault: bool) -> None:
        job.given_up = True
        self._keeper.expired(job, at_fault=at_fault)

    def _close_if_done(self) -> None:
        if self._retired and self.idle:
            self._retired = False
            self._pool.withdraw(self)
            self.model.close()


def _failed(model: LoadedModel, turn: Turn) -> Part:
    """Return the part of a batch that was lost by a mistake of the server."""
    part = Part(model, turn.jobs, turn.started)
    part.error = RuntimeError("the server made a mistake; its log says more")
    return part
