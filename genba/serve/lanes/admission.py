"""What waits for a package, how long it will wait, and who is turned away because of it.

Refusing early is what keeps the answers to the others quick: whoever cannot be answered in time is
told at once, with the time after which it is worth trying again, instead of after the deadline.
"""

import functools
import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from genba.serve.http.responses import Refusal
from genba.serve.lanes.curve import Curve
from genba.serve.lanes.jobs import Job
from genba.serve.limits import Limits

_GAIN: Final = 0.2  # of the newest batch in what is known of the delay by other work
_SLOWEST: Final = 100.0  # no forecast goes beyond so many times the measured curve
_NEVER: Final = math.inf


class Queue:
    """Jobs that wait for one package: those that somebody waits for, and the others behind them.

    Args:
        limits: Say how many rows and bytes may wait; jobs that are not urgent may be half of them.
    """

    __slots__ = ("_earliest", "_limits", "_other", "_other_rows", "_urgent", "rows", "size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._urgent: deque[Job] = deque()
        self._other: deque[Job] = deque()
        self._other_rows = 0
        self._earliest = _NEVER  # no deadline of a job in here is before it
        self.rows = 0
        self.size = 0  # bytes

    def ahead(self, *, urgent: bool) -> int:
        """Return the rows that are computed before a job that joins now."""
        return self.rows - self._other_rows if urgent else self.rows

    def has_room(self, rows: int, size: int, *, urgent: bool = True) -> bool:
        """Say whether so many rows of so many bytes may still join."""
        limits = self._limits
        if self.rows + rows > limits.queue_rows or self.size + size > limits.queue_bytes:
            return False
        return urgent or self._other_rows == 0 or 2 * (self._other_rows + rows) <= limits.queue_rows

    def add(self, job: Job) -> None:
        """Queue a job; ask `has_room` first."""
        if job.urgent:
            self._urgent.append(job)
        else:
            self._other.append(job)
            self._other_rows += job.rows
        self.rows += job.rows
        self.size += job.size
        if job.deadline < self._earliest:
            self._earliest = job.deadline

    def take(self, now: float, forecast: "Forecast") -> tuple[list[Job], list[Job]]:
        """Take a batch: as many rows as are worth it and as its earliest deadline allows.

        A job that cannot be answered in time any more is not computed while others wait. The last
        one is: a package that has become faster again must get the chance to show it.

        Returns:
            The batch, at least one job whatever its size unless nothing is left; and those for
            whom it is too late, or who did not wait.
        """
        jobs: list[Job] = []
        late: list[Job] = []
        most, rows = forecast.curve.best_rows, 0
        hurried = now + forecast.seconds(most)
        while line := self._urgent or self._other:
            job = line[0]
            if job.call is not None and job.call.gone:
                late.append(self._pop(line))
                continue
            if job.deadline < hurried:
                if self._is_late(job, now, forecast, others=len(jobs)):
                    late.append(self._pop(line))
                    continue
                most = min(most, forecast.rows_within(job.deadline - now, most))
            if jobs and rows + job.rows > most:
                break
            jobs.append(self._pop(line))
            rows += job.rows
        if not self.rows:
            self._earliest = _NEVER
        return jobs, late

    def expired(self, now: float) -> list[Job]:
        """Take out the jobs that are past their deadline."""
        if now < self._earliest:
            return []
        gone = [job for job in (*self._urgent, *self._other) if job.deadline <= now]
        left = [job for job in (*self._urgent, *self._other) if job.deadline > now]
        self.clear()
        for job in left:
            self.add(job)
        return gone

    def clear(self) -> list[Job]:
        """Take out all jobs."""
        jobs = [*self._urgent, *self._other]
        self._urgent.clear()
        self._other.clear()
        self.rows = self.size = self._other_rows = 0
        self._earliest = _NEVER
        return jobs

    def _pop(self, line: deque[Job]) -> Job:
        job = line.popleft()
        self.rows -= job.rows
        self.size -= job.size
        if not job.urgent:
            self._other_rows -= job.rows
        return job

    def _is_late(self, job: Job, now: float, forecast: "Forecast", *, others: int) -> bool:
        if job.deadline <= now:
            return True
        alone = not others and len(self._urgent) + len(self._other) == 1
        return not alone and now + forecast.seconds(job.rows) > job.deadline


class Forecast:
    """How long a lane will take, from the curve of its package and the delay by other work.

    Args:
        curve: Of the package; it learns from every batch.
    """

    __slots__ = ("curve", "slowdown")

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.slowdown = 1.0  # of the wall clock, because other packages compute too

    def seconds(self, rows: int) -> float:
        """Return the seconds until a batch that is ready now will be done."""
        return self.slowdown * self.curve.seconds(rows)

    def rows_within(self, seconds: float, most: int) -> int:
        """Return a number of rows that can be computed in so many seconds; at least one."""
        while most > 1 and self.seconds(most) > seconds:
            most //= 2
        return most

    def wait_s(self, ahead: int, running_s: Sequence[float], runners: int) -> float:
        """Return the seconds until a job gets its turn.

        Args:
            ahead: Rows that are computed before it.
            running_s: Seconds that the running batches still need.
            runners: How many batches may run at the same time.
        """
        full, rest = divmod(ahead, self.curve.best_rows)
        seconds = full * self.curve.seconds(self.curve.best_rows)
        if rest:
            seconds += self.curve.seconds(rest)
        first = min(running_s) if len(running_s) >= runners else 0.0
        return self.slowdown * (first + seconds / runners)

    def learn(self, rows: int, computed_s: float, passed_s: float) -> None:
        """Take in a batch.

        Args:
            rows: Of the batch.
            computed_s: Seconds of computing.
            passed_s: Seconds from when it could have been computed to when it was done.
        """
        expected = self.curve.seconds(rows)
        if expected > 0.0:
            seen = min(max(passed_s / expected, 1.0), _SLOWEST)
            self.slowdown += _GAIN * (seen - self.slowdown)
        self.curve.learn(rows, computed_s)


# One refusal stands for many: under overload there is no time to make new ones. They are handed to
# the call and never raised, since raising would tie the frames of one request to all others.


@functools.lru_cache(maxsize=1_024)
def full(line: str) -> Refusal:
    """Refuse because as many wait as may wait."""
    what = f"Line {line} has as many requests waiting as it takes."
    return Refusal(503, "G706", what, b"Retry-After: 1\r\n")


@functools.lru_cache(maxsize=1_024)
def too_late(line: str, wait_s: int) -> Refusal:
    """Refuse because the answer would come after the deadline."""
    what = f"Line {line} cannot answer before the deadline; try again in {wait_s} s."
    return Refusal(503, "G706", what, b"Retry-After: %d\r\n" % wait_s)


@functools.lru_cache(maxsize=1_024)
def stuck(line: str) -> Refusal:
    """Refuse because the package does not come back from a batch."""
    what = f"A package of line {line} is stuck in a batch; it answers nothing now."
    return Refusal(503, "G742", what, b"Retry-After: 1\r\n")


@functools.lru_cache(maxsize=1_024)
def expired(line: str) -> Refusal:
    """Say that the deadline has passed."""
    return Refusal(504, "G706", f"Line {line} gave no answer before the deadline.")


@functools.lru_cache(maxsize=1_024)
def asleep(line: str) -> Refusal:
    """Refuse because the package is not in memory yet."""
    what = f"Line {line} has a package that is not in memory yet; `genba explain G741` says why."
    return Refusal(503, "G741", what, b"Retry-After: 1\r\n")


@functools.lru_cache(maxsize=1_024)
def rolled_back(line: str) -> Refusal:
    """Refuse because two packages were rolled back while they had the request."""
    what = f"Line {line} rolled its packages back while they computed the answer."
    return Refusal(503, "G740", what, b"Retry-After: 1\r\n")


def no_version(line: str, answering: Sequence[str], version: str) -> Refusal:
    """Refuse because a package that was asked for does not answer."""
    what = f"Version {version} of line {line} does not answer; these do: "
    return Refusal(404, "G703", f"{what}{', '.join(answering) or 'none'}.")


def nothing(line: str) -> Refusal:
    """Refuse because a line has no package."""
    what = f"Line {line} has no package in service."
    return Refusal(503, "G705", what, b"Retry-After: 1\r\n")


def retry_s(seconds: float) -> int:
    """Return a predicted wait in whole seconds, rounded up, for Retry-After.

    Example:
        >>> retry_s(0.2), retry_s(1.2)
        (1, 2)
    """
    return max(1, math.ceil(seconds))
