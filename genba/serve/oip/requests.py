"""Open Inference Protocol v2 over REST, with the binary tensor extension: reading requests."""

import functools
import math
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from genba.core.codec import nearest
from genba.serve.oip import tensors
from genba.serve.oip.images import Query, unknown_output
from genba.serve.oip.inputs import ALWAYS, Bounds, Inputs, checked
from genba.serve.oip.schema import Schema, Wanted
from genba.serve.oip.tensors import DTYPES, Body, bad

HEAD_LENGTH: Final = b"inference-header-content-length"
_CACHED_HEAD_BYTES: Final = 2_048
_DIGITS: Final = 12  # of a length; turning very many digits into a number takes long
_CACHED_FORMS: Final = 256
_PIXELS: Final = 4  # dimensions of images: rows, height, width, colours
_COLOURS: Final = 3
_NO_SHARED_MEMORY: Final = "Shared memory is not offered here; send the tensor in the request."
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class InputParameters(msgspec.Struct, frozen=True):
    """What may be said of an input."""

    binary_data_size: _Size | None = None
    shared_memory_region: str | None = None


class InputTensor(msgspec.Struct, frozen=True):
    """An input as sent."""

    name: Annotated[str, msgspec.Meta(max_length=128)]
    datatype: Annotated[str, msgspec.Meta(max_length=16)]
    shape: Annotated[list[_Size], msgspec.Meta(min_length=1, max_length=8)]
    parameters: InputParameters = InputParameters()
    data: msgspec.Raw = msgspec.Raw(b"")


class OutputParameters(msgspec.Struct, frozen=True):
    """What may be said of an output."""

    binary_data: bool | None = None
    classification: int = 0
    shared_memory_region: str | None = None


class OutputTensor(msgspec.Struct, frozen=True):
    """An output as asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(msgspec.Struct, frozen=True):
    """What may be said of a request."""

    binary_data_output: bool = False
    sequence_id: int | str = 0
    timeout: Annotated[int, msgspec.Meta(ge=0)] = 0  # microseconds that the answer is worth waiting
    priority: Annotated[int, msgspec.Meta(ge=0)] = 0  # 1 is the highest; 0 lets the server say


class InferRequest(msgspec.Struct, frozen=True):
    """The JSON part of a request."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1, max_length=64)]
    id: Annotated[str, msgspec.Meta(max_length=128)] = ""
    parameters: RequestParameters = RequestParameters()
    outputs: Annotated[list[OutputTensor], msgspec.Meta(max_length=64)] = []


_decoder = msgspec.json.Decoder(InferRequest)


@functools.lru_cache(maxsize=256)
def _parse_cached(head: bytes) -> InferRequest:
    return _decoder.decode(head)


def _parse(head: Body) -> InferRequest:
    try:
        # Binary clients send the same head again and again; only the tensors differ.
        if len(head) <= _CACHED_HEAD_BYTES:
            return _parse_cached(bytes(head))
        return _decoder.decode(head)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise bad(f"The request is not an inference request: {error}.") from error


def json_size(body: Body, head_length: bytes | None) -> int:
    """Return how many bytes of a request are JSON; parsing a lot of it takes long."""
    if head_length is None:
        return len(body)
    return min(_length(head_length), len(body))


def _length(digits: bytes) -> int:
    """Return a length as it was sent, one that no body has for what is none."""
    return int(digits) if digits.isdigit() and len(digits) <= _DIGITS else 10**_DIGITS


def read_request(body: Body, head_length: bytes | None, schema: Schema, bounds: Bounds) -> Inputs:
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
        given = _given(request.inputs, body, start, schema, bounds.sizes)
        return _hurried(checked(given, schema, bounds, _wanted(request, schema)), request)
    start = _length(head_length)
    if start > len(body):
        raise bad("Inference-Header-Content-Length is not a length within the body.")
    if start == 0:
        return _raw(body, schema, bounds)
    head = bytes(body[:start])
    form: Form | None = schema.forms.get(head)
    if form is not None and form.size == len(body):
        return form.read(body, schema, bounds)
    request = _parse(head)
    given = _given(request.inputs, body, start, schema, bounds.sizes)
    wanted = _wanted(request, schema)
    _keep(head, request, schema, wanted)
    return _hurried(checked(given, schema, bounds, wanted), request)


def _hurried(inputs: Inputs, request: InferRequest) -> Inputs:
    """Take down how much of a hurry the request is in."""
    said = request.parameters
    if said.timeout or said.priority:
        inputs.said = True
        inputs.timeout_s = said.timeout / 1e6 if said.timeout else math.inf
        inputs.urgent = said.priority <= 1
    return inputs


