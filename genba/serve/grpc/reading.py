"""From a request message to the same checked inputs as a request over HTTP."""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from genba.serve.grpc.messages import message
from genba.serve.http.responses import Refusal
from genba.serve.oip import requests as oip
from genba.serve.oip.inputs import Bounds, Inputs
from genba.serve.oip.requests import InferRequest
from genba.serve.oip.schema import Schema
from genba.serve.oip.tensors import DTYPES, bad

_MICRO: Final = 1e-6
_CACHED_HEAD_BYTES: Final = 2_048
_MOST_NAME: Final = 1_024  # letters of a model's name or version
_MOST_ID: Final = 128  # letters, as over HTTP
_MOST: Final = 64  # inputs, outputs, parameters of one request
_MOST_FIELDS: Final = 4 * _MOST + 3  # and raw contents, name, version, id
_MOST_DIMENSIONS: Final = 8
_SCANNED_BYTES: Final = 4_096  # smaller messages hold too little to hurt
_LONGEST_VARINT: Final = 63  # bits
_ID_TAG: Final = 3 << 3 | 2  # field 3, with a length
_LENGTH_SIZE: Final = 4
_RAW_ONLY: Final = frozenset({"FP16"})
#: Where the contents of a datatype are, when they are not raw.
CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

_Request: Final = message("ModelInferRequest")


class Head:
    """What a request says besides its tensors and its id; the same again and again."""

    __slots__ = ("batch", "line", "request", "timeout_s", "version")

    def __init__(
        self,
        line: str,
        version: str,
        request: InferRequest,
    ) -> None:
        self.line = line
        self.version = version or None
        self.request = request
        self.timeout_s = request.parameters.timeout * _MICRO or math.inf
        self.batch = request.parameters.priority > 1  # 0 is the default and 1 the highest


class Question:
    """A request as it was read: it waits for the package that will answer it."""

    __slots__ = ("data", "head", "request")

    def __init__(self, head: Head, request: InferRequest, data: Sequence[bytes]) -> None:
        self.head = head
        self.request = request
        self.data = data

    def inputs(self, bounds: Bounds, schema: Schema) -> Inputs:
        """Check the request against what a package takes.

        Raises:
            Refusal: 400 with one sentence that says what is wrong.
        """
        return oip.read_tensors(self.request, self.data, schema, bounds)


def parse(kind: Any, body: bytes) -> Any:
    """Read a message.

    Raises:
        Refusal: 400 for bytes that are none.
    """
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise Refusal(400, "G747", f"The message is no {kind.DESCRIPTOR.name}.") from error


def read_question(body: bytes) -> Question:
    """Read an inference request; takes long for a large one with typed contents.

    Raises:
        Refusal: 400 with one sentence that says what is wrong.
    """
    if len(body) > _SCANNED_BYTES and _has_many_fields(body):
        raise bad(f"A request has at most {_MOST} inputs, outputs and parameters.")
    sent = parse(_Request, body)
    request_id: str = sent.id
    if max(len(sent.inputs), len(sent.outputs), len(sent.parameters)) > _MOST:
        raise bad(f"A request has at most {_MOST} inputs, outputs and parameters.")
    if not sent.raw_input_contents:
        head = _head(sent)
        contents = [_raw(tensor) for tensor in sent.inputs]
    else:
        inputs, raw = len(sent.inputs), len(sent.raw_input_contents)
        if inputs != raw:
            _refuse_shared_memory(sent.inputs)
            raise bad(f"There are {inputs} inputs and {raw} raw contents.")
        contents = list(sent.raw_input_contents)
        del sent.raw_input_contents[:]
        sent.id = ""
        rest: bytes = sent.SerializeToString()
        # Clients send the same head again and again; only the tensors and the id differ.
        head = _head_cached(rest) if len(rest) <= _CACHED_HEAD_BYTES else _head_of_raw(rest)
    request = head.request
    if request_id:
        request = _with_id(request, request_id)
    return Question(head, request, contents)


def id_of(body: bytes) -> str:
    """Return the id of a request without reading the rest of it; empty where there is none.

    Example:
        >>> id_of(_Request(model_name="pump", id="seven").SerializeToString())
        'seven'
    """
    for tag, start, end in itertools.islice(_parts(body), _MOST_FIELDS):
        if tag == _ID_TAG:
            return body[start : min(end, start + _MOST_ID)].decode(errors="ignore")
    return ""


