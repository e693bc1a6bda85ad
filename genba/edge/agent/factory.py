"""The factory as a device reaches it: HTTP with a key, in pieces, never faster or longer than said.

Only the standard library is used. What comes back is not believed: whoever asks checks digests and
signatures. A server that sends nothing, trickles, sends too much or goes away ends the request with
a Problem, and whatever had arrived before was handed on already.
"""

import gzip
import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from genba.core.problem import Problem

_PIECE: Final = 256 << 10  # bytes read at a time
_ASKED: Final = 4 << 20  # bytes of one range
_OK: Final = 200
_PART: Final = 206
_TOLD: Final = 4_096  # bytes of a refusal that are read


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long a device waits for its factory."""

    silent_s: float = 15.0  # for the next byte
    grace_s: float = 10.0  # of any request, before its rate counts
    least_bytes_s: float = 1_024.0  # slower than this, a server is stalling


class HttpRefusal(Problem):
    """The factory answered, and the answer is no.

    Attributes:
        status: Of HTTP.
    """

    def __init__(self, status: int, code: str, what: str, where: str) -> None:
        super().__init__(
            code,
            what,
            where=where,
            why=f"HTTP status {status}.",
            tries=["genba-edge status", "genba edge devices  # there", f"genba explain {code}"],
        )
        self.status = status


class Factory:
    """A connection that is opened when it is needed, and again when it broke.

    Args:
        url: Of the factory, such as ``https://factory:8080``.
        key: Sent with every request; none when empty.
        certificate: PEM of who may vouch for the factory; the system's when None.
        patience: How long to wait.
        clock: Seconds that only go on.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        certificate: Path | None = None,
        patience: Patience = Patience(),  # frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Problem(
                "G687",
                f"{url!r} is not the address of a factory.",
                where=url,
                tries=["genba edge enrol DEVICE --line LINE --url https://FACTORY:8080"],
            )
        self.url = url.rstrip("/")
        self._key = key
        self._prefix = parts.path.rstrip("/")
        self._patience = patience
        self._clock = clock
        self._tls = parts.scheme == "https"
        self._address = parts.hostname, parts.port
        self._certificate = certificate
        self._connection: http.client.HTTPConnection | None = None
        self.received = 0  # bytes of bodies since it was made

    def read(self, path: str, most: int) -> bytes:
        """Return a small body whole.

        Raises:
            Problem: G680 when the factory cannot be reached or is too slow, G685 when it sends
                more than `most` bytes; HttpRefusal for any other status than 200.
        """
        return b"".join(self._answer("GET", path, most=most))

    def stream(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield the bytes of an object from an offset on, in the order they arrive.

        Args:
            path: Of the object.
            offset: Where to go on.
            size: Of the whole object.

        Raises:
            Problem: As `read`; what was yielded before is good to keep.
        """
        while offset < size:
            end = min(size, offset + _ASKED)
            arrived = 0
            for piece in self._answer("GET", path, most=end - offset, part=(offset, end)):
                arrived += len(piece)
                yield piece
            if not arrived:
                raise self._gone(path, "The answer was empty.")
            offset += arrived

    def post(self, path: str, body: Mapping[str, Any], most: int) -> dict[str, Any]:
        """Send JSON and return the JSON that answers.

        Raises:
            Problem: As `read`; G680 as well when the answer is no JSON object.
        """
        plain = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        data = gzip.compress(plain, compresslevel=1)
        answer = b"".join(self._answer("POST", path, most=most, body=data))
        try:
            told = json.loads(answer)
        except ValueError as error:
            raise self._gone(path, "It did not answer in JSON.") from error
        if not isinstance(told, dict):
            raise self._gone(path, "It did not answer with an object.")
        return told

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(
        self,
        method: str,
        path: str,
        *,
        most: int,
        part: tuple[int, int] | None = None,
        body: bytes | None = None,
    ) -> Iterator[bytes]:
        """Send one request and yield its body; the connection stays open if all of it was read."""
        fields = {"Accept": "*/*", "User-Agent": "genba-edge"}
        if self._key:
            fields["Authorization"] = f"Bearer {self._key}"
        if part is not None:
            fields["Range"] = f"bytes={part[0]}-{part[1] - 1}"
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        whole = False
        try:
            answer = self._ask(method, path, body, fields)
            if answer.status not in (_OK, _PART):
                raise _refusal(answer, path)
            skip = part[0] if part is not None and answer.status == _OK else 0
            yield from self._body(answer, path, most=most, skip=skip)
            whole = answer.isclosed()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(path, f"{type(error).__name__}: {error}") from error
        finally:
            if not whole:
                self.close()

    def _ask(
        self, method: str, path: str, body: bytes | None, fields: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send a request; once more over a new connection when the kept one had been closed."""
        kept = self._connection is not None
        try:
            return self._send(method, path, body, fields)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.close()
            if not kept:
                raise
        return self._send(method, path, body, fields)

    def _send(
        self, method: str, path: str, body: bytes | None, fields: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._open()
        self._connection.request(method, f"{self._prefix}{path}", body=body, headers=dict(fields))
        return self._connection.getresponse()

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._address
        if not self._tls:
            return http.client.HTTPConnection(host, port, timeout=self._patience.silent_s)
        trusted = None if self._certificate is None else str(self._certificate)
        context = ssl.create_default_context(cafile=trusted)
        wait = self._patience.silent_s
        return http.client.HTTPSConnection(host, port, timeout=wait, context=context)

    def _body(
        self, answer: http.client.HTTPResponse, path: str, *, most: int, skip: int
    ) -> Iterator[bytes]:
        began, got = self._clock(), 0
        while piece := answer.read1(_PIECE):
            got += len(piece)
            self.received += len(piece)
            lasted = self._clock() - began
            allowed = self._patience.grace_s + got / self._patience.least_bytes_s
            if lasted > allowed:
                raise self._gone(path, f"It sent {got} bytes in {lasted:.0f} s.")
            start = min(len(piece), max(0, skip - (got - len(piece))))
            if got - skip > most:
                raise too_much(path, most)
            if piece[start:]:
                yield piece[start:]
        if answer.length:
            raise self._gone(path, f"{answer.length} bytes are missing at the end.")

    def _gone(self, path: str, why: str) -> Problem:
        return Problem(
            "G680",
            f"The factory at {self.url} cannot be reached, or stopped in the middle.",
            where=path,
            why=f"{why.rstrip('.')}. What had arrived is kept, and what runs, runs on.",
            tries=["genba-edge update  # goes on where it stopped", "genba up  # at the factory"],
        )


def too_much(where: str, most: int) -> Problem:
    """Return the Problem of a body that is longer than what was signed."""
    return Problem(
        "G685",
        f"More than {most} bytes came, and more is not expected.",
        where=where,
        why="Sizes are part of what is signed; nothing of it was used.",
        tries=["genba-edge update", "genba explain G685"],
    )


def _refusal(answer: http.client.HTTPResponse, path: str) -> HttpRefusal:
    text = answer.read(_TOLD)
    try:
        told = json.loads(text)
        what, code = str(told["error"]), str(told.get("code") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        what, code = "", ""
    described = what or f"The factory answers {answer.status} {answer.reason}."
    unknown = answer.status not in (401, 403, 404, 409) or not code
    return HttpRefusal(answer.status, "G680" if unknown else code, described, path)
