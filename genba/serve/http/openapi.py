"""The OpenAPI document of a running server: its addresses, and its lines with their tensors."""

import contextlib
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from genba import __version__
from genba.serve.http.openapi_schemas import (
    FILES,
    NEEDED,
    OPERATIONS,
    REFUSED,
    SCHEMAS,
    TALK_REFUSED,
    Json,
    of,
)
from genba.serve.http.request import Request
from genba.serve.http.responses import Refusal, encode_json

if TYPE_CHECKING:
    from genba.serve.http.routes import App, Route

_STANDS_FOR: Final = {
    "models": "line",
    "lines": "line",
    "versions": "package",
    "metadata": "file",
    "objects": "digest",
}
_MEANS: Final = {
    "line": "Name of a line.",
    "package": "Id of a package that answers for the line.",
    "file": "Name of a metadata file of The Update Framework.",
    "digest": "SHA-256 of a content that a release consists of.",
}
_NUMBERS: Final = {
    "BOOL": "boolean",
    "FP16": "number",
    "FP32": "number",
    "FP64": "number",
    "BYTES": "string",
}


def openapi(app: "App", request: Request, _: tuple[str, ...]) -> None:
    """GET /openapi.json."""
    allowed: frozenset[str] = request.plan.bound.caller.lines
    models = {}
    for name, line in sorted(app.lines.items()):
        if not allowed or name in allowed:
            with contextlib.suppress(Refusal):  # not in memory now: what it takes is not known
                models[name] = line.metadata(None)
    app.answer(request, "metadata", 200, encode_json(document(app.routes, models)))


def document(routes: Iterable["Route"], models: Mapping[str, Json]) -> Json:
    """Return the document.

    Args:
        routes: Every address of the server.
        models: The metadata of every line by its name.
    """
    paths: Json = {}
    for route in routes:
        for method in route.methods:
            if method != "HEAD":
                at = paths.setdefault(path_of(route.pattern), {})
                at[method.lower()] = _operation(route, method, models)
    for name, model in models.items():
        address = ("v2", "models", name, "infer")
        paths[path_of(address)] = {"post": _prediction(name, model)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Genba",
            "version": __version__,
            "summary": "Predictions of the lines in service: Open Inference Protocol, version 2.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": {"Refused": REFUSED, "TalkRefused": TALK_REFUSED},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def path_of(pattern: Iterable[str]) -> str:
    """Return a pattern as OpenAPI writes it.

    Example:
        >>> path_of(("v2", "models", "*", "versions", "*", "infer"))
        '/v2/models/{line}/versions/{package}/infer'
    """
    made, before = [], ""
    for part in pattern:
        made.append(f"{{{_STANDS_FOR[before]}}}" if part == "*" else part)
        before = part
    return "/" + "/".join(made)


def _operation(route: "Route", method: str, models: Mapping[str, Json]) -> Json:
    pattern = "/".join(route.pattern)
    summary, body, answer = OPERATIONS.get((method, pattern), (f"{pattern}.", "", "Anything"))
    refused = "TalkRefused" if pattern.startswith("v1/") else "Refused"  # as request.OPENAI
    names = [_STANDS_FOR[a] for a, b in itertools.pairwise(route.pattern) if b == "*"]
    made: Json = {
        "operationId": f"{method.lower()}-{pattern.replace('/', '-').replace('*', 'any')}",
        "summary": summary,
        "tags": [route.name],
        "x-genba-scope": route.scope,
        "responses": {
            "200": _answer(answer),
            "default": {"$ref": f"#/components/responses/{refused}"},
        },
    }
    if names:
        made["parameters"] = [_path_parameter(name, models) for name in names]
    if body:
        content: Json = {"application/json": {"schema": of(body)}}
        if body == "InferRequest":
            content |= FILES
        made["requestBody"] = {"required": body in NEEDED, "content": content}
    return made


def _path_parameter(name: str, models: Mapping[str, Json]) -> Json:
    schema: Json = {"type": "string", "minLength": 1}
    if name == "package":
        schema["examples"] = [package for model in models.values() for package in model["versions"]]
    elif models:
        schema["enum"] = list(models)
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _MEANS[name],
        "schema": schema,
    }


