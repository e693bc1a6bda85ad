"""Numbers of a GGUF file: plain floats, and blocks of small integers that share a scale.

Source: the GGUF specification (docs/gguf.md of ggml) and the reference code of its block formats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array

BLOCK: Final = 32  # numbers of a block in every format below
#: What a tensor can be written as.
FORMS: Final = ("f32", "f16", "bf16", "q8_0", "q4_0")
_CHUNK_ROWS: Final = 4096  # quantised at a time, so that memory stays bounded


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A number format of GGUF."""

    name: str
    code: int  # in the file
    block: int  # numbers of a block
    size: int  # bytes of a block


KINDS: Final = {
    kind.code: kind
    for kind in (
        Kind(name="f32", code=0, block=1, size=4),
        Kind(name="f16", code=1, block=1, size=2),
        Kind(name="q4_0", code=2, block=BLOCK, size=18),
        Kind(name="q4_1", code=3, block=BLOCK, size=20),
        Kind(name="q5_0", code=6, block=BLOCK, size=22),
        Kind(name="q5_1", code=7, block=BLOCK, size=24),
        Kind(name="q8_0", code=8, block=BLOCK, size=34),
        Kind(name="q4_k", code=12, block=256, size=144),
        Kind(name="q5_k", code=13, block=256, size=176),
        Kind(name="q6_k", code=14, block=256, size=210),
        Kind(name="bf16", code=30, block=1, size=2),
    )
}
CODES: Final = {kind.name: kind.code for kind in KINDS.values()}


def dequantise(raw: Array, name: str) -> Array:
    """Return the numbers of a tensor.

    Args:
        raw: uint8 [rows, bytes of a row].
        name: Its format, one of `READABLE`.

    Returns:
        float32 [rows, numbers of a row].

    Raises:
        KeyError: When the format is none of `READABLE`.
    """
    read: Array = _READ[name](raw)
    return read


def quantise(array: Array, name: str) -> Array:
    """Return numbers in a format of `FORMS`, rounded to the nearest.

    Args:
        array: float32 [rows, numbers of a row]; for q8_0 and q4_0 a row is whole blocks of 32.
        name: The format.

    Returns:
        uint8 [rows, bytes of a row].

    Example:
        >>> row = np.linspace(-1, 1, 32, dtype=np.float32)[None]
        >>> quantise(row, "q4_0").shape
        (1, 18)
        >>> float(np.abs(dequantise(quantise(row, "q8_0"), "q8_0") - row).max()) < 0.005
        True
    """
    write = _WRITE[name]
    parts = [
        write(np.ascontiguousarray(array[at : at + _CHUNK_ROWS], dtype=np.float32))
        for at in range(0, len(array), _CHUNK_ROWS)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def split_q8(raw: Array) -> tuple[Array, Array]:
    """Return the integers (int8 [rows, blocks, 32]) and scales (float16 [rows, blocks]) of q8_0."""
    blocks = raw.reshape(len(raw), -1, 34)
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
    return blocks[..., 2:].view(np.int8), scales


def split_q4(raw: Array) -> tuple[Array, Array]:
    """Return the integers (uint8 0-15 [rows, blocks, 32], 8 = zero) and scales of q4_0."""
    blocks = raw.reshape(len(raw), -1, 18)
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
    return _nibbles(blocks[..., 2:]), scales


def _nibbles(packed: Array) -> Array:
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)  # low half first


def _rows(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _from_f16(raw: Array) -> Array:
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def _from_bf16(raw: Array) -> Array:
    return (np.ascontiguousarray(raw).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _from_q8_0(raw: Array) -> Array:
    numbers, scales = split_q8(raw)
    return _rows(numbers.astype(np.float32) * scales[..., None].astype(np.float32))


def _from_q4_0(raw: Array) -> Array:
    numbers, scales = split_q4(raw)
    return _rows((numbers.astype(np.float32) - 8) * scales[..., None].astype(np.float32))


def _from_q4_1(raw: Array) -> Array:
    blocks = raw.reshape(len(raw), -1, 20)
    pair = np.ascontiguousarray(blocks[..., :4]).view("<f2").astype(np.float32)
    return _rows(_nibbles(blocks[..., 4:]) * pair[..., :1] + pair[..., 1:])


def _to_bf16(array: Array) -> Array:
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, halves to even
    kept = np.where(np.isnan(array), (bits >> 16) | 0x40, rounded)
    return kept.astype("<u2").view(np.uint8)


def _to_q8_0(array: Array) -> Array:
    blocks = array.reshape(len(array), -1, BLOCK)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    numbers = np.rint(blocks * _inverse(scale)).astype(np.int8)
    return _rows(np.concatenate([_half(scale), numbers.view(np.uint8)], axis=-1))


def _to_q4_0(array: Array) -> Array:
    blocks = array.reshape(len(array), -1, BLOCK)
    widest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., None], axis=-1)
    scale = widest / -8  # the widest number becomes -8, which exists; +8 does not
    numbers = np.clip(np.floor(blocks * _inverse(scale) + 8.5), 0, 15).astype(np.uint8)
    packed = numbers[..., : BLOCK // 2] | (numbers[..., BLOCK // 2 :] << 4)
    return _rows(np.concatenate([_half(scale), packed], axis=-1))


def _inverse(scale: Array) -> Array:
    return np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)


def _half(scale: Array) -> Array:
    return scale.astype("<f2").view(np.uint8)


def _plain(kind: str) -> Callable[[Array], Array]:
    def write(array: Array) -> Array:
        return _rows(array.astype(kind)).view(np.uint8)

    return write


_READ: Final[dict[str, Callable[[Array], Any]]] = {
    "f32": lambda raw: np.ascontiguousarray(raw).view("<f4"),
    "f16": _from_f16,
    "bf16": _from_bf16,
    "q8_0": _from_q8_0,
    "q4_0": _from_q4_0,
    "q4_1": _from_q4_1,
}
_WRITE: Final[dict[str, Callable[[Array], Any]]] = {
    "f32": _plain("<f4"),
    "f16": _plain("<f2"),
    "bf16": _to_bf16,
    "q8_0": _to_q8_0,
    "q4_0": _to_q4_0,
}
#: What `dequantise` reads.
READABLE: Final = frozenset(_READ)
