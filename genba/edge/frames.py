"""Messages over a pipe: a small JSON header and frames of bytes, in a stream that may hold noise.

What stands between two machines may talk too: a login banner comes before the first message, and
is skipped. Anything else that is not a message ends the conversation.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from genba.core.protocols import JsonObject

MAGIC: Final = b"\x93GENBA\r\n"
_LENGTH: Final = struct.Struct("<I")
_MOST_HEADER: Final = 16 << 20
_FRAMES: Final = "frames"  # in the header: the length of each


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A header and the frames that came with it."""

    header: JsonObject
    frames: tuple[bytes, ...] = ()


def pack(header: JsonObject, *frames: bytes) -> bytes:
    """Return a message as bytes.

    Example:
        >>> [m.frames for m in Incoming().feed(pack({"do": "run"}, b"a", b""))]
        [(b'a', b'')]
    """
    head = json.dumps({**header, _FRAMES: [len(frame) for frame in frames]}).encode()
    return b"".join((MAGIC, _LENGTH.pack(len(head)), head, *frames))


class Incoming:
    """Turns bytes as they come into messages.

    Args:
        noise: How many bytes that are no message may come before the first one.
    """

    def __init__(self, noise: int = 0) -> None:
        self._noise = noise
        self._held = bytearray()
        self._header: JsonObject | None = None
        self._wanted = 0  # bytes until the next part is whole

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take what came and yield the messages that are whole now.

        Raises:
            ValueError: What came is no message.
        """
        self._held += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        if self._header is None and not self._read_header():
            return None
        assert self._header is not None
        if len(self._held) < self._wanted:
            return None
        frames, at = [], 0
        for length in self._header[_FRAMES]:
            frames.append(bytes(self._held[at : at + length]))
            at += length
        del self._held[:at]
        header = {name: value for name, value in self._header.items() if name != _FRAMES}
        self._header = None
        return Message(header=header, frames=tuple(frames))

    def _read_header(self) -> bool:
        """Read the header if it is there whole."""
        if not self._at_magic() or len(self._held) < len(MAGIC) + _LENGTH.size:
            return False
        (length,) = _LENGTH.unpack_from(self._held, len(MAGIC))
        if length > _MOST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        end = len(MAGIC) + _LENGTH.size + length
        if len(self._held) < end:
            return False
        header = json.loads(bytes(self._held[end - length : end]))
        lengths = header.get(_FRAMES) if isinstance(header, dict) else None
        if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
            raise ValueError("a header without the lengths of its frames")
        del self._held[:end]
        self._header, self._wanted, self._noise = header, sum(lengths), 0
        return True

    def _at_magic(self) -> bool:
        """Say whether a message may begin here; drop what may come before the first."""
        here = bytes(self._held[: len(MAGIC)])
        if MAGIC.startswith(here):
            return len(here) == len(MAGIC)
        place = self._held.find(MAGIC)
        before = place if place >= 0 else max(len(self._held) - len(MAGIC) + 1, 0)
        if before > self._noise or not self._noise:
            raise ValueError(f"no message: {here!r}")
        self._noise -= before
        del self._held[:before]
        return place >= 0
