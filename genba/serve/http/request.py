"""One HTTP request and the place where its answer goes."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from genba.core.protocols import Array
from genba.serve.http.compression import pack
from genba.serve.http.plans import Plan
from genba.serve.http.responses import (
    CHUNKED,
    EVENTS,
    JSON,
    LAST_CHUNK,
    Refusal,
    chunk,
    render,
)
from genba.serve.oip.answers import Answer, write_answer
from genba.serve.oip.schema import Schema, Wanted

#: Gives back what was taken when a request was admitted.
Release = Callable[[], None]
_NO_FIELDS: Final = b""
OPENAI: Final = b"/v1/"  # addresses below speak another protocol than the others


class Sender(Protocol):
    """The connection of a request."""

    lost: bool  # the client has left

    def flush(self) -> None:
        """Send every answer whose turn it is."""
        ...

    def has_room(self, size: int) -> bool:
        """Hold so many more bytes; refuse the request when that is too much."""
        ...


class Request:
    """One request.

    Args:
        connection: Where it came from.
        plan: Its head.
        body: Its body; let go by who has read it.
        deadline_s: How long an answer is worth something.
    """

    __slots__ = (
        "body", "caller", "close", "connection", "deadline", "fields", "output", "plan",
        "received", "release", "size", "stream", "urgent",
    )  # fmt: skip

    def __init__(
        self, connection: Sender, plan: Plan, body: bytes | bytearray, deadline_s: float
    ) -> None:
        self.connection = connection
        self.plan = plan
        self.body = body
        self.size = len(body)  # also once the body was let go
        self.close = not plan.keep_alive
        self.output: bytes | None = None
        self.stream: Stream | None = None
        self.received = time.perf_counter()
        self.deadline = self.received + deadline_s
        self.urgent = plan.urgent
        self.caller = ""
        self.fields = _NO_FIELDS  # header fields that the answer has whatever it is
        self.release: Release | None = None

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self.connection.lost

    @property
    def method(self) -> bytes:
        """Such as ``POST``."""
        return self.plan.method

    @property
    def target(self) -> bytes:
        """Path and query."""
        return self.plan.target

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Fields by name in lower case."""
        return self.plan.headers

    @property
    def trace(self) -> str:
        """W3C trace id, empty where none was sent."""
        return self.plan.trace

    @property
    def parent(self) -> str:
        """W3C id of the caller's span, empty where the caller does not keep it."""
        return self.plan.parent

    def write(
        self,
        schema: Schema,
        wanted: Wanted,
        outputs: Mapping[str, Array],
        *,
        line: str,
        parameters: Mapping[str, str],
    ) -> Answer:
        """Encode an inference answer."""
        written = write_answer(schema, wanted, outputs, line=line, parameters=parameters)
        accepts = self.plan.headers.get(b"accept-encoding")
        return written if accepts is None else pack(written, accepts)

    def answer(self, written: Answer) -> None:
        """Give an inference answer."""
        self.respond(200, written.body, kind=written.kind, fields=written.fields)

    def refuse(self, refusal: Refusal) -> None:
        """Give a refusal."""
        spoken = refusal.openai_body() if self.target.startswith(OPENAI) else refusal.body()
        self.respond(refusal.status, (spoken,), fields=refusal.fields)

    def respond(
        self, status: int, body: Sequence[bytes], *, kind: bytes = JSON, fields: bytes = b""
    ) -> None:
        """Give the answer; it is sent when all earlier requests of the connection have theirs."""
        self.output = render(
            status,
            body,
            kind=kind,
            fields=fields + self.fields if self.fields else fields,
            close=self.close,
            head_only=self.plan.method == b"HEAD",
        )
        self.let_go()
        self.connection.flush()

    def open_stream(self, *, kind: bytes = EVENTS, fields: bytes = b"") -> "Stream":
        """Begin an answer that comes in pieces, such as the words of a language model.

        Raises:
            Refusal: 400 for a client that does not understand HTTP/1.1.
        """
        if not self.plan.chunks:
            raise Refusal(400, "G708", "An answer in pieces needs HTTP/1.1.")
        self.stream = Stream(self, kind, fields + self.fields)
        self.connection.flush()
        return self.stream

    def let_go(self) -> None:
        """Give back what was taken when the request was admitted; once."""
        release, self.release = self.release, None
        if release is not None:
            release()


class Stream:
    """An answer in pieces, sent as server-sent events (WHATWG HTML, section 9.2).

    Whoever produces the pieces looks at `room` before the next one, and stops when `gone` is set.

    Attributes:
        pieces: What waits for the connection.
        gone: The client is not there any more.
        blocked: The client does not read as fast as it is sent to.
        on_room: Called on the event loop when a client that was blocked reads again, or is gone.
    """

    _MOST: Final = 64  # pieces that may wait

    def __init__(self, request: Request, kind: bytes, fields: bytes) -> None:
        self._request = request
        self.gone = False
        self.blocked = False
        self.ended = False
        self.on_room: Callable[[], Any] | None = None
        self.pieces: deque[bytes] = deque((CHUNKED % (kind, fields),))

    @property
    def room(self) -> bool:
        """Whether the next piece may be sent now."""
        return not (self.gone or self.blocked) and len(self.pieces) < self._MOST

    def send(self, data: str, *, event: str = "") -> None:
        """Send one event.

        Args:
            data: Its text; every line becomes a `data` field.
            event: Its name; the protocol's own default is ``message``.
        """
        lines = [f"data: {line}" for line in data.split("\n")]
        if event:
            lines.insert(0, f"event: {event}")
        self._put(chunk("\n".join((*lines, "", "")).encode()))

    def end(self) -> None:
        """End the answer; what came before stays sent."""
        if not self.ended:
            self.ended = True
            self._put(LAST_CHUNK)
            self._request.let_go()

    def lost(self) -> None:
        """The client went away: tell the producer."""
        self.gone = True
        self.pieces.clear()
        self._request.let_go()
        self.tell_room()

    def tell_room(self) -> None:
        """Tell a producer that waits."""
        if self.on_room is not None:
            self.on_room()

    def _put(self, piece: bytes) -> None:
        if not self.gone:
            self.pieces.append(piece)
            self._request.connection.flush()
