"""Bytes to a server on this machine and back, over connections that are kept open."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Field = tuple[bytes, bytes]
#: Fields that belong to one connection, not to a message (RFC 9110, section 7.6.1).
_OF_CONNECTION: Final = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"te", b"upgrade")
)
_CHUNKED: Final = b"chunked"
_HEAD_BYTES: Final = 64 * 1_024
_UNREACHABLE: Final = (
    b'{"error":"The server of this replica does not answer; another one will.","code":"G712"}'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a server answered."""

    status: int
    fields: tuple[Field, ...]
    body: bytes


class Forwarder:
    """Asks one server on this machine. Belongs to one event loop.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(
        self, method: bytes, target: bytes, fields: Iterable[Field], body: bytes
    ) -> Reply:
        """Send a request as it came and return the answer; 503 when the server is gone.

        A connection that was idle may have been closed meanwhile: then a new one is tried. A
        server that dies in the middle of a request has perhaps computed it, which does no harm.
        """
        kept = [(name, value) for name, value in fields if name.lower() not in _OF_CONNECTION]
        lines = [b"%b: %b\r\n" % field for field in kept]
        head = b"%b %b HTTP/1.1\r\nContent-Length: %d\r\n" % (method, target, len(body))
        request = b"".join((head, *lines, b"\r\n", body))
        while self._idle:
            try:
                return await self._once(*self._idle.pop(), request, method)
            except (OSError, EOFError):
                continue
        try:
            opened = await asyncio.open_connection("127.0.0.1", self._port, limit=_HEAD_BYTES)
            return await self._once(*opened, request, method)
        except (OSError, EOFError):
            fields = ((b"Content-Type", b"application/json"), (b"Retry-After", b"1"))
            return Reply(status=503, fields=fields, body=_UNREACHABLE)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _once(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: bytes,
        method: bytes,
    ) -> Reply:
        try:
            writer.write(request)
            await writer.drain()
            status, fields = _head(await reader.readuntil(b"\r\n\r\n"))
            body = b"" if method == b"HEAD" else await _body(reader, fields)
        except BaseException:
            writer.close()
            raise
        if dict(fields).get(b"connection", b"").lower() == b"close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        kept = tuple(field for field in fields if field[0] not in _OF_CONNECTION)
        return Reply(status=status, fields=kept, body=body)


def _head(data: bytes) -> tuple[int, tuple[Field, ...]]:
    r"""Return status and fields, their names in lower case.

    Example:
        >>> _head(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        (200, ((b'content-length', b'2'),))
    """
    first, *lines = data[:-4].split(b"\r\n")
    fields = (line.partition(b":") for line in lines)
    return int(first.split(b" ", 2)[1]), tuple((n.lower(), v.strip()) for n, _, v in fields)


async def _body(reader: asyncio.StreamReader, fields: Iterable[Field]) -> bytes:
    known = dict(fields)
    if known.get(b"transfer-encoding", b"").lower() != _CHUNKED:
        return await reader.readexactly(int(known.get(b"content-length", b"0")))
    pieces = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)
