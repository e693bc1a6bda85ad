"""Reading GGUF, the one file of a language model: weights, vocabulary and chat template.

Nothing in the file is believed: every count, length and offset is checked against the bytes that
are there before memory is asked for. Source: the GGUF specification, docs/gguf.md of ggml.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.gguf_blocks import KINDS, READABLE, Kind, dequantise

MAGIC: Final = b"GGUF"
ALIGNMENT_KEY: Final = "general.alignment"
VERSION: Final = 3
_VERSIONS: Final = (2, 3)
ALIGNMENT: Final = 32
_MOST_ENTRIES: Final = 4096  # of metadata
_MOST_TENSORS: Final = 65_536
_MOST_DIMENSIONS: Final = 4
_MOST_ITEMS: Final = 4_000_000  # of a list; a vocabulary has some hundred thousand
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS: Final = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_LENGTH: Final = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Where a tensor is in the file."""

    shape: tuple[int, ...]  # as numpy has it: rows first
    kind: Kind
    offset: int  # bytes, from the beginning of the file
    size: int  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Gguf:
    """A language model's file: what it says of itself, and its tensors."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Weights]
    entries: Mapping[str, bytes]  # each entry of the metadata as it is written, its key included
    data: memoryview

    def raw(self, name: str) -> Array:
        """Return a tensor as it is stored: uint8 [rows, bytes of a row], a view of the file."""
        found = self.tensors[name]
        rows = math.prod(found.shape[:-1])
        at = np.frombuffer(self.data, dtype=np.uint8, count=found.size, offset=found.offset)
        return at.reshape(rows, -1)

    def array(self, name: str) -> Array:
        """Return a tensor as float32 in its shape.

        Raises:
            Problem: G642 when its format is none this version reads.
        """
        found = self.tensors[name]
        if found.kind.name not in READABLE:
            raise _damaged(
                f"The tensor {name} is in the format {found.kind.name}, which is not read here.",
                f"Read are {', '.join(sorted(READABLE))}.",
            )
        return dequantise(self.raw(name), found.kind.name).reshape(found.shape)

    def text(self, key: str, default: str | None = None) -> str:
        """Return an entry that must be text; raises Problem G642 where it is not."""
        return str(self._entry(key, str, default))

    def whole(self, key: str, default: int | None = None) -> int:
        """Return an entry that must be a whole number; raises Problem G642 where it is not."""
        return int(self._entry(key, int, default))

    def number(self, key: str, default: float | None = None) -> float:
        """Return an entry that must be a number; raises Problem G642 where it is not."""
        return float(self._entry(key, (float, int), default))

    def _entry(self, key: str, kind: Any, default: Any) -> Any:
        value = self.metadata.get(key, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _damaged(
                f"The language model's file has no usable entry {key!r}.",
                "It is missing." if key not in self.metadata else f"It is {str(value)[:60]!r}.",
            )
        return value


def read_gguf(data: bytes | memoryview) -> Gguf:
    """Read what a GGUF file says of itself; the tensors stay where they are.

    Args:
        data: The whole file; a memory-mapped one is read where it is looked at.

    Raises:
        Problem: G642 when it is no GGUF file, damaged, or of a version or format unknown here.
    """
    reader = _Reader(memoryview(data).cast("B"))
    try:
        return reader.read()
    except (struct.error, UnicodeDecodeError, ValueError, KeyError, OverflowError) as error:
        raise _damaged("The language model's file is no whole GGUF file.", str(error)) from error


class _Reader:
    """Walks through the file once."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def read(self) -> Gguf:
        if self._take(4) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number(4)
        if version not in _VERSIONS:
            raise ValueError(f"it is of version {version}; versions 2 and 3 are read")
        tensors, entries = self._count(_MOST_TENSORS, 24), self._count(_MOST_ENTRIES, 13)
        metadata, written = {}, {}
        for _ in range(entries):
            start = self._at
            key = self._text()
            metadata[key] = self._value(self._number(4))
            written[key] = bytes(self._data[start : self._at])
        step = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
        if not isinstance(step, int) or not 1 <= step <= 1 << 16 or step & (step - 1):
            raise ValueError(f"its alignment is {step!r}")
        places = dict(self._place() for _ in range(tensors))
        start = -(-self._at // step) * step
        found = {name: self._weights(name, *place, start) for name, place in places.items()}
        if len(found) != tensors:
            raise ValueError("two tensors have the same name")
        return Gguf(metadata=metadata, tensors=found, entries=written, data=self._data)

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("it ends too early")
        self._at += size
        return bytes(self._data[self._at - size : self._at])

    def _number(self, kind: int) -> Any:
        packed = _NUMBERS[kind]
        return packed.unpack(self._take(packed.size))[0]

    def _count(self, most: int, least_bytes: int) -> int:
        """Return a count that could be true: each of so many takes at least so many bytes."""
        count = int(self._number(10))
        if count > most or count * least_bytes > len(self._data) - self._at:
            raise ValueError(f"it claims {count} entries, more than there is room for")
        return count

    def _text(self) -> str:
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        return self._take(length).decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        return self._list() if kind == _ARRAY else self._number(kind)

    def _list(self) -> Any:
        kind = self._number(4)
        if kind == _ARRAY:
            raise ValueError("it has a list of lists")
        if kind == _STRING:
            return [self._text() for _ in range(self._count(_MOST_ITEMS, _LENGTH.size))]
        packed = _NUMBERS[kind]
        count = self._count(_MOST_ITEMS, packed.size)
        return list(struct.unpack(f"<{count}{packed.format[-1]}", self._take(count * packed.size)))

    def _place(self) -> tuple[str, tuple[tuple[int, ...], Kind, int]]:
        name, dimensions = self._text(), self._number(4)
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"the tensor {name[:60]!r} has {dimensions} dimensions")
        shape = tuple(int(self._number(10)) for _ in range(dimensions))
        kind = self._number(4)
        if kind not in KINDS:
            raise ValueError(f"the tensor {name[:60]!r} has the unknown format {kind}")
        return name, (shape[::-1], KINDS[kind], int(self._number(10)))

    def _weights(
        self, name: str, shape: tuple[int, ...], kind: Kind, offset: int, start: int
    ) -> Weights:
        if not all(shape) or shape[-1] % kind.block:
            raise ValueError(f"the tensor {name[:60]!r} is not of whole blocks")
        size = math.prod(shape) // kind.block * kind.size
        if size > len(self._data) or start + offset + size > len(self._data):
            raise ValueError(f"the tensor {name[:60]!r} reaches beyond the end")
        return Weights(shape=shape, kind=kind, offset=start + offset, size=size)


def _damaged(what: str, why: str) -> Problem:
    return Problem("G642", what, why=why, tries=["fetch the file again", "genba explain G642"])
