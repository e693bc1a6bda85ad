"""Torch files of the old kind, written by hand: no torch, no pickle."""

import struct
from collections.abc import Sequence

import numpy as np

from genba.core.protocols import Array

MAGIC = 0x1950A86A20F9469CFC6C
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def torch_file(tensors: dict[str, Array], strides: dict[str, Sequence[int]] | None = None) -> bytes:
    """Return float32 and int64 tensors as torch would have written them before 1.6.

    Args:
        tensors: By name; what is stored is the array's memory in C order.
        strides: Of those that are to be read in another order, with the shape of the array.
    """
    body = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for key, (name, array) in enumerate(tensors.items()):
        steps = (strides or {}).get(name, [s // array.itemsize for s in array.strides])
        body += [_text(name), tensor(str(key), array, array.shape, steps)]
    body += [b"u}", _text("version"), integer(1), b"sb."]
    return whole(b"".join(body), {str(k): a for k, a in enumerate(tensors.values())})


def whole(table: bytes, storages: dict[str, Array]) -> bytes:
    """Return a file around the pickle of a table."""
    keys = b"\x80\x02](" + b"".join(_text(key) for key in storages) + b"e."
    data = b"".join(struct.pack("<q", a.size) + a.tobytes() for a in storages.values())
    return header() + table + keys + data


def header(magic: int = MAGIC, little: bool = True) -> bytes:
    machine = b"\x80\x02}" + _text("little_endian") + (b"\x88" if little else b"\x89") + b"s."
    return b"\x80\x02" + _long(magic) + b".\x80\x02" + integer(1001) + b"." + machine


def tensor(
    key: str, array: Array, shape: Sequence[int], stride: Sequence[int], offset: int = 0
) -> bytes:
    """Return the instructions that describe one tensor."""
    kind = b"FloatStorage" if array.dtype == np.float32 else b"LongStorage"
    storage = b"(" + _text("storage") + b"ctorch\n" + kind + b"\n" + _text(key) + _text("cpu")
    storage += integer(array.size) + b"NtQ"
    view = integer(offset) + _tuple(shape) + _tuple(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return _REBUILD + b"(" + storage + view + b"tR"


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _tuple(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(integer(v) for v in values) + b"t"


def _long(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