def _answer(what: str) -> Json:
    if "/" in what:
        return {"description": "Text.", "content": {what: {"schema": {"type": "string"}}}}
    content: Json = {"application/json": {"schema": of(what)}}
    if what == "InferAnswer":
        content["application/octet-stream"] = {}
    return {"description": "The answer.", "content": content}


# One line.


def _prediction(name: str, model: Json) -> Json:
    """Return the operation that predicts with a line, with its very tensors."""
    inputs = [_input(tensor) for tensor in model["inputs"]]
    needed = [
        {"contains": {"properties": {"name": {"const": tensor["name"]}}, "required": ["name"]}}
        for tensor in model["inputs"]
        if not tensor["parameters"].get("optional")
    ]
    outputs = [tensor["name"] for tensor in model["outputs"]]
    body: Json = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": SCHEMAS["InferRequest"]["properties"]["id"],
            "parameters": of("RequestParameters"),
            "inputs": {"type": "array", "minItems": 1, "items": {"anyOf": inputs}, "allOf": needed},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"enum": outputs}},
                },
            },
        },
    }
    if not needed:
        del body["properties"]["inputs"]["allOf"]
    content: Json = {"application/json": {"schema": body}}
    parameters: list[Json] = []
    if any(tensor["parameters"]["role"] == "image" for tensor in model["inputs"]):
        content |= FILES
        parameters = [*_image_query(model)]
    else:
        content["application/json"]["examples"] = {"one row": {"value": _one_row(model)}}
        content["application/octet-stream"] = {}
    return {
        "operationId": f"predict-{name}",
        "summary": f"Predict with the line {name}.",
        "tags": ["infer"],
        "x-genba-scope": "infer",
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": _answer("InferAnswer"),
            "default": {"$ref": "#/components/responses/Refused"},
        },
    }


def _one_row(model: Json) -> Json:
    """Return a request that is answered, with nothing in it."""
    inputs = []
    for tensor in model["inputs"]:
        if not tensor["parameters"].get("optional"):
            shape = [1 if size < 0 else size for size in tensor["shape"]]
            nothing = {"boolean": False, "string": ""}.get(_NUMBERS.get(tensor["datatype"], ""), 0)
            told = {"name": tensor["name"], "datatype": tensor["datatype"], "shape": shape}
            inputs.append({**told, "data": [nothing] * math.prod(shape)})
    return {"inputs": inputs}


def _input(tensor: Json) -> Json:
    told, datatype = tensor["parameters"], tensor["datatype"]
    role, shape = told["role"], tensor["shape"]
    types = [datatype]
    if role in ("entity", "image"):
        types.append("BYTES")
    items: Json = {"type": _NUMBERS.get(datatype, "integer")}
    if items["type"] == "number":
        items = {"type": ["number", "null"]}  # null is not a number
    words = [role, told.get("unit", ""), told.get("also", "")]
    made: Json = {
        "type": "object",
        "description": "; ".join(filter(None, words)),
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": tensor["name"]},
            "datatype": {"enum": sorted(set(types))},
            "shape": _shape(shape) if len(set(types)) == 1 else of("Shape"),
            "data": {"type": "array", "items": items if len(set(types)) == 1 else {}},
        },
    }
    return made


def _shape(shape: Iterable[int]) -> Json:
    sizes = [{"type": "integer", "minimum": 0} if n < 0 else {"const": n} for n in shape]
    return {"type": "array", "prefixItems": sizes, "items": False, "minItems": len(sizes)}


def _image_query(model: Json) -> Iterable[Json]:
    outputs = ", ".join(tensor["name"] for tensor in model["outputs"])
    yield _query("outputs", f"Names with commas between them: {outputs}.", {"type": "string"})
    yield _query("entity", "Where the image is from.", {"type": "string"})
    yield _query("time", "When it was taken, Unix time in ms.", {"type": "integer", "minimum": 0})
    yield _query("id", "Comes back in the answer.", {"type": "string", "maxLength": 128})
    for tensor in model["inputs"]:
        if tensor["parameters"]["role"] == "parameter":
            yield _query(tensor["name"], "A parameter of the package.", {"type": "number"})


def _query(name: str, words: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": words, "schema": schema}
