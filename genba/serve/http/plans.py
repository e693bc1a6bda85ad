"""What the head of a request says, worked out once and kept for the next request that says it too.

A client sends the same head again and again; only its body differs. So a head that was seen before
costs one lookup. The grammar is llhttp's, through httptools, for every head that was not: what the
cache holds is what the parser said. Heads that ask for more than one body of a stated length
(chunks, `Expect`, another protocol) are never kept, and neither is anything that is refused.
"""

import math
from typing import Any, Final

import httptools

from genba.serve.http.responses import Refusal

#: Fields that mean something here and therefore must not contradict themselves.
_ONCE: Final = frozenset(
    {
        b"authorization", b"content-encoding", b"content-type", b"expect", b"host",
        b"inference-header-content-length", b"origin", b"traceparent", b"x-genba-deadline-ms",
        b"x-genba-priority",
    }
)  # fmt: skip
_NOT_PLAIN: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_TRACEPARENT_PARTS: Final = 4
_SPAN_DIGITS: Final = 16
_TRACE_DIGITS: Final = 32
VERSIONS: Final = ("1.0", "1.1")


class Plan:
    """A request head.

    Attributes:
        method: Such as ``POST``.
        target: Path and query.
        headers: By name in lower case.
        length: Bytes of the body.
        keep_alive: Whether the connection goes on after the answer.
        chunks: Whether the client understands an answer in chunks.
        urgent: Whether somebody waits for the answer.
        deadline_s: How long an answer is worth something; None where the client does not say.
        trace: W3C trace id, empty where none was sent.
        parent: The span of the caller, empty where the caller does not keep it.
        bound: What the application made of it; belongs to the application.
    """

    __slots__ = (
        "bound", "chunks", "deadline_s", "headers", "keep_alive", "length", "method", "parent",
        "target", "trace", "urgent",
    )  # fmt: skip

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: dict[bytes, bytes],
        *,
        length: int = 0,
        keep_alive: bool = True,
        chunks: bool = True,
    ) -> None:
        self.chunks = chunks
        self.method = method
        self.target = target
        self.headers = headers
        self.length = length
        self.keep_alive = keep_alive
        self.urgent = headers.get(b"x-genba-priority", b"").lower() != b"batch"
        self.deadline_s = _seconds(headers.get(b"x-genba-deadline-ms"))
        traceparent = headers.get(b"traceparent", b"")
        self.trace = trace_of(traceparent)
        self.parent = parent_of(traceparent) if self.trace else ""
        self.bound: Any = None


class Plans:
    """The plans of heads that were seen before, oldest first to go.

    Args:
        entries: How many are kept.
        head_bytes: Longer heads are not kept.
    """

    def __init__(self, entries: int = 512, head_bytes: int = 2_048) -> None:
        self._entries = entries
        self._head_bytes = head_bytes
        self._known: dict[bytes, Plan] = {}

    def get(self, head: bytes) -> Plan | None:
        r"""Return the plan of a whole head, with the empty line at its end.

        Returns:
            None for a head that needs the parser for its body too, or is wrong.

        Example:
            >>> plan = Plans().get(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            >>> plan.method, plan.target, plan.headers
            (b'GET', b'/v2', {b'host': b'localhost'})
            >>> Plans().get(b"GET /v2 HTTP/1.1\nHost: localhost\r\n\r\n") is None
            True
        """
        plan = self._known.get(head)
        if plan is None:
            plan = _plain(head)
            if plan is not None and len(head) <= self._head_bytes:
                if len(self._known) >= self._entries:
                    del self._known[next(iter(self._known))]
                self._known[head] = plan
        return plan

    def clear(self) -> None:
        """Forget everything, because what plans are bound to has changed."""
        self._known.clear()


def add_field(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """Take one header field.

    Raises:
        Refusal: 400 when it is there a second time and must not be.
    """
    name = name.lower()
    if name in headers and name in _ONCE:
        raise Refusal(400, "G708", f"The request has two fields {name.decode('latin-1')}.")
    headers[name] = value.rstrip(b" \t")  # llhttp leaves it there (RFC 9110, section 5.5)


def trace_of(traceparent: bytes) -> str:
    """Return the trace id of a W3C `traceparent`, empty when it is none.

    Example:
        >>> trace_of(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        '0af7651916cd43dd8448eb211c80319c'
        >>> trace_of(b"00-zz-1-01")
        ''
    """
    parts = traceparent.strip().split(b"-")
    if len(parts) < _TRACEPARENT_PARTS or len(parts[1]) != _TRACE_DIGITS:
        return ""
    digits = parts[1].decode("latin-1")
    return digits if not set(digits) - set("0123456789abcdef") and set(digits) != {"0"} else ""


def parent_of(traceparent: bytes) -> str:
    """Return the span of the caller, if the caller keeps it; from a W3C `traceparent`.

    Example:
        >>> parent_of(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        'b7ad6b7169203331'
        >>> parent_of(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
        ''
    """
    try:
        parts = traceparent.strip().split(b"-")
        span, flags = parts[2].decode("ascii"), int(parts[3], 16)
        valid = len(span) == _SPAN_DIGITS and int(span, 16) > 0
    except (IndexError, ValueError):
        return ""
    return span if valid and flags & 1 else ""


def _seconds(milliseconds: bytes | None) -> float | None:
    """Read a deadline; what is not a positive number is refused where the request is."""
    if milliseconds is None:
        return None
    try:
        seconds = float(milliseconds) / 1e3
    except ValueError:
        return math.nan
    return seconds if seconds > 0 else math.nan


class _Head:
    """Takes down what the parser finds in one head."""

    def __init__(self) -> None:
        self.begun = 0
        self.complete = False
        self.keep_alive = True
        self.body = False
        self.parser: Any = httptools.HttpRequestParser(self)
        self.target = b""
        self.headers: dict[bytes, bytes] = {}

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        add_field(self.headers, name, value)

    def on_headers_complete(self) -> None:
        self.complete = True
        self.keep_alive = self.parser.should_keep_alive()  # after the end it does not know

    def on_body(self, _: bytes) -> None:
        self.body = True  # the parser saw the end of the head earlier than we did


def _plain(head: bytes) -> Plan | None:
    """Parse a head that is followed by a body of a stated length, or by none."""
    found = _Head()
    parser = found.parser
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    finally:
        del found.parser  # they hold each other
    version = parser.get_http_version()
    whole = found.begun == 1 and found.complete and not found.body and version in VERSIONS
    if not whole or found.headers.keys() & _NOT_PLAIN:
        return None
    return Plan(
        parser.get_method(),
        found.target,
        found.headers,
        length=int(found.headers.get(b"content-length", b"0")),
        keep_alive=found.keep_alive,
        chunks=version == "1.1",
    )


#: Of what the server says without being asked.
NO_PLAN: Final = Plan(b"", b"", {})
