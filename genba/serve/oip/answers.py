"""Open Inference Protocol v2 over REST, with the binary tensor extension: writing answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from genba.core.protocols import Array
from genba.serve.http.responses import BINARY, JSON, encode_json
from genba.serve.oip import tensors
from genba.serve.oip.schema import Schema, Wanted

EXTENSIONS: Final = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
_MARK: Final = "<the id of the prediction>"
_TEMPLATES: Final = 64  # of one wish: numbers of rows, packages, roles
_HEAD_LENGTH_FIELD: Final = b"Inference-Header-Content-Length: %d\r\n"


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
    """Write the outputs of one request; `parameters` has prediction, package and role.

    The answer to a single row names its class too, where it has one.
    """
    if wanted.all_binary and schema.chosen_class is None:
        return _binary(schema, wanted, outputs, line, parameters)
    named = class_name(schema, outputs)
    if named is not None:
        parameters = {**parameters, "class_name": named}
    head, pieces = _head(schema, wanted, outputs, line, parameters)
    if not pieces:
        return Answer((head,), JSON, b"")
    return Answer((head, *pieces), BINARY, _HEAD_LENGTH_FIELD % len(head))


def _binary(
    schema: Schema,
    wanted: Wanted,
    outputs: Mapping[str, Array],
    line: str,
    parameters: Mapping[str, str],
) -> Answer:
    """Write an answer whose head differs from an earlier one by its prediction only."""
    arrays = [outputs[name] for name in wanted.names]
    key = (parameters["role"], parameters["package"], *[array.shape for array in arrays])
    template = wanted.templates.get(key)
    prediction = parameters["prediction"].encode()
    if template is None:
        head, pieces = _head(schema, wanted, outputs, line, {**parameters, "prediction": _MARK})
        if any(array.dtype == object for array in arrays):  # their sizes differ each time
            head = head.replace(_MARK.encode(), prediction, 1)
            return Answer((head, *pieces), BINARY, _HEAD_LENGTH_FIELD % len(head))
        if len(wanted.templates) >= _TEMPLATES:
            wanted.templates.clear()
        template = wanted.templates[key] = head.split(_MARK.encode(), 1)
    head = prediction.join(template)
    body = (head, *[array.tobytes() for array in arrays])
    return Answer(body, BINARY, _HEAD_LENGTH_FIELD % len(head))


def _head(
    schema: Schema,
    wanted: Wanted,
    outputs: Mapping[str, Array],
    line: str,
    parameters: Mapping[str, str],
) -> tuple[bytes, list[bytes]]:
    """Return the JSON part of an answer, and what follows it in binary."""
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
    return encode_json(head), pieces


def class_name(schema: Schema, outputs: Mapping[str, Array]) -> str | None:
    """Return the class of a single row in words; None where there is none to tell."""
    if schema.chosen_class is None or outputs[schema.chosen_class].size != 1:
        return None
    return schema.class_name(int(outputs[schema.chosen_class].item()))


def server_metadata(version: str) -> dict[str, Any]:
    """Return the answer to GET /v2."""
    return {"name": "genba", "version": version, "extensions": EXTENSIONS}
