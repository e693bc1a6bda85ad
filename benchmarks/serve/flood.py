"""Open-loop load: requests are sent when they are due, whatever became of the earlier ones.

A closed loop asks again when it has its answer, so a server that slows down is asked less, and the
slow moments are hardly counted (coordinated omission). Here every request has the moment at which
it was due, and its latency counts from there, also when all connections were still busy then.

`python -m benchmarks.serve.flood SPECIFICATION`: a file of JSON with `port`, `request` (a file with
the bytes of one request), `connections`, `depth` (requests under way per connection), `parts`
(pairs of requests per second and seconds), `deadline_ms`, `window_s` and `gives_up` (a request that
finds every place taken is not sent, instead of waiting). Prints one line of JSON.
"""

import asyncio
import functools
import gc
import json
import re
import sys
import time
from array import array
from collections import deque
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.serve.latencies import summary

_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d\d\d) ")
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STEP_S: Final = 0.001
_AT_ONCE: Final = 8  # requests of one connection written together, when so many are due
_CONTINUE: Final = 100
_SETTLE_S: Final = 6.0  # after the last request was due, for answers that are on their way
LOST: Final = 0  # instead of a status: the connection ended, or nothing came
UNSENT: Final = 1  # instead of a status: every connection was busy until the end


class Records:
    """When each request was due, and how and after how long it was answered."""

    def __init__(self) -> None:
        self.due = array("d")
        self.latency = array("d")
        self.status = array("H")

    def add(self, due: float, now: float, status: int) -> None:
        """Take down one answer."""
        self.due.append(due)
        self.latency.append(now - due)
        self.status.append(status)


class Client(asyncio.Protocol):
    """One connection with the moments at which its requests were due."""

    def __init__(self, flood: "Flood") -> None:
        self._flood = flood
        self._transport: Any = None
        self._rest = b""
        self._body = 0  # bytes of the current answer's body still to come
        self.under_way: deque[float] = deque()
        self.open = False
        self.waits = False  # for something to send

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = transport
        self.open = True

    def send(self, due: list[float]) -> None:
        """Send the requests that were due then, one after the other."""
        self.under_way.extend(due)
        self._transport.write(
            self._flood.request * len(due) if len(due) > 1 else self._flood.request
        )

    def data_received(self, data: bytes) -> None:
        """Read answers; each belongs to the oldest request under way."""
        now = time.perf_counter()
        data = self._rest + data if self._rest else data
        position = 0
        while position < len(data):
            if self._body:
                step = min(self._body, len(data) - position)
                self._body -= step
                position += step
                continue
            end = data.find(_HEAD_END, position)
            if end < 0:
                break
            status, self._body = read_head(data[position:end])
            position = end + len(_HEAD_END)
            if status != _CONTINUE and self.under_way:
                self._flood.records.add(self.under_way.popleft(), now, status)
        self._rest = data[position:]
        self._flood.can_send(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was under way is lost; the flood opens another connection."""
        del exc
        self.open = False
        self._flood.ended(self)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()


@functools.lru_cache(maxsize=256)
def read_head(head: bytes) -> tuple[int, int]:
    r"""Return status and length of the body.

    Example:
        >>> read_head(b"HTTP/1.1 200 OK\r\nContent-Length: 12")
        (200, 12)
    """
    status, length = _STATUS.match(head), _LENGTH.search(head)
    return int(status[1]) if status else LOST, int(length[1]) if length else 0


class Flood:
    """Sends requests when they are due and takes down what becomes of them."""

    def __init__(self, specification: dict[str, Any]) -> None:
        self.request = Path(specification["request"]).read_bytes()
        self._port = int(specification["port"])
        self._most = int(specification["connections"])
        self._depth = int(specification["depth"])
        self._gives_up = bool(specification["gives_up"])
        self._phases: list[tuple[float, float]] = [tuple(p) for p in specification["parts"]]
        self.records = Records()
        self._free: deque[Client] = deque()  # connections that may take a request
        self._clients: set[Client] = set()
        self._backlog: deque[float] = deque()  # due, but every connection is busy
        self._reopened = 0
        self._opening = 0
        self._worst_lag = 0.0
        self._ending = False

    async def run(self) -> dict[str, Any]:
        """Run every phase and return the records with what the generator itself did."""
        await asyncio.gather(*(self._connect() for _ in range(self._most)))
        began_unix, began = time.time(), time.perf_counter()
        used = time.process_time()
        due, changes = began, []
        for rate, seconds in self._phases:
            end = due + seconds
            changes.append((due - began, end - began))
            await self._phase(due, end, 1 / rate)
            due = end
        used = time.process_time() - used
        lasted = time.perf_counter() - began
        await self._settle()
        return {
            "began_unix": began_unix,
            "phases": changes,
            "records": self.records,
            "began": began,
            "lag_ms": self._worst_lag * 1e3,
            "cores": used / lasted,
            "reopened": self._reopened,
        }

    async def _phase(self, due: float, end: float, gap: float) -> None:
        while due < end:
            now = time.perf_counter()
            self._worst_lag = max(self._worst_lag, now - due)
            while due <= now and due < end:
                self._backlog.append(due)
                due += gap
            self._drain()
            if self._gives_up:
                self._give_up(now)
            wait = min(due - time.perf_counter(), _STEP_S)
            await asyncio.sleep(max(wait, 0.0))

    def _give_up(self, now: float) -> None:
        """Count what found no free place as never sent, as a client that is sent away would."""
        for due in self._backlog:
            self.records.add(due, now, UNSENT)
        self._backlog.clear()

    def _drain(self) -> None:
        backlog = self._backlog
        while backlog and self._free:
            client = self._free.popleft()
            client.waits = False
            room = self._depth - len(client.under_way)
            if client.open and room > 0:
                client.send([backlog.popleft() for _ in range(min(room, _AT_ONCE, len(backlog)))])
                self.can_send(client)

    def can_send(self, client: Client) -> None:
        """Note that a connection may take another request, if so."""
        if not client.waits and client.open and len(client.under_way) < self._depth:
            client.waits = True
            self._free.append(client)

    def ended(self, client: Client) -> None:
        """Take down what was lost with a connection and open another."""
        now = time.perf_counter()
        for due in client.under_way:
            self.records.add(due, now, LOST)
        client.under_way.clear()
        self._clients.discard(client)
        if not self._ending:
            self._reopened += 1
            asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", self._port)
        except OSError:
            if not self._ending:
                await asyncio.sleep(0.05)
                await self._connect()
            return
        self._clients.add(client)
        self.can_send(client)

    def _busy(self) -> bool:
        return bool(self._backlog) or any(client.under_way for client in self._clients)

    async def _settle(self) -> None:
        until = time.perf_counter() + _SETTLE_S
        while time.perf_counter() < until and self._busy():
            self._drain()
            await asyncio.sleep(_STEP_S)
        self._ending = True
        for client in list(self._clients):
            client.close()
        await asyncio.sleep(0.05)
        self._give_up(time.perf_counter())


def main() -> None:
    """Run a specification and print what came of it."""
    specification = json.loads(Path(sys.argv[1]).read_text())
    gc.disable()  # a pause of the generator would look like one of the server
    found = uvloop.run(Flood(specification).run())
    print(json.dumps(summary(found, specification)))


if __name__ == "__main__":
    main()
