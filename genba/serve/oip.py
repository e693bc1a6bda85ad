"""Open Inference Protocol v2 over REST, with the binary tensor extension: reading requests."""

import functools
import time
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from genba.core.codec import nearest
from genba.core.protocols import Array
from genba.core.values import Tensor
from genba.serve import tensors
from genba.serve.images import Picture, Query, unknown_output
from genba.serve.schema import Schema, Wanted
from genba.serve.tensors import DTYPES, bad

HEAD_LENGTH: Final = b"inference-header-content-length"
_CACHED_HEAD_BYTES: Final = 2_048
_PIXELS: Final = 4  # dimensions of images: rows, height, width, colours
_COLOURS: Final = 3
_LATEST_MS: Final = 10**14  # the year 5138: larger numbers are not milliseconds
#: May be sent to every package and are kept with the prediction.
_ALWAYS: Final = {
    "time": Tensor(name="time", datatype="INT64", shape=(-1,), role="time"),
    "entity": Tensor(name="entity", datatype="BYTES", shape=(-1,), role="entity"),
}

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class InputParameters(msgspec.Struct, frozen=True):
    """What may be said of an input."""

    binary_data_size: _Size | None = None


class InputTensor(msgspec.Struct, frozen=True):
    """An input as sent."""

    name: str
    datatype: str
    shape: Annotated[list[_Size], msgspec.Meta(min_length=1, max_length=8)]
    parameters: InputParameters = InputParameters()
    data: msgspec.Raw = msgspec.Raw(b"")


class OutputParameters(msgspec.Struct, frozen=True):
    """What may be said of an output."""

    binary_data: bool | None = None
    classification: int = 0


class OutputTensor(msgspec.Struct, frozen=True):
    """An output as asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(msgspec.Struct, frozen=True):
    """What may be said of a request."""

    binary_data_output: bool = False


class InferRequest(msgspec.Struct, frozen=True):
    """The JSON part of a request."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1, max_length=64)]
    id: Annotated[str, msgspec.Meta(max_length=128)] = ""
    parameters: RequestParameters = RequestParameters()
    outputs: Annotated[list[OutputTensor], msgspec.Meta(max_length=64)] = []


_decoder = msgspec.json.Decoder(InferRequest)


class Inputs:
    """A request that has passed every check."""

    __slots__ = ("entity_names", "pictures", "rows", "tensors", "time", "wanted")

    def __init__(
        self,
        tensors: dict[str, Array],
        rows: int,
        *,
        entity_names: Sequence[str] | None,
        time: Array | None,
        wanted: Wanted,
        pictures: Sequence[Picture] = (),
    ) -> None:
        self.tensors = tensors  # without parameters that were not sent
        self.rows = rows
        self.entity_names = entity_names  # as sent, when they were sent as text
        self.time = time
        self.wanted = wanted
        self.pictures = pictures  # of a package that takes images, one per row


class Bounds:
    """How much one request may hold, and which sizes pixels may have."""

    __slots__ = ("rows", "sizes")

    def __init__(self, rows: int, sizes: Collection[int] = ()) -> None:
        self.rows = rows
        self.sizes = sizes  # besides that of the package: those of the line's other packages


@functools.lru_cache(maxsize=256)
def _parse_cached(head: bytes) -> InferRequest:
    return _decoder.decode(head)


def _parse(head: bytes) -> InferRequest:
    try:
        # Binary clients send the same head again and again; only the tensors differ.
        return _parse_cached(head) if len(head) <= _CACHED_HEAD_BYTES else _decoder.decode(head)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise bad(f"The request is not an inference request: {error}.") from error


def json_size(body: bytes, head_length: bytes | None) -> int:
    """Return how many bytes of a request are JSON; parsing a lot of it takes long."""
    if head_length is None or not head_length.isdigit():
        return len(body)
    return min(int(head_length), len(body))


