"""Safetensors with nothing but numpy; reading trusts not a single number in the file."""

import json
import math
import struct
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors

_KINDS: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES: Final = {kind.str: name for name, kind in _KINDS.items()}
_LENGTH: Final = struct.Struct("<Q")


def read_tensors(data: bytes) -> dict[str, Array]:
    """Return the tensors of a safetensors file.

    Args:
        data: The whole file.

    Returns:
        Name to array; the arrays are read-only views of `data`.

    Raises:
        Problem: G604 when lengths, types or shapes do not agree with the bytes that are there.
    """
    try:
        (length,) = _LENGTH.unpack_from(data)
        header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        body = memoryview(data)[_LENGTH.size + length :]
        entries = {k: v for k, v in header.items() if k != "__metadata__"}
        return {name: _tensor(entry, body) for name, entry in entries.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(
            "G604",
            "A tensor file of the package is damaged.",
            why=str(error),
            tries=["fetch the package again", "genba explain G604"],
        ) from error


def write_tensors(tensors: Tensors) -> bytes:
    """Return tensors as a safetensors file.

    Raises:
        TypeError: A tensor is of a kind that such a file does not have here, such as an object.

    Example:
        >>> read_tensors(write_tensors({"x": np.arange(2, dtype=np.int64)}))["x"].tolist()
        [0, 1]
    """
    header: dict[str, Any] = {}
    parts, at = [], 0
    # The widest first, so that each begins at a multiple of its own width.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        kind = _NAMES.get(tensor.dtype.newbyteorder("<").str)
        if kind is None:
            raise TypeError(f"{name} is {tensor.dtype}, which a tensor file cannot hold")
        data = np.ascontiguousarray(tensor, dtype=_KINDS[kind]).tobytes()
        offsets = [at, at + len(data)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        parts.append(data)
        at += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return b"".join((_LENGTH.pack(len(head)), head, *parts))


def _tensor(entry: dict[str, Any], body: memoryview) -> Array:
    kind, shape = _KINDS[entry["dtype"]], entry["shape"]
    start, stop = entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
        raise ValueError("a size or an offset is negative or not whole")
    if stop > len(body) or stop - start != math.prod(shape) * kind.itemsize:
        raise ValueError("a tensor does not fill the bytes it claims")
    return np.frombuffer(body[start:stop], dtype=kind).reshape(shape)
