"""Writing to a controller: the newest answer of each entity, at once or not at all.

What a controller acts on must be of now. An answer that could not be written in time is not
written later; the record of it is in the buffer.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from genba.edge.clocks import Clock

#: What is written for `action`, so that a controller can tell a model's answer from a rule's.
ACTIONS: Final[Mapping[str, int]] = {
    "model": 0,
    "last_good_model": 1,
    "rule": 2,
    "fixed": 3,
    "abstain": 4,
    "stop": 5,
}
_HEARTBEAT_MS: Final = 1_000
_TURNS: Final = 1 << 15  # a heartbeat fits into a signed register

Write = Callable[[str, Mapping[str, float | None]], bool]


class Latest:
    """A thread that writes the newest answers, and a heartbeat beside them.

    Args:
        write: Writes an entity's values and says whether that worked; "" is the heartbeat.
        clock: Where the time comes from.
        late_ms: An answer that waited so long is not written.
        heartbeat: Whether there is one.
    """

    def __init__(self, write: Write, clock: Clock, *, late_ms: int, heartbeat: bool) -> None:
        self.late = 0  # answers that were not written in time
        self._write = write
        self._clock = clock
        self._late_ms = late_ms
        self._heartbeat = heartbeat
        self._beats = 0
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[int, Mapping[str, float | None], int]] = {}
        self._done: list[int] = []
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, number: int, entity: str, values: Mapping[str, float | None]) -> None:
        """Hand over an answer; one of the same entity that still waits is replaced."""
        with self._lock:
            before = self._newest.get(entity)
            if before is not None:
                self.late += 1
                self._done.append(before[0])
            self._newest[entity] = (number, values, self._clock.elapsed_ms())
            if self._thread is None:
                self.start()
        self._wake.set()

    def start(self) -> None:
        """Begin to write."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="latest", daemon=True)
            self._thread.start()

    def done(self) -> list[int]:
        """Return the numbers that were written, or will never be; each once."""
        with self._lock:
            found, self._done = self._done, []
        return found

    def close(self) -> None:
        """Write no more; the heartbeat stops, which tells the controller."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._clock.wait(self._wake, _HEARTBEAT_MS)
            self._wake.clear()
            with self._lock:
                taken, self._newest = self._newest, {}
            for entity, (number, values, since_ms) in taken.items():
                self._one(number, entity, values, since_ms)
            if self._heartbeat and not self._stop.is_set():
                self._beats = (self._beats + 1) % _TURNS
                self._write("", {"heartbeat": float(self._beats)})

    def _one(
        self, number: int, entity: str, values: Mapping[str, float | None], since_ms: int
    ) -> None:
        in_time = self._clock.elapsed_ms() - since_ms <= self._late_ms
        if not in_time or not self._write(entity, values):
            self.late += 1
        with self._lock:
            self._done.append(number)


def written(body: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers of an answer that a controller is to have.

    Args:
        body: The answer.
        wanted: By the names of outputs, or `action`.

    Example:
        >>> body = {"outputs": {"score": [0.5], "alarm": [True]}, "action": "rule"}
        >>> written(body, {"alarm": 0, "action": 1, "expected": 2})
        {'alarm': 1.0, 'action': 2.0, 'expected': None}
    """
    outputs = body.get("outputs") or {}
    found: dict[str, float | None] = {}
    for name in wanted:
        value = ACTIONS.get(str(body.get("action"))) if name == "action" else outputs.get(name)
        while isinstance(value, list):
            value = value[0] if value else None
        found[name] = None if value is None else float(value)
    return found
