"""Requests that wait for a language model, bounded in answers, tokens and bytes."""

from collections import deque
from typing import Final

from genba.serve.lanes.jobs import Job
from genba.serve.limits import Limits

_BYTES_PER_TOKEN: Final = 4  # of plain text, to know how long a prompt is before it is read


def tokens_of(job: Job, most: float) -> int:
    """Return how many tokens a request may need, as far as that is known before it is read.

    Args:
        job: The request.
        most: New tokens of an answer where the request does not say.
    """
    if job.speech is not None and job.speech.tokens:
        return int(job.speech.tokens)
    said = job.tensors.get("max_tokens")
    answers = float(said.sum()) if said is not None else job.rows * most
    return int(answers) + job.size // _BYTES_PER_TOKEN


class TalkQueue:
    """Requests that wait for one language model: urgent ones, and the others behind them.

    Args:
        limits: Say how many answers, tokens and bytes may wait; others join only while not more
            than half of that waits.
    """

    __slots__ = ("_limits", "_others", "_tokens", "_urgent", "rows", "size", "tokens")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._urgent: deque[Job] = deque()
        self._others: deque[Job] = deque()
        self._tokens: dict[Job, int] = {}
        self.rows = 0
        self.size = 0
        self.tokens = 0

    def ahead(self, *, urgent: bool) -> int:
        """Return the answers that are written before those of a request that joins now."""
        return sum(job.rows for job in self._urgent) if urgent else self.rows

    def has_room(self, rows: int, size: int, tokens: int, *, urgent: bool = True) -> bool:
        """Say whether a request may join; one alone may be as large as it likes."""
        limits, share = self._limits, 1 if urgent else 2
        if not self.rows:
            return size <= limits.queue_bytes
        return (
            share * (self.rows + rows) <= limits.queue_talks
            and share * (self.tokens + tokens) <= limits.queue_tokens
            and self.size + size <= limits.queue_bytes
        )

    def add(self, job: Job, tokens: int) -> None:
        """Queue a request; ask `has_room` first."""
        (self._urgent if job.urgent else self._others).append(job)
        self._tokens[job] = tokens
        self.rows += job.rows
        self.size += job.size
        self.tokens += tokens

    def take(self) -> Job | None:
        """Take the next request."""
        line = self._urgent or self._others
        return self._forget(line.popleft()) if line else None

    def leave(self, now: float) -> list[Job]:
        """Take out whoever is past the deadline, or is gone."""
        over = [
            job
            for job in (*self._urgent, *self._others)
            if job.deadline <= now or (job.call is not None and job.call.gone)
        ]
        for job in over:
            (self._urgent if job.urgent else self._others).remove(job)
            self._forget(job)
        return over

    def clear(self) -> list[Job]:
        """Take out all requests."""
        jobs = [*self._urgent, *self._others]
        self._urgent.clear()
        self._others.clear()
        for job in jobs:
            self._forget(job)
        return jobs

    def _forget(self, job: Job) -> Job:
        self.tokens -= self._tokens.pop(job)
        self.rows -= job.rows
        self.size -= job.size
        return job
