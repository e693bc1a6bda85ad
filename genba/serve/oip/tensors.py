"""Tensors as the Open Inference Protocol writes them: JSON numbers or little-endian bytes."""

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from genba.core.protocols import Array
from genba.serve.http.responses import Refusal

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_BYTES: Final = "BYTES"
#: Of a request; the memory it was received into when it came in pieces.
Body = bytes | bytearray
_LENGTH_SIZE: Final = 4
_NOT_JSON: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)

_numbers = msgspec.json.Decoder(list[float | None])
_integers = msgspec.json.Decoder(list[int])
_booleans = msgspec.json.Decoder(list[bool])
_strings = msgspec.json.Decoder(list[str])
_anything = msgspec.json.Decoder(list[Any])


def bad(what: str) -> Refusal:
    """Refuse a request whose content is wrong."""
    return Refusal(400, "G704", what)


def known(datatype: str) -> bool:
    """Say whether a datatype of the protocol is understood here."""
    return datatype in DTYPES or datatype == _BYTES


def from_json(name: str, datatype: str, shape: Sequence[int], raw: msgspec.Raw) -> Array:
    """Read the `data` of a JSON tensor, flat or nested; null means not a number.

    Raises:
        Refusal: 400 when the values are not of the datatype or not as many as the shape says.
    """
    values = _values(name, datatype, raw)
    wanted = math.prod(shape)
    if len(values) != wanted:
        raise _other_count(name, values, shape)
    if datatype == _BYTES:
        array = np.empty(wanted, dtype=object)
        array[:] = [value.encode() for value in values]
        return array.reshape(shape)
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=DTYPES[datatype]).reshape(shape)
    except OverflowError as error:
        raise bad(f"Input {name!r} has a value that {datatype} cannot hold.") from error


def texts(name: str, datatype: str, shape: Sequence[int], raw: msgspec.Raw) -> list[str]:
    """Read the `data` of a JSON tensor of BYTES as text, such as images in base64.

    Raises:
        Refusal: 400 when they are not texts or not as many as the shape says.
    """
    values: list[str] = _values(name, datatype, raw)
    if len(values) != math.prod(shape):
        raise _other_count(name, values, shape)
    return values


def _other_count(name: str, values: Sequence[Any], shape: Sequence[int]) -> Refusal:
    count = math.prod(shape)
    return bad(f"Input {name!r} has {len(values)} values; its shape {list(shape)} has {count}.")


def _values(name: str, datatype: str, raw: msgspec.Raw) -> list[Any]:
    decoder: msgspec.json.Decoder[Any]
    if datatype.startswith("FP"):
        decoder = _numbers
    elif datatype == "BOOL":
        decoder = _booleans
    elif datatype == _BYTES:
        decoder = _strings
    else:
        decoder = _integers
    try:
        values: list[Any] = decoder.decode(raw)
    except msgspec.ValidationError as flat_error:
        flat = _flatten(name, _anything_in(name, raw))
        try:
            values = decoder.decode(msgspec.json.encode(flat))
        except msgspec.ValidationError:
            raise bad(f"Input {name!r} must be {datatype}: {flat_error}.") from flat_error
    except _NOT_JSON as error:  # what was skipped at first is looked at for the first time here
        raise bad(f"The data of input {name!r} is not JSON: {error}.") from error
    return values


def _anything_in(name: str, raw: msgspec.Raw) -> list[Any]:
    try:
        return _anything.decode(raw)
    except msgspec.ValidationError as error:
        raise bad(f"The data of input {name!r} must be a list.") from error
    except _NOT_JSON as error:
        raise bad(f"The data of input {name!r} is not JSON: {error}.") from error


def _flatten(name: str, nested: list[Any]) -> list[Any]:
    """Flatten a nested list whose rows all have one length, without recursion."""
    level = nested
    while level and isinstance(level[0], list):
        width = len(level[0])
        if any(not isinstance(row, list) or len(row) != width for row in level):
            raise bad(f"The nested data of input {name!r} is ragged.")
        level = [value for row in level for value in row]
    return level


def from_bytes(
    name: str, datatype: str, shape: Sequence[int], body: Body, start: int, size: int
) -> Array:
    """Read a binary tensor out of a body, without a copy where the processor allows it.

    Raises:
        Refusal: 400 when the number of bytes is not what shape and datatype need.
    """
    if datatype == _BYTES:
        return _read_strings(name, shape, memoryview(body)[start : start + size])
    dtype = DTYPES[datatype]
    count = math.prod(shape)
    if count * dtype.itemsize != size:
        raise bad(
            f"Input {name!r} has {size} bytes; {datatype} {list(shape)} "
            f"needs {count * dtype.itemsize}."
        )
    if datatype == "BOOL":  # any byte but 0 is true; numpy must only ever see 0 and 1
        flags: Array = np.frombuffer(body, np.uint8, count, start) != 0
        return flags.reshape(shape)
    array: Array = np.frombuffer(body, dtype, count, start).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _read_strings(name: str, shape: Sequence[int], view: memoryview) -> Array:
    values: list[bytes] = []
    offset, count = 0, math.prod(shape)
    while offset < len(view) and len(values) < count:
        if offset + _LENGTH_SIZE > len(view):
            break
        length = int.from_bytes(view[offset : offset + _LENGTH_SIZE], "little")
        offset += _LENGTH_SIZE
        if offset + length > len(view):
            break
        values.append(bytes(view[offset : offset + length]))
        offset += length
    if len(values) != count or offset != len(view):
        raise bad(f"The bytes of input {name!r} are not {count} length-prefixed elements.")
    array = np.empty(count, dtype=object)
    array[:] = values
    return array.reshape(shape)


def to_bytes(array: Array) -> bytes:
    """Return an output as binary data.

    Example:
        >>> to_bytes(np.array([1.0], dtype=np.float32)).hex()
        '0000803f'
    """
    if array.dtype != object:
        return array.tobytes()
    pieces = [value if isinstance(value, bytes) else str(value).encode() for value in array.flat]
    return b"".join(len(p).to_bytes(_LENGTH_SIZE, "little") + p for p in pieces)


def to_values(array: Array) -> list[Any]:
    """Return an output as a flat list for JSON; not-a-number becomes null when encoded."""
    values: list[Any] = array.ravel().tolist()
    if array.dtype == object:
        return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return values
