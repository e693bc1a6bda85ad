"""Time on a device: a wall clock that may be years off or jump, and one that only goes on."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Where a device's parts get the time from, so that tests and drills can hold it."""

    def now_ms(self) -> int:
        """Return the wall clock, ms since 1970 UTC; it may be wrong and it may jump."""
        ...

    def elapsed_ms(self) -> int:
        """Return ms since some moment; never goes back, stands still while the device is off."""
        ...

    def wait(self, event: threading.Event, duration_ms: float) -> bool:
        """Wait until the event is set, or so long; say whether it is set."""
        ...


class SystemClock:
    """The machine's own clocks.

    Args:
        scale: How many times faster than the world time goes; for drills.
        from_ms: When scaled time and the world's were the same, so that processes that are given
            the same agree; now if not given.

    Example:
        >>> clock = SystemClock()
        >>> clock.elapsed_ms() <= clock.elapsed_ms()
        True
    """

    def __init__(self, scale: float = 1.0, from_ms: int | None = None) -> None:
        self._scale = scale
        self._from_ms = time.time_ns() // 1_000_000 if from_ms is None else from_ms
        self._began_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        """Return the wall clock, scaled."""
        now_ns = time.time_ns()
        if self._scale == 1.0:
            return now_ns // 1_000_000
        return self._from_ms + int((now_ns // 1_000_000 - self._from_ms) * self._scale)

    def elapsed_ms(self) -> int:
        """Return (scaled) ms since this clock was made."""
        return int((time.monotonic_ns() - self._began_ns) * self._scale) // 1_000_000

    def wait(self, event: threading.Event, duration_ms: float) -> bool:
        """Wait for an event; the duration is scaled as well."""
        return event.wait(max(0.0, duration_ms) / 1_000 / self._scale)


class HandClock:
    """A clock that a test or a drill turns; waiting turns it too.

    Example:
        >>> clock = HandClock(1_000)
        >>> clock.wait(threading.Event(), 250), clock.now_ms(), clock.elapsed_ms()
        (False, 1250, 250)
        >>> clock.set_wall(5)
        >>> clock.now_ms(), clock.elapsed_ms()
        (5, 250)
    """

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._elapsed_ms = 0

    def now_ms(self) -> int:
        """Return the wall clock as it was turned."""
        return self._wall_ms

    def elapsed_ms(self) -> int:
        """Return the time that passed, whatever the wall clock was set to."""
        return self._elapsed_ms

    def wait(self, event: threading.Event, duration_ms: float) -> bool:
        """Pass the time at once."""
        if not event.is_set():
            self.turn(int(duration_ms))
        return event.is_set()

    def turn(self, duration_ms: int) -> None:
        """Let time pass."""
        self._wall_ms += duration_ms
        self._elapsed_ms += duration_ms

    def set_wall(self, wall_ms: int) -> None:
        """Set the wall clock, as an operator or a time server does; no time passes."""
        self._wall_ms = wall_ms
