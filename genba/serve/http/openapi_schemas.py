"""What is the same in the OpenAPI document of every server: addresses and schemas."""

from collections.abc import Mapping
from typing import Any, Final

from genba.serve.openai.describe import TALK_OPERATIONS, TALK_SCHEMAS

Json = dict[str, Any]

#: What an address does, by method and pattern: summary, body of the request, body of the answer.
OPERATIONS: Final[Mapping[tuple[str, str], tuple[str, str, str]]] = {
    ("POST", "v2/models/*/infer"): ("Predict.", "InferRequest", "InferAnswer"),
    ("POST", "v2/models/*/versions/*/infer"): (
        "Predict with one package of a line.",
        "InferRequest",
        "InferAnswer",
    ),
    ("GET", "v2"): ("What the server is and can.", "", "Server"),
    ("GET", "v2/health/live"): ("Whether the server runs.", "", "Live"),
    ("GET", "v2/health/ready"): ("Whether every line can answer.", "", "Ready"),
    ("GET", "v2/models/*"): ("What goes into a line and what comes out.", "", "Model"),
    ("GET", "v2/models/*/versions/*"): ("The same of one package.", "", "Model"),
    ("GET", "v2/models/*/ready"): ("Whether a line can answer.", "", "Ready"),
    ("GET", "v2/models/*/versions/*/ready"): ("Whether a package can answer.", "", "Ready"),
    ("GET", "v2/models/*/config"): ("The configuration of a line.", "", "Anything"),
    ("GET", "v2/models/*/versions/*/config"): ("The same of one package.", "", "Anything"),
    ("GET", "v2/models/stats"): ("Counts and times of all packages.", "", "Statistics"),
    ("GET", "v2/models/*/stats"): ("Counts and times of a line.", "", "Statistics"),
    ("GET", "v2/models/*/versions/*/stats"): ("The same of one package.", "", "Statistics"),
    ("POST", "v2/repository/index"): ("Which packages are there.", "IndexRequest", "Index"),
    ("POST", "v2/repository/models/*/load"): (
        "Put the packages of a line into memory.",
        "LoadRequest",
        "Anything",
    ),
    ("POST", "v2/repository/models/*/unload"): (
        "Take the packages of a line out of memory.",
        "LoadRequest",
        "Anything",
    ),
    ("GET", "genba/v1/lines"): ("All lines.", "", "Lines"),
    ("GET", "genba/v1/lines/*"): ("Who answers for a line, and how often.", "", "Anything"),
    ("POST", "genba/v1/lines/*/feedback"): (
        "Say what was true.",
        "Feedback",
        "Anything",
    ),
    **TALK_OPERATIONS,
    ("GET", "edge/metadata/*"): ("Signed metadata of the releases for devices.", "", "Anything"),
    ("GET", "edge/objects/*"): ("A piece of a release, or a range of it.", "", "Anything"),
    ("POST", "edge/telemetry"): ("What a device says and has predicted.", "", "Anything"),
    ("GET", "metrics"): ("Counts for Prometheus.", "", "text/plain"),
    ("GET", "openapi.json"): ("This document.", "", "Anything"),
    ("GET", ""): ("A page for a person.", "", "text/html"),
    ("GET", "talk"): ("A page to talk to a line and to teach it.", "", "text/html"),
}


def of(name: str) -> Json:
    """Return the reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


FILES: Final[Json] = {"image/jpeg": {}, "image/png": {}, "application/octet-stream": {}}
NEEDED: Final = frozenset(
    {name for _, name, _ in TALK_OPERATIONS.values() if name} | {"InferRequest", "Feedback"}
)
REFUSED: Final[Json] = {
    "description": "Why not; `genba explain CODE` says more.",
    "content": {"application/json": {"schema": of("Refusal")}},
}
TALK_REFUSED: Final[Json] = {
    **REFUSED,
    "content": {"application/json": {"schema": of("TalkRefusal")}},
}
_TEXT: Final[Json] = {"type": "string"}
_TENSOR: Final[Json] = {
    "name": _TEXT,
    "datatype": {
        "enum": ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
                 "FP16", "FP32", "FP64", "BYTES"],
    },
    "shape": of("Shape"),
}  # fmt: skip
SCHEMAS: Final[Json] = {
    **TALK_SCHEMAS,
    "Anything": {"type": ["object", "array"]},
    "Shape": {
        "type": "array",
        "items": {"type": "integer", "minimum": -1},
        "minItems": 1,
        "maxItems": 8,
    },
    "Refusal": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {"error": _TEXT, "code": {"type": "string", "pattern": "^G[0-9]{3}$"}},
    },
    "Live": {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}},
    "Ready": {
        "type": "object",
        "required": ["ready"],
        "properties": {"name": _TEXT, "ready": {"type": "boolean"}},
    },
    "Server": {
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {
            "name": _TEXT,
            "version": _TEXT,
            "extensions": {"type": "array", "items": _TEXT},
        },
    },
    "TensorMetadata": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {**_TENSOR, "parameters": {"type": "object"}},
    },
    "Model": {
        "type": "object",
        "required": ["name", "versions", "platform", "inputs", "outputs"],
        "properties": {
            "name": _TEXT,
            "versions": {"type": "array", "items": _TEXT},
            "platform": _TEXT,
            "inputs": {"type": "array", "items": of("TensorMetadata")},
            "outputs": {"type": "array", "items": of("TensorMetadata")},
            "parameters": {"type": "object"},
        },
    },
    "RequestParameters": {
        "type": "object",
        "properties": {
            "binary_data_output": {"type": "boolean"},
            "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds."},
            "priority": {
                "type": "integer",
                "minimum": 0,
                "description": "0 and 1 mean that somebody waits, more that nobody does.",
            },
        },
    },
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 128},
            "parameters": of("RequestParameters"),
            "inputs": {"type": "array", "minItems": 1, "maxItems": 64, "items": of("InputTensor")},
            "outputs": {
                "type": "array",
                "maxItems": 64,
                "items": {"type": "object", "required": ["name"], "properties": {"name": _TEXT}},
            },
        },
    },
    "InputTensor": {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {**_TENSOR, "data": {"type": "array"}},
    },
    "InferAnswer": {
        "type": "object",
        "required": ["model_name", "model_version", "parameters", "outputs"],
        "properties": {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "id": _TEXT,
            "parameters": {
                "type": "object",
                "required": ["prediction", "package", "role"],
                "properties": {
                    "prediction": {"type": "string", "description": "Id of the first row."},
                    "package": _TEXT,
                    "role": {"enum": ["stable", "canary"]},
                    "class_name": _TEXT,
                },
            },
            "outputs": {"type": "array", "items": of("TensorMetadata")},
        },
    },
    "Lines": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["line", "ready"],
            "properties": {"line": _TEXT, "ready": {"type": "boolean"}},
        },
    },
    "Statistics": {
        "type": "object",
        "required": ["model_stats"],
        "properties": {"model_stats": {"type": "array", "items": {"type": "object"}}},
    },
    "IndexRequest": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    "Index": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["name", "version", "state", "reason"],
            "properties": {
                "name": _TEXT,
                "version": _TEXT,
                "state": {"enum": ["READY", "UNAVAILABLE"]},
                "reason": _TEXT,
            },
        },
    },
    "LoadRequest": {"type": "object", "properties": {"parameters": {"type": "object"}}},
    "Feedback": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["value"],
            "properties": {"prediction": _TEXT, "entity": _TEXT, "value": {}, "author": _TEXT},
        },
    },
}