def read_image(body: Body, target: bytes, schema: Schema) -> Inputs:
    """Read a request whose body is one image; what else it says is in its address.

    Args:
        body: The file; it is looked at later, off the event loop.
        target: Of the request, with its query.
        schema: What the package takes.

    Raises:
        Refusal: 400 with one sentence that says what is wrong.
    """
    query = Query(target, schema)
    given: dict[str, Any] = {schema.image or "": (bytes(body),)}
    for name, value in query.parameters.items():
        given[name] = np.array([value], dtype=np.float32)
    if query.time_ms is not None:
        given[schema.time or "time"] = np.array([query.time_ms], dtype=np.int64)
    if query.entity is not None:
        given[schema.entity or "entity"] = np.array([query.entity.encode()], dtype=object)
    return checked(given, schema, Bounds(1), query.wanted)


class Form:
    """The JSON part of a binary request, held against a package once; then only numbers differ.

    Args:
        start: Bytes of the JSON part.
        inputs: All of them numbers in binary.
        wanted: Which outputs are asked for.
    """

    __slots__ = ("_parts", "_wanted", "size")

    def __init__(self, start: int, inputs: Sequence[InputTensor], wanted: Wanted) -> None:
        self._wanted = wanted
        self._parts: list[tuple[str, Any, int, list[int], int]] = []
        for sent in inputs:
            count = math.prod(sent.shape)
            self._parts.append((sent.name, DTYPES[sent.datatype], count, sent.shape, start))
            start += sent.parameters.binary_data_size or 0
        self.size = start  # of a whole body

    def read(self, body: Body, schema: Schema, bounds: Bounds) -> Inputs:
        """Read a body of this form, without a copy where the processor allows it."""
        given: dict[str, Any] = {}
        for name, dtype, count, shape, start in self._parts:
            array = np.frombuffer(body, dtype, count, start).reshape(shape)
            given[name] = array if array.flags.aligned else array.copy()
        return checked(given, schema, bounds, self._wanted)


def _keep(head: bytes, request: InferRequest, schema: Schema, wanted: Wanted) -> None:
    """Keep a form that was read without complaint, if it is one of numbers in binary."""
    numbers = all(
        sent.parameters.binary_data_size is not None
        and sent.datatype in DTYPES
        and sent.datatype != "BOOL"
        and sent.name != schema.image
        for sent in request.inputs
    )
    if request.parameters.timeout or request.parameters.priority:
        return
    if not numbers or len(head) > _CACHED_HEAD_BYTES:
        return
    if len(schema.forms) >= _CACHED_FORMS:
        schema.forms.pop(next(iter(schema.forms)), None)  # several threads may come here
    schema.forms[head] = Form(len(head), request.inputs, wanted)


def _given(
    inputs: Sequence[InputTensor],
    body: Body,
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


def read_tensors(
    request: InferRequest, data: Sequence[bytes], schema: Schema, bounds: Bounds
) -> Inputs:
    """Read an inference request whose tensors are bytes of their own, as gRPC has them.

    Args:
        request: What is said of the tensors.
        data: The bytes of each input.
        schema: What the package takes.
        bounds: Most rows that one request may have, and sizes of pixels.

    Raises:
        Refusal: 400 with one sentence that says what is wrong.
    """
    given: dict[str, Any] = {}
    for sent, held in zip(request.inputs, data, strict=True):
        if sent.name in given:
            raise bad(f"Input {sent.name!r} is there twice.")
        _check_declared(sent, schema, bounds.sizes)
        given[sent.name] = tensors.from_bytes(
            sent.name, sent.datatype, sent.shape, held, 0, len(held)
        )
    return checked(given, schema, bounds, _wanted(request, schema))


def _check_declared(sent: InputTensor, schema: Schema, sizes: Collection[int]) -> None:
    if sent.parameters.shared_memory_region is not None:
        raise bad(_NO_SHARED_MEMORY)
    wanted = schema.inputs.get(sent.name) or ALWAYS.get(sent.name)
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


def _raw(body: Body, schema: Schema, bounds: Bounds) -> Inputs:
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
    return checked({wanted.name: array}, schema, bounds, schema.all_outputs("", binary=True))


def _wanted(request: InferRequest, schema: Schema) -> Wanted:
    if request.parameters.sequence_id not in (0, ""):
        raise bad("Sequences are not offered here: every request is answered by itself.")
    default = request.parameters.binary_data_output
    if not request.outputs:
        return schema.all_outputs(request.id, binary=default)
    names, binary = [], []
    for output in request.outputs:
        if output.name not in schema.outputs:
            raise unknown_output(output.name, schema)
        if output.parameters.classification:
            raise bad("The classification extension is not offered here.")
        if output.parameters.shared_memory_region is not None:
            raise bad(_NO_SHARED_MEMORY)
        asked = output.parameters.binary_data
        names.append(output.name)
        binary.append(default if asked is None else asked)
    return Wanted(request.id, names, binary)
