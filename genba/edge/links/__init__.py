"""Links: where a device's readings come from and where its answers go.

A link survives what its other side does: it connects again with growing pauses, and it never ends
because of the network. What it cannot read is missing, not invented.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from genba.edge.clocks import Clock

JsonBody = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a machine said at one moment."""

    id: str  # the same when the same reading comes again
    source: str  # name of the link
    entity: str = ""
    time_ms: int  # when it was measured, by the source's clock where it has one
    received_ms: int  # when it came here, by this device's clock
    values: Mapping[str, float | None] = field(
        default_factory=dict
    )  # None: no value of good quality
    image: bytes | None = None  # a JPEG or PNG file
    cursor: str = ""  # where the link can go on behind this reading after a restart
    token: Any = field(default=None, compare=False, repr=False)  # for `acknowledge`


@dataclass(kw_only=True, slots=True)
class Standing:
    """How a link is doing; written by the link's threads, read by anybody."""

    connected: bool = False
    detail: str = "not connected yet"
    connections: int = 0  # times it was made
    readings: int = 0
    bad: int = 0  # values that were missing or of bad quality
    refused: int = 0  # messages that made no reading
    lost: int = 0  # readings that this device had no room for
    published: int = 0  # answers that the other side has

    def up(self) -> None:
        """Note that the connection stands."""
        self.connected, self.detail = True, ""
        self.connections += 1

    def down(self, why: str) -> None:
        """Note that it does not, and why."""
        self.connected, self.detail = False, " ".join(why.split())[:200]


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What a link stands in."""

    clock: Clock
    line: str = ""  # name of the line
    share: float = 0.5  # of pauses, 0 to 1, different on each device


class Link(Protocol):
    """One connection, either way or both."""

    name: str
    standing: Standing

    def readings(self, stop: threading.Event) -> Iterator[Reading]:
        """Yield readings until `stop` is set; blocks, reconnects, never raises for the network."""
        ...

    def acknowledge(self, reading: Reading) -> None:
        """Tell the other side that a reading is safe here, where it waits to hear that."""
        ...

    def resume(self, cursor: str) -> None:
        """Go on behind the reading that had this cursor; called before `readings`."""
        ...

    def publish(self, number: int, body: JsonBody) -> bool:
        """Send an answer; may be called while `readings` runs.

        Args:
            number: To be named by `confirmed`.
            body: The answer: `entity`, `time_ms`, `outputs`, `action` and more.

        Returns:
            Whether it was taken; if not, give it again later.
        """
        ...

    def confirmed(self) -> list[int]:
        """Return the numbers of answers that the other side has, each once."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class Pause:
    """Growing pauses between attempts: doubled each time, never all devices at once.

    Exponential backoff with equal jitter (Brooker, "Exponential backoff and jitter", AWS 2015).

    Args:
        around: The clock to wait by, and the device's own share.
        first_ms: The first pause.
        most_ms: The longest.

    Example:
        >>> from genba.edge.clocks import HandClock
        >>> pause = Pause(Around(clock=HandClock(), share=1.0), most_ms=3_000)
        >>> [pause.next_ms() for _ in range(4)]
        [500, 1000, 2000, 3000]
        >>> pause.reset()
        >>> pause.next_ms()
        500
    """

    def __init__(self, around: Around, *, first_ms: int = 500, most_ms: int = 60_000) -> None:
        self._clock = around.clock
        self._share = around.share
        self._first_ms = first_ms
        self._most_ms = most_ms
        self._now_ms = first_ms

    def next_ms(self) -> int:
        """Return the next pause."""
        wanted = self._now_ms
        self._now_ms = min(2 * wanted, self._most_ms)
        return int(wanted * (0.5 + 0.5 * self._share))

    def wait(self, stop: threading.Event) -> None:
        """Pause, unless everything is to stop."""
        self._clock.wait(stop, self.next_ms())

    def reset(self) -> None:
        """Begin with the first pause again; for when it worked."""
        self._now_ms = self._first_ms
