"""Connections without sockets, for tests of what a server does with the bytes of its clients."""

import asyncio
import re

from genba.serve.http.connection import Connection
from genba.serve.http.owner import INBOX_BYTES
from genba.serve.http.plans import Plan, Plans
from genba.serve.http.request import Release, Request
from genba.serve.http.responses import Refusal
from genba.serve.limits import Limits

SMALL = Limits(
    head_bytes=1_024,
    body_bytes=4_096,
    pipelined=4,
    skip_bytes=4_000,
)
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"


class Owner:
    """Answers with the target and the body, or keeps requests for later."""

    def __init__(self, limits: Limits = SMALL, *, hold: bool = False) -> None:
        self.limits = limits
        self.connections: set[Connection] = set()
        self.draining = False
        self.held_bytes = 0
        self.held: list[Request] = []
        self.refusals: list[Refusal] = []
        self._hold = hold
        self.plans = Plans()
        self.inbox = bytearray(INBOX_BYTES)
        self.turn_away: Refusal | None = None
        self.inside = 0  # admitted and not yet answered

    def admit(self, plan: Plan, peer: str) -> Release | None:
        if self.turn_away is not None:
            raise self.turn_away
        self.inside += 1
        return self.leave

    def leave(self) -> None:
        self.inside -= 1

    def handle(self, request: Request) -> None:
        if self._hold:
            self.held.append(request)
        else:
            self.answer(request)

    def answer(self, request: Request, size: int = 0) -> None:
        request.respond(200, (request.target, b" ", bytes(request.body), b"." * size))

    def refused(self, refusal: Refusal, plan: Plan) -> None:
        self.refusals.append(refusal)


class Transport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.ended = self.reading_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False


def connected(owner: Owner) -> tuple[Connection, Transport]:
    loop = asyncio.new_event_loop()
    try:
        connection, transport = Connection(owner, loop), Transport()
        connection.connection_made(transport)
    finally:
        loop.close()  # only its clock is used, which goes on
    return connection, transport


def feed(connection: Connection, data: bytes) -> None:
    """Give bytes to a connection as an event loop does."""
    while data:
        buffer = memoryview(connection.get_buffer(-1))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        connection.buffer_updated(size)
        data = data[size:]


def exchange(*pieces: bytes, owner: Owner | None = None) -> bytes:
    connection, transport = connected(owner or Owner())
    for piece in pieces:
        feed(connection, piece)
    return transport.written


def statuses(written: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", written)]


def bodies(written: bytes) -> list[bytes]:
    found = []
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        size = int(length[1]) if length else 0
        found.append(rest[:size])
        written = rest[size:]
    return found
