"""Work that would keep the event loop: done on a thread, and brought back to the loop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from genba.serve.lanes.pool import Threads, Workers

#: Takes what an errand returned, or what it raised.
Back = Callable[[Any, Exception | None], None]


class Errands:
    """Runs work on threads that are started when they are needed. Belongs to the event loop.

    Args:
        loop: The event loop.
        most: Threads at most; further errands wait.
        threads: Where the work is done.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, most: int, threads: Threads | None = None
    ) -> None:
        self._loop = loop
        self._most = most
        self._threads: Threads = Workers() if threads is None else threads
        self._started = 0
        self._running = 0

    def run(self, work: Callable[[], Any], back: Back) -> None:
        """Do work on a thread; `back` is called on the event loop afterwards."""
        self._running += 1
        if self._running > self._started and self._started < self._most:
            self._started += 1
            self._threads.start()
        self._threads.put(lambda: self._do(work, back))

    def try_run(self, work: Callable[[], Any], back: Back, most: int) -> bool:
        """Do work unless so many errands are under way; say whether it will be done."""
        if self._running >= most:
            return False
        self.run(work, back)
        return True

    def close(self, last: Callable[[], object]) -> None:
        """Do a last thing and end the threads."""
        self.run(last, lambda _found, _error: self._threads.close())

    def _do(self, work: Callable[[], Any], back: Back) -> None:
        found: Any = None
        failed: Exception | None = None
        try:
            found = work()
        except Exception as error:  # noqa: BLE001  # whoever waits for it is told
            failed = error
        with suppress(RuntimeError):  # the event loop has ended, nobody is waiting any more
            self._loop.call_soon_threadsafe(self._back, back, found, failed)

    def _back(self, back: Back, found: Any, error: Exception | None) -> None:
        self._running -= 1
        back(found, error)
