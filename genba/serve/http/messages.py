"""Requests of any form, piece by piece, by llhttp: chunked bodies, `Expect`, heads that trickle in.

What is whole and plain never comes here (see `genba.serve.http.plans`). The limits are the same.
"""

from typing import Any, Protocol

import httptools

from genba.serve.http.plans import VERSIONS, Plan, add_field
from genba.serve.http.responses import Refusal
from genba.serve.limits import Limits


class Reader(Protocol):
    """What happens with what was parsed; the connection."""

    limits: Limits

    def head_begins(self) -> None:
        """The first byte of a request arrived."""
        ...

    def head_ends(self, plan: Plan, expects: bytes | None) -> None:
        """A head is complete; a body may follow."""
        ...

    def has_room(self, size: int) -> bool:
        """Say whether so many bytes may be held, and hold them if so."""
        ...

    def ends(self, plan: Plan, body: bytes) -> None:
        """A request is complete."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """The request cannot be read to its end; nothing after it can."""
        ...


class Messages:
    """The parser of one connection.

    Args:
        reader: Told what was found.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._limits = reader.limits
        self._parser: Any = httptools.HttpRequestParser(self)
        self._over = False  # refused: nothing that is parsed from now on counts
        self._begun = False  # a head began in the bytes being parsed
        self._in_head = False
        self.inside = False  # between the first byte of a request and its last
        self._head_size = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._plan: Plan | None = None
        self._body: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Parse what arrived; every complete request in it is handed to the reader."""
        self._begun = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused when its head was complete
        except httptools.HttpParserError as error:
            self._refuse(Refusal(400, "G708", f"This is not an HTTP/1.1 request: {error}."))
        if self._in_head and not self._begun:
            self._head_size += len(data)
            self._check_head()

    def stop(self) -> None:
        """Take no further notice of what is parsed."""
        self._over = True
        self.inside = self._in_head = False
        self._body = []

    def close(self) -> None:
        """Let go of the parser, which holds this object as this object holds it."""
        self.stop()
        self._parser = None

    # The parser calls these.

    def on_message_begin(self) -> None:
        """Start a request."""
        if self._over:
            return
        self.inside = self._in_head = self._begun = True
        self._head_size = self._size = 0
        self._url = b""
        self._headers = {}
        self._body = []
        self._reader.head_begins()

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
        try:
            add_field(self._headers, name, value)
        except Refusal as refusal:
            self._refuse(refusal)

    def on_headers_complete(self) -> None:
        """Say what the head is, before its body arrives."""
        if self._over:
            return
        self._in_head = False
        parser = self._parser
        version = parser.get_http_version()
        self._plan = Plan(
            parser.get_method(),
            self._url,
            self._headers,
            length=int(self._headers.get(b"content-length", b"0")),
            keep_alive=parser.should_keep_alive(),
            chunks=version == "1.1",
        )
        if version not in VERSIONS:
            self._refuse(Refusal(505, "G708", "This server speaks HTTP/1.1."))
        elif parser.should_upgrade():
            self._refuse(Refusal(400, "G708", "This server does not change protocols."))
        else:
            self._reader.head_ends(self._plan, self._headers.get(b"expect"))

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._over:
            return
        self._size += len(data)
        if self._size > self._limits.body_bytes:
            self._refuse(too_large(self._limits))
        elif self._reader.has_room(len(data)):
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Hand a complete request over."""
        if self._over or self._plan is None:
            return
        self.inside = False
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._reader.ends(self._plan, body)

    # Helpers.

    def _check_head(self) -> None:
        if self._head_size > self._limits.head_bytes:
            self._refuse(head_too_large(self._limits))

    def _refuse(self, refusal: Refusal) -> None:
        if not self._over:
            self._reader.refuse(refusal)


def head_too_large(limits: Limits) -> Refusal:
    """Refuse a head that is larger than is taken."""
    return Refusal(431, "G708", f"The header is larger than {limits.head_bytes} bytes.")


def too_large(limits: Limits) -> Refusal:
    """Refuse a body that is larger than is taken."""
    limit = limits.body_bytes
    return Refusal(413, "G708", f"The body is larger than {limit} bytes ({limit / 2**20:g} MiB).")
