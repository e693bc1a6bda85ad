"""Open Inference Protocol v2 over REST, with the binary tensor extension: writing answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from genba.core.protocols import Array
from genba.serve import tensors
from genba.serve.responses import BINARY, JSON, encode_json
from genba.serve.schema import Schema, Wanted

EXTENSIONS: Final = ("binary_tensor_data", "parameters")
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
    named = _class_name(schema, outputs)
    if named is not None:
        parameters = {**parameters, "class_name": named}
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


def _class_name(schema: Schema, outputs: Mapping[str, Array]) -> str | None:
    if schema.chosen_class is None or outputs[schema.chosen_class].size != 1:
        return None
    return schema.class_name(int(outputs[schema.chosen_class].item()))


def server_metadata(version: str) -> dict[str, Any]:
    """Return the answer to GET /v2."""
    return {"name": "genba", "version": version, "extensions": EXTENSIONS}
