"""Open Inference Protocol v2 over REST, with the binary tensor extension: requests and answers."""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from genba.core.codec import nearest
from genba.core.protocols import Array
from genba.core.values import Manifest, Signature, Tensor
from genba.serve import tensors
from genba.serve.responses import BINARY, JSON, encode_json
from genba.serve.tensors import DTYPES, bad

EXTENSIONS: Final = ("binary_tensor_data", "parameters")
HEAD_LENGTH: Final = b"inference-header-content-length"
_HEAD_LENGTH_FIELD: Final = b"Inference-Header-Content-Length: %d\r\n"
_CACHED_HEAD_BYTES: Final = 2_048
_LATEST_MS: Final = 10**14  # the year 5138: larger numbers are not milliseconds
_TIME: Final = Tensor(name="time", datatype="INT64", shape=(-1,), role="time")

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


class Wanted:
    """Which outputs a client wants, and how."""

    __slots__ = ("binary", "id", "names")

    def __init__(self, id: str, names: Sequence[str], binary: Sequence[bool]) -> None:
        self.id = id
        self.names = names
        self.binary = binary


class Inputs:
    """A request that has passed every check."""

    __slots__ = ("entity_names", "rows", "tensors", "time", "wanted")

    def __init__(
        self,
        tensors: dict[str, Array],
        rows: int,
        *,
        entity_names: Sequence[str] | None,
        time: Array | None,
        wanted: Wanted,
    ) -> None:
        self.tensors = tensors
        self.rows = rows
        self.entity_names = entity_names  # as sent, when they were sent as text
        self.time = time
        self.wanted = wanted


class Schema:
    """What requests to one package must look like, worked out once."""

    def __init__(self, signature: Signature, entities: Sequence[str]) -> None:
        self.inputs: dict[str, Tensor] = {t.name: t for t in signature.inputs}
        self.outputs: dict[str, Tensor] = {t.name: t for t in signature.outputs}
        self.entities = tuple(entities)
        self.output_names = tuple(self.outputs)
        self.entity = next((t.name for t in signature.inputs if t.role == "entity"), None)
        self.features = tuple(t.name for t in signature.inputs if t.role not in ("entity", "time"))
        self.alarm = next((t.name for t in signature.outputs if t.role == "alarm"), None)
        self.floats = tuple(t.name for t in signature.outputs if t.datatype.startswith("FP"))
        self._index = {name: i for i, name in enumerate(entities)}
        self._all_json = (False,) * len(self.outputs)
        self._all_binary = (True,) * len(self.outputs)

    def indices(self, names: Sequence[str]) -> Array:
        """Return the indices of entities in this package; -1 for one it has not seen."""
        return np.array([self._index.get(name, -1) for name in names], dtype=np.int64)

    def names(self, indices: Array) -> list[str | None]:
        """Return the names behind indices; None for what is not one."""
        known = self.entities
        return [known[i] if 0 <= i < len(known) else None for i in indices.tolist()]

    def all_outputs(self, request_id: str, *, binary: bool) -> Wanted:
        """Return the wish for every output."""
        flags = self._all_binary if binary else self._all_json
        return Wanted(request_id, self.output_names, flags)


@functools.lru_cache(maxsize=256)
def _parse_cached(head: bytes) -> InferRequest:
    return _decoder.decode(head)


def _parse(head: bytes) -> InferRequest:
    try:
        # Binary clients send the same head again and again; only the tensors differ.
        return _parse_cached(head) if len(head) <= _CACHED_HEAD_BYTES else _decoder.decode(head)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise bad(f"The request is not an inference request: {error}.") from error