def _has_many_fields(body: bytes) -> bool:
    """Say whether a message is made of very many parts: reading them would take memory and time."""
    return sum(1 for _ in itertools.islice(_parts(body), _MOST_FIELDS + 1)) > _MOST_FIELDS


def _parts(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the tag of every field of a message, and where it begins and ends.

    What is no message at all is left to who reads it.
    """
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        start, end = at, at
        match tag & 7:
            case 0:
                _, end = _varint(body, at)
            case 1:
                end = at + 8
            case 2:
                size, start = _varint(body, at)
                end = start + size
            case 5:
                end = at + 4
            case _:
                return
        yield tag, start, end
        at = end


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number of the wire format, and where it ends."""
    value = shift = 0
    while at < len(body):
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift > _LONGEST_VARINT:
            break
    return value, at


def _with_id(request: InferRequest, request_id: str) -> InferRequest:
    if len(request_id) > _MOST_ID:
        raise bad(f"The id of a request has at most {_MOST_ID} letters.")
    return msgspec.structs.replace(request, id=request_id)


@functools.lru_cache(maxsize=256)
def _head_cached(body: bytes) -> Head:
    return _head_of_raw(body)


def _head_of_raw(body: bytes) -> Head:
    sent = parse(_Request, body)
    for tensor in sent.inputs:
        if tensor.HasField("contents"):
            raise bad(f"Input {tensor.name[:80]!r} has both contents and raw contents.")
    return _head(sent)


def _head(sent: Any) -> Head:
    if max(len(sent.model_name), len(sent.model_version)) > _MOST_NAME:
        raise bad("The name of the model is too long.")
    if any(len(tensor.shape) > _MOST_DIMENSIONS for tensor in sent.inputs):
        raise bad(f"A tensor has at most {_MOST_DIMENSIONS} dimensions.")
    parameters = _parameters(sent.parameters)
    plain = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": _parameters(tensor.parameters),
            }
            for tensor in sent.inputs
        ],
        "parameters": {"binary_data_output": True, **parameters},
        "outputs": [
            {"name": tensor.name, "parameters": _parameters(tensor.parameters)}
            for tensor in sent.outputs
        ],
    }
    try:
        request = msgspec.convert(plain, InferRequest)
    except msgspec.ValidationError as error:
        raise bad(f"The request is not an inference request: {error}.") from error
    return Head(sent.model_name, sent.model_version, request)


def _parameters(sent: Any) -> dict[str, Any]:
    read: dict[str, Any] = {}
    if len(sent) > _MOST:
        raise bad(f"A tensor has at most {_MOST} parameters.")
    for name, value in sent.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            read[name] = getattr(value, kind)
    return read


def _refuse_shared_memory(inputs: Iterable[Any]) -> None:
    if any("shared_memory_region" in tensor.parameters for tensor in inputs):
        raise bad("Shared memory is not offered here; send the tensor in the request.")


def _raw(tensor: Any) -> bytes:
    """Return the contents of an input as the bytes that they would be as raw contents."""
    name, datatype = tensor.name, tensor.datatype
    if not tensor.HasField("contents"):
        _refuse_shared_memory((tensor,))
        raise bad(f"Input {name[:80]!r} has no contents.")
    if datatype in _RAW_ONLY:
        raise bad(f"Input {name[:80]!r} is {datatype}, which is sent as raw contents only.")
    field = CONTENTS.get(datatype)
    if field is None:
        raise bad(f"Input {name[:80]!r} has a datatype {datatype[:80]!r}, which there is not.")
    others = [found.name for found, _ in tensor.contents.ListFields() if found.name != field]
    if others:
        raise bad(f"Input {name[:80]!r} is {datatype}: its contents are {field}, not {others[0]}.")
    values = getattr(tensor.contents, field)
    count = math.prod(tensor.shape)
    if len(values) != count:
        shape = list(tensor.shape)
        raise bad(f"Input {name[:80]!r} has {len(values)} values; its shape {shape} has {count}.")
    if datatype == "BYTES":
        return b"".join(len(v).to_bytes(_LENGTH_SIZE, "little") + v for v in values)
    try:
        return np.array(list(values), dtype=DTYPES[datatype]).tobytes()
    except OverflowError as error:
        raise bad(f"Input {name[:80]!r} has a value that {datatype} cannot hold.") from error
