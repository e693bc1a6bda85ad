"""Answers as bytes: status line, header fields, JSON bodies, refusals."""

import functools
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import msgspec

JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
EVENTS: Final = b"text/event-stream"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n%b\r\n"
)
LAST_CHUNK: Final = b"0\r\n\r\n"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


_OPENAI_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Refusal(Exception):
    """A request that is not carried out: the HTTP status, the Genba code and one sentence.

    Args:
        status: HTTP status, 4xx when the request is at fault.
        code: Genba code; `genba explain CODE` prints its page.
        what: One sentence for the person who sent the request.
        fields: Header fields to add, such as ``Retry-After``.
    """

    param: str | None = None  # the field of the request that is at fault, where it is one

    def __init__(self, status: int, code: str, what: str, fields: bytes = b"") -> None:
        super().__init__(what)
        self.status = status
        self.code = code
        self.what = what
        self.fields = fields

    def body(self) -> bytes:
        """Return the body of the Open Inference Protocol for errors, with the code added.

        Example:
            >>> Refusal(404, "G703", "There is no line pumps.").body()
            b'{"error":"There is no line pumps.","code":"G703"}'
        """
        return encode_json({"error": self.what, "code": self.code})

    def openai_body(self) -> bytes:
        """Return the body that clients of the OpenAI API expect of an error.

        Example:
            >>> Refusal(429, "G757", "Slowly.").openai_body().decode()
            '{"error":{"message":"Slowly.","type":"rate_limit_error","param":null,"code":"G757"}}'
        """
        error = {
            "message": self.what,
            "type": _OPENAI_TYPES.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        return encode_json({"error": error})


MISTAKE: Final = Refusal(500, "G711", "The server made a mistake; its log says more.")


def overloaded(what: str) -> Refusal:
    """Refuse for now: the client may try again in a second."""
    return Refusal(503, "G706", what, b"Retry-After: 1\r\n")


def encode_json(value: Any) -> bytes:
    """Encode plain data; NaN and infinity, which JSON cannot carry, become null."""
    return msgspec.json.encode(value)


def chunk(data: bytes) -> bytes:
    r"""Return a piece of a chunked body.

    Example:
        >>> chunk(b"hello")
        b'5\r\nhello\r\n'
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


@functools.lru_cache(maxsize=64)
def _beginning(status: int, kind: bytes, second: int) -> bytes:
    """Return what all answers of one second begin with."""
    date = formatdate(second, usegmt=True).encode()
    return b"%bDate: %b\r\nContent-Type: %b\r\nContent-Length: " % (
        _STATUS_LINES[status],
        date,
        kind,
    )


def render(
    status: int,
    body: Sequence[bytes],
    *,
    kind: bytes = JSON,
    fields: bytes = b"",
    close: bool = False,
    head_only: bool = False,
) -> bytes:
    """Return one whole answer.

    Args:
        status: HTTP status.
        body: Pieces of the body.
        kind: Media type of the body.
        fields: More header fields, each ending in CRLF.
        close: Whether the connection ends after this answer.
        head_only: Leave the body out, as an answer to HEAD must.
    """
    head = b"%b%d\r\n%b%b\r\n" % (
        _beginning(status, kind, int(time.time())),
        sum(map(len, body)),
        fields,
        b"Connection: close\r\n" if close else b"",
    )
    return head if head_only else b"".join((head, *body))
