"""Stopping: Ctrl-C and the loss of a lease reach the work through one object."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S: Final = 0.05


class Cancelled(BaseException):
    """Somebody asked to stop. Not an Exception, so that no stage swallows it by accident."""


class LeaseLost(BaseException):
    """Another process took the stage over; what was computed here is dropped."""


class StopSign:
    """Whether to go on. `check()` is cheap enough for the inside of a loop."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._lost = threading.Event()
        self._interruptible = False

    def cancel(self) -> None:
        """Ask to stop."""
        self._cancelled.set()

    def lose(self) -> None:
        """Say that the lease of the stage in progress belongs to somebody else."""
        self._lost.set()

    def found(self) -> None:
        """Forget a lost lease, before the stage is asked for again."""
        self._lost.clear()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Return if the work may go on.

        Raises:
            Cancelled: If somebody asked to stop.
            LeaseLost: If another process has taken the stage over.
        """
        if self._cancelled.is_set():
            raise Cancelled
        if self._lost.is_set():
            raise LeaseLost

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until somebody asks to stop."""
        self._cancelled.wait(seconds)
        self.check()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let Ctrl-C stop the block at once, wherever it is, not only at its next `check`."""
        self._interruptible = True
        try:
            self.check()
            yield
        finally:
            self._interruptible = False

    @contextmanager
    def listening(self, busy: Callable[[], bool]) -> Iterator[None]:
        """Turn SIGINT and SIGTERM into a request to stop, where signals can be received.

        Args:
            busy: Says that this thread is inside a transaction, which must not be torn; the
                signal is then repeated a moment later.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            self.cancel()
            if not self._interruptible:
                return  # between stages: the next check sees it
            if busy():
                again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
                again.daemon = True
                again.start()
            else:
                raise Cancelled

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