def read_request(body: bytes, head_length: bytes | None, schema: Schema, max_rows: int) -> Inputs:
    """Read an inference request and check everything in it.

    Args:
        body: The HTTP body.
        head_length: Value of Inference-Header-Content-Length, None for a body that is all JSON.
        schema: What the package takes.
        max_rows: Most rows that one request may have.

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
            return _raw(body, schema, max_rows)
        request = _parse(body[:start])
    arrays = _arrays(request.inputs, body, start, schema)
    return _checked(arrays, schema, max_rows, _wanted(request, schema))


def _arrays(
    inputs: Sequence[InputTensor], body: bytes, start: int, schema: Schema
) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for sent in inputs:
        if sent.name in arrays:
            raise bad(f"Input {sent.name!r} is there twice.")
        _check_declared(sent, schema)
        size = sent.parameters.binary_data_size
        if size is None:
            if not sent.data:
                raise bad(f"Input {sent.name!r} has neither data nor binary_data_size.")
            arrays[sent.name] = tensors.from_json(sent.name, sent.datatype, sent.shape, sent.data)
            continue
        if sent.data:
            raise bad(f"Input {sent.name!r} has both data and binary_data_size.")
        if start + size > len(body):
            raise bad(f"The body ends within the {size} bytes of input {sent.name!r}.")
        arrays[sent.name] = tensors.from_bytes(
            sent.name, sent.datatype, sent.shape, body, start, size
        )
        start += size
    if start != len(body):
        raise bad(f"The body has {len(body) - start} bytes that belong to no input.")
    return arrays


def _check_declared(sent: InputTensor, schema: Schema) -> None:
    wanted = schema.inputs.get(sent.name) or (_TIME if sent.name == "time" else None)
    if wanted is None:
        near = nearest(sent.name, list(schema.inputs))
        hint = f"; did you mean {near}?" if near else f". It has {', '.join(schema.inputs)}."
        raise bad(f"The model has no input {sent.name!r}{hint}")
    by_name = wanted.role == "entity" and sent.datatype == "BYTES"
    if sent.datatype != wanted.datatype and not by_name:
        raise bad(f"Input {sent.name!r} must be {wanted.datatype}, not {sent.datatype}.")
    fits = len(sent.shape) == len(wanted.shape) and all(
        want in (-1, got) for want, got in zip(wanted.shape, sent.shape, strict=True)
    )
    if not fits:
        raise bad(f"Input {sent.name!r} must have shape {list(wanted.shape)}, not {sent.shape}.")


def _raw(body: bytes, schema: Schema, max_rows: int) -> Inputs:
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
    return _checked({wanted.name: array}, schema, max_rows, schema.all_outputs("", binary=True))


def _checked(arrays: dict[str, Array], schema: Schema, max_rows: int, wanted: Wanted) -> Inputs:
    rows = -1
    for name in schema.features:
        if name not in arrays:
            raise bad(f"Input {name!r} is missing.")
        if rows == -1:
            rows = arrays[name].shape[0]
    for name, array in arrays.items():
        if array.shape[0] != rows:
            raise bad(f"Input {name!r} has {array.shape[0]} rows, others have {rows}.")
    if not 1 <= rows <= max_rows:
        raise bad(f"The request has {rows} rows; from 1 to {max_rows} are taken at a time.")
    time = arrays.pop("time", None) if "time" not in schema.inputs else arrays.get("time")
    if time is not None and not ((time >= 0) & (time < _LATEST_MS)).all():
        raise bad("Input 'time' must be milliseconds since 1970.")
    names = _entities(arrays, schema, rows)
    return Inputs(arrays, rows, entity_names=names, time=time, wanted=wanted)


def _entities(arrays: dict[str, Array], schema: Schema, rows: int) -> Sequence[str] | None:
    """Turn entity names into indices; who sends none gets -1, the unknown entity."""
    if schema.entity is None:
        return None
    sent = arrays.get(schema.entity)
    if sent is None:
        arrays[schema.entity] = np.full(rows, -1, dtype=np.int64)
        return None
    if sent.dtype != object:
        arrays[schema.entity] = np.where((sent >= 0) & (sent < len(schema.entities)), sent, -1)
        return None
    try:
        names = [value.decode() for value in sent.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise bad(f"Input {schema.entity!r} is not UTF-8 text.") from error
    arrays[schema.entity] = schema.indices(names)
    return names


def _wanted(request: InferRequest, schema: Schema) -> Wanted:
    default = request.parameters.binary_data_output
    if not request.outputs:
        return schema.all_outputs(request.id, binary=default)
    names, binary = [], []
    for output in request.outputs:
        if output.name not in schema.outputs:
            near = nearest(output.name, schema.output_names)
            hint = f"; did you mean {near}?" if near else f". It has {list(schema.outputs)}."
            raise bad(f"The model has no output {output.name!r}{hint}")
        if output.parameters.classification:
            raise bad("The classification extension is not offered here.")
        asked = output.parameters.binary_data
        names.append(output.name)
        binary.append(default if asked is None else asked)
    return Wanted(request.id, names, binary)


class Answer:
    """An inference answer, ready to be written."""

    __slots__ = ("body", "fields", "kind")

    def __init__(self, body: Sequence[bytes], kind: bytes, fields: bytes) -> None:
        self.body = body
        self.kind = kind
        self.fields = fields


def write_answer(
    schema: Schema,
    wanted: Wanted,
    outputs: Mapping[str, Array],
    *,
    line: str,
    parameters: Mapping[str, str],
) -> Answer:
    """Write the outputs of one request; `parameters` has prediction, package and role."""
    pieces: list[bytes] = []
    listed: list[dict[str, Any]] = []
    for name, binary in zip(wanted.names, wanted.binary, strict=True):
        array = outputs[name]
        entry: dict[str, Any] = {
            "name": name,
            "datatype": schema.outputs[name].datatype,
            "shape": array.shape,
        }
        if binary:
            pieces.append(tensors.to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            entry["data"] = tensors.to_values(array)
        listed.append(entry)
    head: dict[str, Any] = {
        "model_name": line,
        "model_version": parameters["package"],
        "parameters": parameters,
        "outputs": listed,
    }
    if wanted.id:
        head["id"] = wanted.id
    encoded = encode_json(head)
    if not pieces:
        return Answer((encoded,), JSON, b"")
    return Answer((encoded, *pieces), BINARY, _HEAD_LENGTH_FIELD % len(encoded))


def server_metadata(version: str) -> dict[str, Any]:
    """Return the answer to GET /v2."""
    return {"name": "genba", "version": version, "extensions": EXTENSIONS}


def model_metadata(line: str, versions: Sequence[str], manifest: Manifest) -> dict[str, Any]:
    """Return the answer to GET /v2/models/{line}."""

    def listed(given: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in given]

    return {
        "name": line,
        "versions": versions,
        "platform": f"genba_{manifest.engine.name}",
        "inputs": listed(manifest.signature.inputs),
        "outputs": listed(manifest.signature.outputs),
    }
