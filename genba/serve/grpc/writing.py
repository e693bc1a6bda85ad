"""From outputs to a response message."""

from collections.abc import Mapping
from typing import Any, Final

from genba.core.protocols import Array
from genba.serve.grpc.messages import message
from genba.serve.grpc.reading import CONTENTS
from genba.serve.oip import tensors
from genba.serve.oip.answers import class_name
from genba.serve.oip.schema import Schema, Wanted

_Response: Final = message("ModelInferResponse")


def response(
    schema: Schema,
    wanted: Wanted,
    outputs: Mapping[str, Array],
    *,
    line: str,
    parameters: Mapping[str, str],
) -> Any:
    """Return the outputs of one request as a message; raw contents unless it wants it otherwise.

    The protocol has raw contents for every output or for none, so none has them when the request
    says of one of them that it shall not be binary.

    Args:
        schema: Of the package that answered.
        wanted: Outputs that were asked for.
        outputs: Their values.
        line: Name of the line.
        parameters: Prediction, package and role.
    """
    made = _Response(model_name=line, model_version=parameters["package"], id=wanted.id)
    for name, value in parameters.items():
        made.parameters[name].string_param = value
    named = class_name(schema, outputs)
    if named is not None:
        made.parameters["class_name"].string_param = named
    raw = all(wanted.binary)
    for name in wanted.names:
        array = outputs[name]
        datatype = schema.outputs[name].datatype
        entry = made.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            made.raw_output_contents.append(tensors.to_bytes(array))
        else:
            _fill(entry.contents, datatype, array)
    return made


def _fill(contents: Any, datatype: str, array: Array) -> None:
    values: list[Any] = array.ravel().tolist()
    if array.dtype == object:
        values = [v if isinstance(v, bytes) else str(v).encode() for v in values]
    getattr(contents, CONTENTS[datatype]).extend(values)
