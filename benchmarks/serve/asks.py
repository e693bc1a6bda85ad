"""Requests as each server wants them, the same tensors in all of them, and reading the answers."""

import base64
import http.client
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.serve import models
from genba.core.protocols import Array
from genba.serve.client import encode_request

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
_HEAD: Final = "Inference-Header-Content-Length"
_ROWS: Final = 12  # different questions, asked at the same time
_TOLERANCE: Final = 2e-3  # of the answers' own spread; batches of other sizes round differently
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request, ready to be sent, and how its answer is read."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    read: Callable[[Mapping[str, str], bytes], Array]

    def head(self, host: str) -> bytes:
        """Return the request's head as bytes."""
        fields = {"Host": host, **self.headers, "Content-Length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


#: Makes the request for a model and a tensor of one row.
Maker = Callable[[str, Array], Ask]


def oip_json(name: str, x: Array) -> Ask:
    """Ask in the Open Inference Protocol, JSON in and out."""
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": 0}
    head = json.dumps({"inputs": [tensor]}, separators=(",", ":"))
    body = head.replace('"data":0', f'"data":{models.numbers(x)}').encode()
    return Ask(path=f"/v2/models/{name}/infer", body=body, headers=typed(JSON), read=_read_oip)


def oip_binary(name: str, x: Array) -> Ask:
    """Ask in the Open Inference Protocol with its binary tensor extension, in and out."""
    body, length = encode_request({"x": x})
    headers = {**typed(BYTES), _HEAD: str(length)}
    return Ask(path=f"/v2/models/{name}/infer", body=body, headers=headers, read=_read_oip)


def plain_json(name: str, x: Array) -> Ask:
    """Ask with `{"x": [[...]]}`, for servers without a protocol of their own."""
    body = f'{{"x":{models.nested(x)}}}'.encode()
    return Ask(path=f"/{name}", body=body, headers=typed(JSON), read=_read_plain)


def row_json(name: str, x: Array) -> Ask:
    """Ask with `{"x": [...]}`: one row, which the server puts into a batch."""
    body = f'{{"x":{models.nested(x[0])}}}'.encode()
    return Ask(path=f"/{name}", body=body, headers=typed(JSON), read=_read_plain)


def base64_json(name: str, x: Array) -> Ask:
    """Ask with base64 within JSON, where nothing else is possible."""
    body = json.dumps({"b64": base64.b64encode(x.tobytes()).decode()}).encode()
    return Ask(path=f"/{name}", body=body, headers=typed(JSON), read=_read_plain)


def raw(name: str, x: Array) -> Ask:
    """Ask with the tensor's bytes and nothing else."""
    return Ask(path=f"/{name}", body=x.tobytes(), headers=typed(BYTES), read=_read_raw)


def below(maker: Maker, prefix: str, suffix: str = "") -> Maker:
    """Return a maker for another address."""

    def make(name: str, x: Array) -> Ask:
        ask = maker(name, x)
        path = f"{prefix}/{name}{suffix}"
        return Ask(path=path, body=ask.body, headers=ask.headers, read=ask.read)

    return make


def typed(kind: str) -> dict[str, str]:
    """Return the field that says what a body is."""
    return {"Content-Type": kind}


def _read_oip(headers: Mapping[str, str], data: bytes) -> Array:
    fields = {name.lower(): value for name, value in headers.items()}
    length = int(fields.get(_HEAD.lower()) or len(data))
    output = json.loads(data[:length])["outputs"][0]
    if "data" in output:
        return np.array(output["data"], dtype=np.float32).ravel()
    return np.frombuffer(data[length:], dtype="<f4")


def _read_plain(headers: Mapping[str, str], data: bytes) -> Array:
    del headers
    answer: Any = json.loads(data)
    return np.array(answer["y"] if isinstance(answer, dict) else answer, dtype=np.float32).ravel()


def _read_raw(headers: Mapping[str, str], data: bytes) -> Array:
    del headers
    return np.frombuffer(data, dtype="<f4")


def send(port: int, ask: Ask) -> Array:
    """Ask once over a connection of its own.

    Raises:
        RuntimeError: If the answer is not 200, with what it says.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", ask.path, ask.body, dict(ask.headers))
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"HTTP {answer.status}: {data[:200].decode(errors='replace')}")
        return ask.read(dict(answer.headers), data)
    finally:
        connection.close()


def check(port: int, model: str, maker: Maker, name: str | None = None) -> None:
    """Ask different questions at the same time and compare every answer with ONNX Runtime's.

    Args:
        port: Of the server.
        model: Whose answers are right.
        maker: Of the requests.
        name: What the server calls the model.

    Raises:
        RuntimeError: If an answer is another one, which is how mixed-up batches show.
    """
    x = models.question(model, _ROWS, seed=1)
    want = models.reference(model)(x)
    with ThreadPoolExecutor(_ROWS) as pool:
        got = list(pool.map(lambda row: send(port, maker(name or model, row[None])), x))
    bound = _TOLERANCE * float(np.abs(want).max())
    for number, (have, right) in enumerate(zip(got, want, strict=True)):
        if have.shape != right.shape or float(np.abs(have - right).max()) > bound:
            raise RuntimeError(f"answer {number} of {model} is not ONNX Runtime's")
