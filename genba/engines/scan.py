"""What is in a graph, read from its bytes without the library that would hold it in memory.

A server needs to know two things of a graph before a runtime sees it: that all of it is inside, and
whether parts of it are in integers. Reading both from the encoding (protobuf.dev, "Encoding"; field
numbers of onnx.proto) spares a server some megabytes of a library and a second copy of the weights.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from genba.core.problem import Problem

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types; groups (3, 4) are not used by ONNX
_MOST_BITS: Final = 64
_TENSOR: Final = "tensor"
_NODE: Final = "node"
#: Messages that may lead to a tensor, and by which fields.
_PARTS: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: _NODE},
    "graph": {1: _NODE, 5: _TENSOR, 15: "sparse"},
    _NODE: {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
_OPERATOR: Final = 4  # of a node
_METADATA: Final = 14  # of the model
_KEY, _VALUE = 1, 2  # of an entry of the metadata
_NAME, _ELSEWHERE, _LOCATION = 8, 13, 14  # of a tensor
_INSIDE: Final = 0
_MOST_TAG: Final = 2**32 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """What a graph has."""

    operators: frozenset[str]
    metadata: Mapping[str, str]


def scan(model: bytes) -> Scan:
    """Read a graph's encoding and refuse one that would read files when it is loaded.

    Args:
        model: A serialised ONNX model.

    Raises:
        Problem: G608 when the bytes are no ONNX model or a tensor is kept in another file.

    Example:
        >>> scan(b"").operators
        frozenset()
    """
    operators: set[str] = set()
    metadata: dict[str, str] = {}
    outside: list[str] = []
    waiting: list[tuple[str, memoryview]] = [("model", memoryview(model))]
    try:
        while waiting:
            kind, data = waiting.pop()
            if kind == _TENSOR:
                outside += _elsewhere(data)
                continue
            parts = _PARTS[kind]
            for field, value in _fields(data):
                if isinstance(value, int):
                    continue
                if field in parts:
                    waiting.append((parts[field], value))
                elif kind == _NODE and field == _OPERATOR:
                    operators.add(str(value, "utf-8"))
                elif kind == "model" and field == _METADATA:
                    key, text = _entry(value)
                    metadata[key] = text
    except ValueError as error:
        raise no_graph(model, str(error)) from error
    if outside:
        raise kept_outside(outside)
    return Scan(operators=frozenset(operators), metadata=metadata)


def refuse_floats(operators: frozenset[str], runtime: str) -> None:
    """Refuse a graph without parts in integers, for settings that say that it has some.

    Args:
        operators: Of the graph.
        runtime: Its name for people.

    Raises:
        Problem: G601 when the graph is computed in floating point only.
    """
    if not operators & {"QuantizeLinear", "DynamicQuantizeLinear"}:
        raise Problem(
            "G601",
            f"{runtime} was told to compute in 8-bit integers, and this graph has none.",
            why="A graph is brought into integers with samples, when its line is run.",
            tries=['precision = "float32"', "genba run LINE", "genba explain G601"],
        )


def no_graph(model: bytes, why: str) -> Problem:
    """Return the Problem of bytes that are no ONNX model."""
    return Problem(
        "G608",
        f"These {len(model)} bytes are not an ONNX graph.",
        why=why,
        tries=["genba run LINE", "genba explain G608"],
    )


def kept_outside(names: list[str]) -> Problem:
    """Return the Problem of tensors that are in other files."""
    return Problem(
        "G608",
        f"The graph keeps {len(names)} tensor(s) in other files, such as {names[0]!r}.",
        why="A package is verified byte by byte, and those bytes would be outside it.",
        tries=["export the model with all tensors inside it", "genba explain G608"],
    )


def _entry(data: memoryview) -> tuple[str, str]:
    """Return the key and the value of an entry of the metadata."""
    found = {field: value for field, value in _fields(data) if not isinstance(value, int)}
    key, value = (found.get(field, memoryview(b"")) for field in (_KEY, _VALUE))
    return str(key, "utf-8"), str(value, "utf-8")


def _elsewhere(tensor: memoryview) -> list[str]:
    """Return the name of a tensor that is kept in another file, or that says where it would be."""
    name, outside = "", False
    for field, value in _fields(tensor):
        if field == _NAME and not isinstance(value, int):
            name = str(value, "utf-8", "replace")
        # Anything but the default: readers cut a long number to 32 bits, and it may become the 1.
        outside |= field == _ELSEWHERE or (field == _LOCATION and value != _INSIDE)
    return [name] if outside else []


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field of a message; fixed-size values as bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        if tag > _MOST_TAG:
            raise ValueError("a field has a number that is too large")
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_EIGHT, _FOUR):
            size = 8 if wire == _EIGHT else 4
        else:
            raise ValueError(f"a field has the unknown form {wire}")
        if at + size > end:
            raise ValueError("it ends in the middle of a field")
        yield field, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return a number of variable length and where it ends."""
    value = shift = 0
    while at < len(data) and shift < _MOST_BITS:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # the highest bit says that there is more
            return value, at
        shift += 7
    raise ValueError("it ends in the middle of a number")
