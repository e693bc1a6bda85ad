"""Answers when nothing answers: no reading, or an inference that hangs in another thread."""

import threading
from collections.abc import Callable

from genba.edge.clocks import Clock, SystemClock
from genba.edge.safety.answer import Answer
from genba.edge.safety.envelope import Envelope


class Watchdog:
    """Asks an envelope at a fixed pace whether an answer is overdue, and hands it on.

    A thread cannot interrupt a runtime that hangs; it can say at once that nobody may act on what
    it will answer. Whoever runs the process ends it then.

    Args:
        envelope: Whose answers may be overdue.
        publish: Takes the answer instead.
        every_ms: The pace.
        clock: What it waits by.
    """

    def __init__(
        self,
        envelope: Envelope,
        publish: Callable[[Answer], None],
        every_ms: float,
        clock: Clock | None = None,
    ) -> None:
        self._envelope, self._publish, self._every_ms = envelope, publish, every_ms
        self._clock = clock or SystemClock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="safety-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; returns when the last answer was handed on."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._clock.wait(self._done, self._every_ms):
            answer = self._envelope.overdue()
            if answer is not None:
                self._publish(answer)
