"""Holding a stage: a heartbeat keeps the lease and notices when it is lost."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from genba.core.problem import Problem
from genba.runs.stop import StopSign
from genba.store.attempts import Attempts

LEASE_S: Final = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A stage that is ours, under an attempt number, until the lease runs out."""

    key: str
    owner: str
    attempt: int


class Heartbeat:
    """Extends the lease of the stage in progress from one thread, which lives as long as the run.

    A beat that cannot reach the database is no reason to stop: nobody else can take the stage
    while the database is away, and the fence decides at completion.

    Args:
        attempts: Where leases are.
        stop: Who is told that a lease is lost.
        seconds: For how long each beat extends a lease; there are three in that time.
    """

    def __init__(self, attempts: Attempts, stop: StopSign, *, seconds: float = LEASE_S) -> None:
        self._attempts = attempts
        self._stop = stop
        self._seconds = seconds
        self._lease: Lease | None = None
        self._beating = threading.Lock()  # nobody lets go of a lease in the middle of a beat
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keeping(self, lease: Lease) -> Iterator[None]:
        """Extend a lease for as long as the block runs."""
        if self._thread is None:  # not before there is something to do: most runs reuse it all
            self._thread = threading.Thread(target=self._beat, name="genba-heartbeat", daemon=True)
            self._thread.start()
        self._lease = lease
        try:
            yield
        finally:
            with self._beating:
                self._lease = None

    def __enter__(self) -> Self:
        """Return the heartbeat itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the thread and wait for it."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._seconds / 3):
            with self._beating:
                if self._lease is not None and not self._extended(self._lease):
                    self._lease = None
                    self._stop.lose()

    def _extended(self, lease: Lease) -> bool:
        try:
            return self._attempts.heartbeat(
                lease.key, lease.owner, lease.attempt, lease_s=self._seconds
            )
        except Problem:
            return True
