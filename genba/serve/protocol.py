"""One HTTP/1.1 connection: bytes in, requests out, answers back in the order of the requests.

The grammar is llhttp's, through httptools. Here are the limits: sizes, times, pipelining, and
what happens when a client breaks them. A refusal is written, then the connection ends; it is
read for a moment longer so that the client gets to see the refusal instead of a reset.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import httptools

from genba.serve.limits import Limits
from genba.serve.responses import CONTINUE, JSON, Refusal, overloaded, render


class Owner(Protocol):
    """What a connection needs from the server it belongs to."""

    limits: Limits
    connections: set["Connection"]
    draining: bool
    held_bytes: int  # bodies of all connections that await an answer, or are still arriving

    def handle(self, request: "Request") -> None:
        """Answer a request, now or later, by `Request.respond`. Never raises."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """Take note of a request that was refused before it was complete."""
        ...


class Request:
    """One request and the place where its answer goes."""

    __slots__ = (
        "body", "close", "connection", "headers", "method", "output", "received", "size", "target",
    )  # fmt: skip

    def __init__(
        self, connection: "Connection", method: bytes, target: bytes, headers: dict[bytes, bytes]
    ) -> None:
        self.connection = connection
        self.method = method
        self.target = target
        self.headers = headers  # names in lower case
        self.body = b""
        self.size = 0  # of the body, also once it was let go
        self.close = False
        self.output: bytes | None = None
        self.received = time.perf_counter()

    def respond(
        self, status: int, body: Sequence[bytes], *, kind: bytes = JSON, fields: bytes = b""
    ) -> None:
        """Give the answer; it is sent when all earlier requests of the connection have theirs."""
        self.output = render(
            status,
            body,
            kind=kind,
            fields=fields,
            close=self.close,
            head_only=self.method == b"HEAD",
        )
        self.connection.flush()


class Connection(asyncio.Protocol):
    """A connection of one client."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._limits = owner.limits
        self._now = loop.time
        self._transport: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._closing = False  # nothing that arrives from now on is looked at
        self._lingering = False  # refused: what arrives is thrown away for a moment
        self._paused = False  # not reading
        self._blocked = False  # the client does not read its answers
        self._receiving = False  # between the first byte of a request and its last
        self._in_head = False
        self._begun = False  # a head began in the bytes being parsed
        self._head_size = 0
        self._body_size = 0
        self._held = 0  # bytes of bodies that the owner counts as held
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self.deadline = 0.0  # by the clock of the event loop; 0 means none

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection if there is room for one more."""
        self._transport = transport
        if len(self._owner.connections) >= self._limits.connections:
            refusal = overloaded("Too many connections are open.")
            self._owner.refused(refusal)
            self._closing = True
            self._transport.write(
                render(refusal.status, (refusal.body(),), fields=refusal.fields, close=True)
            )
            self._transport.close()
            return
        self._owner.connections.add(self)
        self.deadline = self._now() + self._limits.head_s

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        """Forget the connection; answers that are still to come go nowhere."""
        self._owner.connections.discard(self)
        self._closing = True
        self._parser = None
        self._waiting.clear()
        self._release(self._held)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; every complete request in it is handed to the owner."""
        if self._closing:
            return
        self._begun = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused when its header was complete
        except httptools.HttpParserError as error:
            self._refuse(Refusal(400, "G708", f"This is not an HTTP/1.1 request: {error}."))
        if self._in_head and not self._begun:
            self._head_size += len(data)
            self._check_head()
        if len(self._waiting) > self._limits.pipelined:
            self._pause(until=0.0)

    def eof_received(self) -> bool:
        """Answer what was asked for in full, then close."""
        self._closing = True
        return bool(self._waiting)

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        self._blocked = True
        self._pause(until=self._now() + self._limits.write_s)

    def resume_writing(self) -> None:
        """Go on once the client has read."""
        self._blocked = False
        self._resume()

    # The parser calls these.

    def on_message_begin(self) -> None:
        """Start a request."""
        if self._closing:
            return
        self._receiving = self._in_head = self._begun = True
        self._head_size = self._body_size = 0
        self._url = b""
        self._headers = {}
        self._body = []
        self.deadline = self._now() + self._limits.head_s

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it."""
        self._url += url
        self._head_size += len(url)
        self._check_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header field; a trailer field, which may be anybody's, only counts."""
        self._head_size += len(name) + len(value) + 4
        self._check_head()
        if not self._in_head:
            return
        name = name.lower()
        if name == b"host" and name in self._headers:
            self._refuse(Refusal(400, "G708", "The request has two Host fields."))
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Refuse a body that is announced as too large before it is sent."""
        if self._closing:
            return
        self._in_head = False
        self.deadline = self._now() + self._limits.body_s
        length = int(self._headers.get(b"content-length", b"0"))
        if length > self._limits.body_bytes:
            self._refuse(self._too_large())
        elif not self._has_room(length):
            self._refuse(_full())
        elif self._parser.should_upgrade():
            self._refuse(Refusal(400, "G708", "This server does not change protocols."))
        elif (expect := self._headers.get(b"expect")) is not None:
            self._expect(expect)

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._closing:
            return
        self._body_size += len(data)
        if self._body_size > self._limits.body_bytes:
            self._refuse(self._too_large())
        elif not self._has_room(len(data)):
            self._refuse(_full())
        else:
            self._body.append(data)
            self._held += len(data)
            self._owner.held_bytes += len(data)

    def on_message_complete(self) -> None:
        """Hand a complete request to the owner."""
        if self._closing:
            return
        self._receiving = False
        self.deadline = 0.0
        request = Request(self, self._parser.get_method(), self._url, self._headers)
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.size = len(request.body)
        self._body = []
        request.close = not self._parser.should_keep_alive() or self._owner.draining
        self._closing = request.close
        self._waiting.append(request)
        self._owner.handle(request)

    # The owner calls these.

    def flush(self) -> None:
        """Send every answer whose turn it is."""
        if self._parser is None:
            return  # the client is gone
        waiting = self._waiting
        while waiting and (output := waiting[0].output) is not None:
            self._transport.write(output)
            self._release(waiting.popleft().size)
        if not waiting:
            self._answered_all()
        if self._paused and not self._blocked:
            self._resume()

    def drain(self) -> None:
        """End the connection as soon as it owes no answer."""
        if not self._waiting and not self._receiving and not self._lingering:
            self._closing = True
            self._transport.close()

    def expire(self) -> None:
        """The deadline has passed: tell a client that is half-way why it is cut off."""
        self.deadline = 0.0
        if self._receiving and not self._closing and not self._blocked:
            self._refuse(Refusal(408, "G708", "The request took too long to arrive."))
        else:
            self._transport.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # Helpers.

    def _answered_all(self) -> None:
        if self._lingering:
            # The refusal is out; read on a little, else a reset could overtake it.
            self.deadline = self._now() + self._limits.linger_s
            self._transport.write_eof()
        elif self._closing:
            self._transport.close()
        elif not self._receiving and not self._blocked:
            self.deadline = self._now() + self._limits.idle_s

    def _has_room(self, size: int) -> bool:
        return self._owner.held_bytes + size <= self._limits.held_bytes

    def _release(self, size: int) -> None:
        self._held -= size
        self._owner.held_bytes -= size

    def _check_head(self) -> None:
        if self._head_size > self._limits.head_bytes:
            limit = self._limits.head_bytes
            self._refuse(Refusal(431, "G708", f"The header is larger than {limit} bytes."))

    def _too_large(self) -> Refusal:
        limit = self._limits.body_bytes
        what = f"The body is larger than {limit} bytes ({limit / 2**20:g} MiB)."
        return Refusal(413, "G708", what)

    def _expect(self, value: bytes) -> None:
        if value.lower() != b"100-continue":
            self._refuse(Refusal(417, "G708", "Only Expect: 100-continue is understood."))
            return
        interim = Request(self, b"", b"", {})
        interim.output = CONTINUE
        self._waiting.append(interim)
        self.flush()

    def _refuse(self, refusal: Refusal) -> None:
        if self._closing:
            return
        self._closing = self._lingering = True
        self._receiving = self._in_head = False
        self._release(sum(map(len, self._body)))
        self._body = []
        self.deadline = 0.0  # answers to earlier requests come first; they have their own
        self._owner.refused(refusal)
        last = Request(self, b"", b"", {})
        last.close = True
        self._waiting.append(last)
        last.respond(refusal.status, (refusal.body(),), fields=refusal.fields)

    def _pause(self, until: float) -> None:
        self.deadline = until
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if len(self._waiting) * 2 > self._limits.pipelined or not self._paused:
            return
        self._paused = False
        if self._receiving:
            self.deadline = self._now() + self._limits.body_s
        elif not self._waiting and not self._lingering:
            self.deadline = self._now() + self._limits.idle_s
        if not self._transport.is_closing():
            self._transport.resume_reading()


def _full() -> Refusal:
    return overloaded("The server holds as many requests as it has memory for.")
