"""Writing GGUF: weights in the wanted number format beside the vocabulary of the base."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.edge.gguf import ALIGNMENT, ALIGNMENT_KEY, MAGIC, VERSION, read_gguf
from genba.edge.gguf_blocks import BLOCK, CODES, quantise

_FILE_TYPE: Final = "general.file_type"
_BLOCK_VERSION: Final = "general.quantization_version"
#: What `general.file_type` says of a file that is mostly in this format.
_FILE_TYPES: Final = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
#: Tied to the output, it decides about each token: four bits there cost quality, and save little.
_CAREFUL: Final = frozenset({"token_embd.weight", "output.weight"})
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Typed:
    """A number, or numbers, of a certain width, which the readers of the entry expect."""

    value: Any
    kind: str = "I"  # as `struct` has it

    def pack(self) -> bytes:
        """Return it as it stands in the file."""
        code = _CODES[self.kind]
        if isinstance(self.value, Sequence):
            count = len(self.value)
            head = struct.pack("<IIQ", _ARRAY, code, count)
            return head + struct.pack(f"<{count}{self.kind}", *self.value)
        return struct.pack(f"<I{self.kind}", code, self.value)


_CODES: Final = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11}

#: Name, shape (rows first), format, and the rows in that format.
Packed = tuple[str, tuple[int, ...], str, Array]


def write_gguf(base: bytes, tensors: Mapping[str, Array], quant: str = "q8_0") -> bytes:
    """Return the base's file with other weights, in a number format of choice.

    Args:
        base: A GGUF file: metadata, vocabulary and template are taken from it unchanged.
        tensors: float32 arrays by their names in GGUF, rows first; what is left out is taken from
            the base, in its own numbers.
        quant: "q8_0", "q4_0" (with the embedding in q8_0), "bf16", "f16" or "f32". Vectors stay
            float32; matrices whose rows are not whole blocks of 32 are written as f16.

    Raises:
        Problem: G642 when the base is no GGUF file, or a kept tensor has a format not read here.
        ValueError: When a tensor is none of the base's, or of another shape.
    """
    source = read_gguf(base)
    for name, array in tensors.items():
        if name not in source.tensors or source.tensors[name].shape != array.shape:
            raise ValueError(f"the base has no tensor {name} of shape {array.shape}")
    changed = {_FILE_TYPE: Typed(_FILE_TYPES[quant]), _BLOCK_VERSION: Typed(2)}
    kept = [e for key, e in source.entries.items() if key not in {*changed, ALIGNMENT_KEY}]

    def packed() -> Iterable[Packed]:
        for name in source.tensors:
            array = np.asarray(tensors[name] if name in tensors else source.array(name))
            yield pack(name, array, quant)

    return gguf_bytes([*kept, *(entry(k, v) for k, v in changed.items())], packed())


def pack(name: str, array: Array, quant: str) -> Packed:
    """Return a tensor in the format it gets in a file that is mostly `quant`."""
    if array.ndim < 2:
        kind = "f32"
    elif quant in {"q8_0", "q4_0"}:
        whole = array.shape[-1] % BLOCK == 0
        kind = ("q8_0" if name in _CAREFUL else quant) if whole else "f16"
    else:
        kind = quant
    return name, array.shape, kind, quantise(array.reshape(-1, array.shape[-1]), kind)


def entry(key: str, value: Any) -> bytes:
    """Return an entry of the metadata as it is written.

    Args:
        key: Its name.
        value: str, bool, float, list of str, or `Typed`.
    """
    return _text(key) + _value(value)


def gguf_bytes(entries: Sequence[bytes], tensors: Iterable[Packed]) -> bytes:
    """Return a GGUF file of entries (see `entry`) and tensors (see `pack`)."""
    places: list[bytes] = []
    blobs: list[bytes] = []
    offset = 0
    for name, shape, kind, raw in tensors:
        turned = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        places.append(_text(name) + turned + struct.pack("<IQ", CODES[kind], offset))
        blob = np.ascontiguousarray(raw).tobytes()
        blobs += [blob, bytes(-len(blob) % ALIGNMENT)]
        offset += len(blob) + len(blobs[-1])
    counts = struct.pack("<IQQ", VERSION, len(places), len(entries))
    head = b"".join([MAGIC, counts, *entries, *places])
    return b"".join([head, bytes(-len(head) % ALIGNMENT), *blobs])


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, Sequence):
        head = struct.pack("<IIQ", _ARRAY, _STRING, len(value))
        return head + b"".join(map(_text, value))
    if isinstance(value, Typed):
        return value.pack()
    return Typed(value, "?" if isinstance(value, bool) else "f").pack()


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
