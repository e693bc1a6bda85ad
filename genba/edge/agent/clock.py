"""What time it is, on a device whose clock may be years off.

Time is never taken to be before anything that somebody trusted has signed: the newest timestamp of
the factory, and the releases that were used. From there it goes on as long as the device is on. A
clock that is ahead moves nothing but itself, so setting it right is all that has to be done.
"""

from typing import Final

from genba.edge.clocks import Clock

_DAY_MS: Final = 86_400_000


class TrustedTime:
    """The later of the clock and of what was signed.

    Args:
        clock: Of the device.
        floor_ms: The newest signed time, ms since 1970 UTC.

    Example:
        >>> from genba.edge.clocks import HandClock
        >>> clock = HandClock(0)  # 1970: the battery is empty
        >>> time = TrustedTime(clock, 1_700_000_000_000)
        >>> clock.turn(5)
        >>> time.now_ms(), time.behind_ms()
        (1700000000005, 1700000000000)
    """

    def __init__(self, clock: Clock, floor_ms: int = 0) -> None:
        self.clock = clock
        self._floor_ms = floor_ms
        self._since_ms = clock.elapsed_ms()

    def raise_to(self, floor_ms: int) -> None:
        """Take a signed time into account."""
        if floor_ms > self.floor_ms:
            self._floor_ms, self._since_ms = floor_ms, self.clock.elapsed_ms()

    def begin_anew(self, floor_ms: int) -> None:
        """Forget the signed times of before; those who signed them are trusted no more."""
        self._floor_ms, self._since_ms = floor_ms, self.clock.elapsed_ms()

    @property
    def floor_ms(self) -> int:
        """The earliest that it can be now."""
        if not self._floor_ms:
            return 0
        return self._floor_ms + self.clock.elapsed_ms() - self._since_ms

    def now_ms(self) -> int:
        """Return the time, ms since 1970 UTC."""
        return max(self.clock.now_ms(), self.floor_ms)

    def behind_ms(self) -> int:
        """Return how far the clock is behind what it must at least be."""
        return max(0, self.floor_ms - self.clock.now_ms())

    def note(self) -> str:
        """Return a sentence for people where the clock is off; else nothing."""
        days = self.behind_ms() / _DAY_MS
        if days < 1:
            return ""
        return f"the clock of this device is {days:,.0f} days behind; signed times are used"