def read_request(body: bytes, head_length: bytes | None, schema: Schema, bounds: Bounds) -> Inputs:
    """Read an inference request and check everything in it.

    Args:
        body: The HTTP body.
        head_length: Value of Inference-Header-Content-Length, None for a body that is all JSON.
        schema: What the package takes.
        bounds: Most rows that one request may have, and sizes of pixels.

    Raises:
        Refusal: 400 with one sentence that says what is wrong.
    """
    if head_length is None:
        request, start = _parse(body), len(body)
    else:
        if not head_length.isdigit() or int(head_length) > len(body):
            raise bad("Inference-Header-Content-Length is not a length within the body.")
        start = int(head_length)
        if start == 0:
            return _raw(body, schema, bounds)
        request = _parse(body[:start])
    given = _given(request.inputs, body, start, schema, bounds.sizes)
    return _checked(given, schema, bounds, _wanted(request, schema))


def read_image(body: bytes, target: bytes, schema: Schema) -> Inputs:
    """Read a request whose body is one image; what else it says is in its address.

    Args:
        body: The file; it is looked at later, off the event loop.
        target: Of the request, with its query.
        schema: What the package takes.

    Raises:
        Refusal: 400 with one sentence that says what is wrong.
    """
    query = Query(target, schema)
    given: dict[str, Any] = {schema.image or "": (body,)}
    for name, value in query.parameters.items():
        given[name] = np.array([value], dtype=np.float32)
    if query.time_ms is not None:
        given[schema.time or "time"] = np.array([query.time_ms], dtype=np.int64)
    if query.entity is not None:
        given[schema.entity or "entity"] = np.array([query.entity.encode()], dtype=object)
    return _checked(given, schema, Bounds(1), query.wanted)


def _given(
    inputs: Sequence[InputTensor],
    body: bytes,
    start: int,
    schema: Schema,
    sizes: Collection[int],
) -> dict[str, Any]:
    """Return what was sent by name: arrays, and for images one picture per row."""
    given: dict[str, Any] = {}
    for sent in inputs:
        if sent.name in given:
            raise bad(f"Input {sent.name!r} is there twice.")
        _check_declared(sent, schema, sizes)
        size = sent.parameters.binary_data_size
        texts = sent.name == schema.image and sent.datatype == "BYTES"
        if size is None:
            if not sent.data:
                raise bad(f"Input {sent.name!r} has neither data nor binary_data_size.")
            read = tensors.texts if texts else tensors.from_json
            given[sent.name] = read(sent.name, sent.datatype, sent.shape, sent.data)
            continue
        if sent.data:
            raise bad(f"Input {sent.name!r} has both data and binary_data_size.")
        if start + size > len(body):
            raise bad(f"The body ends within the {size} bytes of input {sent.name!r}.")
        given[sent.name] = tensors.from_bytes(
            sent.name, sent.datatype, sent.shape, body, start, size
        )
        start += size
    if start != len(body):
        raise bad(f"The body has {len(body) - start} bytes that belong to no input.")
    return given


def _check_declared(sent: InputTensor, schema: Schema, sizes: Collection[int]) -> None:
    wanted = schema.inputs.get(sent.name) or _ALWAYS.get(sent.name)
    if wanted is None:
        near = nearest(sent.name, list(schema.inputs))
        hint = f"; did you mean {near}?" if near else f". It has {', '.join(schema.inputs)}."
        raise bad(f"The model has no input {sent.name!r}{hint}")
    shape = wanted.shape
    if sent.datatype == "BYTES" and wanted.role in ("entity", "image"):
        shape = (-1,)
    elif sent.datatype != wanted.datatype:
        raise bad(f"Input {sent.name!r} must be {wanted.datatype}, not {sent.datatype}.")
    fits = len(sent.shape) == len(shape) and all(
        want in (-1, got) for want, got in zip(shape, sent.shape, strict=True)
    )
    if fits or (wanted.role == "image" and _other_size(sent.shape, sizes)):
        return
    advice = ""
    if wanted.role == "image":
        advice = " Send JPEG or PNG bytes instead, they are resized."
    raise bad(f"Input {sent.name!r} must have shape {list(shape)}, not {sent.shape}.{advice}")


def _other_size(shape: Sequence[int], sizes: Collection[int]) -> bool:
    """Say whether pixels fit another package of the line; they are scaled for this one."""
    return len(shape) == _PIXELS and shape[3] == _COLOURS and shape[1] == shape[2] in sizes


