"""From the buffer to the other side: sent, heard back, let go; in this order and no other."""

import json
from collections.abc import Mapping
from typing import Final

from genba.edge.buffer import Buffer
from genba.edge.clocks import Clock
from genba.edge.links import Link

_WINDOW: Final = 64  # answers that were sent and not yet confirmed
_AGAIN_MS: Final = 60_000  # after so long without an answer, one is sent again
_LOOK_MS: Final = 5_000  # between looks into a buffer that was empty

KIND: Final = "answer/"  # records of a link have this and its name as their kind


class Forward:
    """Sends the records of one link.

    Args:
        link: Where to.
        buffer: From where.
        clock: Where the time comes from.
    """

    def __init__(self, link: Link, buffer: Buffer, clock: Clock) -> None:
        self.link = link
        self.kind = f"{KIND}{link.name}"
        self.newest_ms = 0  # what the newest confirmed answer is about
        self._buffer = buffer
        self._clock = clock
        self._sent: dict[int, int] = {}  # id -> when, by the clock's elapsed time
        self._waits = True  # whether there may be more
        self._looked_ms = 0

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return bool(self._sent)

    def more(self) -> None:
        """Note that there is something new."""
        self._waits = True

    def turn(self) -> int:
        """Hear what arrived and send what may go; return how many were confirmed."""
        confirmed = self.link.confirmed()
        if confirmed:
            self._buffer.acknowledge(confirmed)
            for number in confirmed:
                self._sent.pop(number, None)
        now_ms = self._clock.elapsed_ms()
        late = [n for n, sent_ms in self._sent.items() if now_ms - sent_ms > _AGAIN_MS]
        if late and self.link.standing.connected:
            for number in late:
                del self._sent[number]
            self._waits = True
        if now_ms - self._looked_ms > _LOOK_MS:
            self._waits = True
        if self._waits and len(self._sent) < _WINDOW // 2:
            self._send(now_ms)
        return len(confirmed)

    def _send(self, now_ms: int) -> None:
        room = _WINDOW - len(self._sent)
        found = self._buffer.pending((self.kind,), limit=room, without=self._sent)
        self._looked_ms = now_ms
        self._waits = len(found) == room
        for record in found:
            body: Mapping[str, object] = {**json.loads(record.body), "sequence": record.sequence}
            if not self.link.publish(record.id, body):
                self._waits = True
                return
            self._sent[record.id] = now_ms
