"""Reading safetensors with nothing but numpy, and without trusting a single number in the file."""

import json
import math
import struct
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array

_KINDS: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
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


def _tensor(entry: dict[str, Any], body: memoryview) -> Array:
    kind, shape = _KINDS[entry["dtype"]], entry["shape"]
    start, stop = entry["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
        raise ValueError("a size or an offset is negative or not whole")
    if stop > len(body) or stop - start != math.prod(shape) * kind.itemsize:
        raise ValueError("a tensor does not fill the bytes it claims")
    return np.frombuffer(body[start:stop], dtype=kind).reshape(shape)