def _raw(body: bytes, schema: Schema, bounds: Bounds) -> Inputs:
    """Read a body that is one tensor and nothing else: the only feature of the model."""
    if len(schema.features) != 1:
        raise bad(f"A raw body needs a model with one input; this has {', '.join(schema.inputs)}.")
    wanted = schema.inputs[schema.features[0]]
    if wanted.datatype not in DTYPES:
        raise bad(f"Input {wanted.name!r} cannot be sent as a raw body.")
    row_bytes = DTYPES[wanted.datatype].itemsize
    for size in wanted.shape[1:]:
        row_bytes *= size
    rows, rest = divmod(len(body), row_bytes)
    if rest:
        raise bad(f"The raw body has {len(body)} bytes; one row has {row_bytes}.")
    shape = (rows, *wanted.shape[1:])
    array = tensors.from_bytes(wanted.name, wanted.datatype, shape, body, 0, len(body))
    return _checked({wanted.name: array}, schema, bounds, schema.all_outputs("", binary=True))


def _checked(given: dict[str, Any], schema: Schema, bounds: Bounds, wanted: Wanted) -> Inputs:
    for role, own in (("time", schema.time), ("entity", schema.entity)):
        if own is not None and role in given and role not in schema.inputs:
            given.setdefault(own, given.pop(role))  # every package understands the plain name
    rows = -1
    for name in schema.features:
        if name not in given:
            raise bad(f"Input {name!r} is missing.")
        if rows == -1:
            rows = len(given[name])
    for name, array in given.items():
        if len(array) != rows and not (len(array) == 1 and name in schema.parameters):
            raise bad(f"Input {name!r} has {len(array)} rows, others have {rows}.")
    if not 1 <= rows <= bounds.rows:
        raise bad(f"The request has {rows} rows; from 1 to {bounds.rows} are taken at a time.")
    pictures = given.pop(schema.image) if schema.image else ()
    time_ms = _time(given, schema, rows)
    names = _entities(given, schema, rows)
    _parameters(given, schema, rows)
    return Inputs(
        given, rows, entity_names=names, time=time_ms, wanted=wanted, pictures=tuple(pictures)
    )


def _time(given: dict[str, Any], schema: Schema, rows: int) -> Array | None:
    """Return the times of the rows; a package that needs them gets now where none were sent."""
    sent: Array | None = given.get(schema.time or "time")
    if sent is not None and not ((sent >= 0) & (sent < _LATEST_MS)).all():
        raise bad(f"Input {schema.time or 'time'!r} must be milliseconds since 1970.")
    if schema.time is None:
        given.pop("time", None)
        return sent
    if sent is None:
        sent = np.full(rows, time.time_ns() // 1_000_000, dtype=np.int64)
        given[schema.time] = sent
    return sent


def _parameters(given: dict[str, Any], schema: Schema, rows: int) -> None:
    for name in schema.parameters:
        if name not in given:
            continue
        if not np.isfinite(given[name]).all():
            raise bad(f"The parameter {name!r} must be a finite number.")
        if len(given[name]) != rows:
            given[name] = np.repeat(given[name], rows)


def _entities(given: dict[str, Any], schema: Schema, rows: int) -> Sequence[str] | None:
    """Turn entity names into indices; who sends none gets -1, the unknown entity."""
    name = schema.entity or "entity"
    sent: Array | None = given.get(name)
    if sent is None:
        if schema.entity is not None:
            given[name] = np.full(rows, -1, dtype=np.int64)
        return None
    if sent.dtype != object:
        given[name] = np.where((sent >= 0) & (sent < len(schema.entities)), sent, -1)
        return None
    try:
        names = [value.decode() for value in sent.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise bad(f"Input {name!r} is not UTF-8 text.") from error
    if schema.entity is None:
        del given[name]  # the graph does not need it; it is kept with the prediction
    else:
        given[name] = schema.indices(names)
    return names


def _wanted(request: InferRequest, schema: Schema) -> Wanted:
    default = request.parameters.binary_data_output
    if not request.outputs:
        return schema.all_outputs(request.id, binary=default)
    names, binary = [], []
    for output in request.outputs:
        if output.name not in schema.outputs:
            raise unknown_output(output.name, schema)
        if output.parameters.classification:
            raise bad("The classification extension is not offered here.")
        asked = output.parameters.binary_data
        names.append(output.name)
        binary.append(default if asked is None else asked)
    return Wanted(request.id, names, binary)
