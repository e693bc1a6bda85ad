"""Raw HTTP for tests: bytes out, answers in, nothing in between that would tidy them up."""

import json
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_PATIENCE_S: Final = 20.0
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
#: What the server may answer to anything at all: what was right, what was wrong, and the two
#: refusals of a server that is busy.
DELIBERATE: Final = frozenset({200, 204, *range(400, 500), 503, 504, 505})
URL: Final = "/v2/models/pump/infer"


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    head: bytes
    body: bytes

    @property
    def code(self) -> str:
        """The code of a refusal; empty for what is none."""
        try:
            told = json.loads(self.body)
        except ValueError:
            return ""
        return str(told.get("code", "")) if isinstance(told, dict) else ""

    @property
    def said(self) -> str:
        """Status and code in one word, as the corpus writes them."""
        return f"{self.status} {self.code}".strip()


def answers(received: bytes) -> list[Answer]:
    """Take apart everything that came on a connection; what is cut off is no answer."""
    found: list[Answer] = []
    while received:
        head, end, rest = received.partition(_HEAD_END)
        if not end:
            break
        status = int(head.split(b" ", 2)[1])
        length = _LENGTH.search(head + b"\r\n")
        size = int(length[1]) if length else 0
        if len(rest) < size:
            break
        if status != 100:
            found.append(Answer(status, head, rest[:size]))
        received = rest[size:]
    return found


def connect(port: int) -> socket.socket:
    """Open a connection that does not wait for ever."""
    return socket.create_connection(("127.0.0.1", port), _PATIENCE_S)


def everything(connection: socket.socket) -> bytes:
    """Read until the server ends the connection, however it does that."""
    pieces: list[bytes] = []
    try:
        while piece := connection.recv(65_536):
            pieces.append(piece)
    except ConnectionError:
        pass  # it may cut off whoever goes on sending after a refusal
    return b"".join(pieces)


def exchange(port: int, pieces: Iterable[bytes]) -> list[Answer]:
    """Send bytes on a connection of their own, say that this was all, and return the answers."""
    with connect(port) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # refused before it was all sent
        return answers(everything(connection))


def post(
    body: Any, *, url: str = URL, fields: Mapping[str, str] | None = None, length: str | None = None
) -> bytes:
    """Return a POST; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {url} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(data) if length is None else length}",
        *(f"{name}: {value}" for name, value in (fields or {}).items()),
    ]
    return "\r\n".join(lines).encode("latin-1") + _HEAD_END + data


def window(shape: Any = (1, 3, 4), data: Any = (0.5,) * 12, **changes: Any) -> dict[str, Any]:
    """Return the body of a good request, or of one that was changed."""
    tensor = {"name": "window", "datatype": "FP32", "shape": list(shape), "data": data}
    return {"inputs": [{**tensor, **changes}]}


GOOD: Final = post(window())


def good(connection: socket.socket) -> Answer:
    """Ask properly on a connection that stays open, and return the answer."""
    connection.sendall(GOOD)
    received = b""
    while not (found := answers(received)):
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionError(
                "the server ended a connection of a client that did nothing wrong"
            )
        received += piece
    return found[0]
