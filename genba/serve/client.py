"""A small synchronous client of the Open Inference Protocol, with binary tensors."""

import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.serve.access.tls import client_context
from genba.serve.http.responses import Refusal
from genba.serve.oip.tensors import DTYPES, from_bytes, to_bytes

_DATATYPES: Final = {dtype: name for name, dtype in DTYPES.items()}
_HEAD_LENGTH: Final = "Inference-Header-Content-Length"
_ALIGNMENT: Final = 8  # spaces after the JSON keep the first tensor where processors like it
_NOT_AN_ANSWER: Final = (ValueError, KeyError, TypeError, AttributeError, Refusal)
_TEXT_KINDS: Final = "USO"  # numpy's letters for text, bytes and objects
_JSON: Final = {"Content-Type": "application/json"}
_OK: Final = 200
_DATA: Final = b"data: "  # of server-sent events
_DONE: Final = b"data: [DONE]"
_PORTS: Final = {"": 80, "http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the server answered, one entry per row."""

    outputs: Mapping[str, Array]
    predictions: tuple[str, ...]  # ids, to give feedback on and to trace
    package: str
    role: str


class Client:
    """Asks one server over one connection that is kept open; for one thread.

    Args:
        url: Such as ``http://127.0.0.1:8080``.
        key: The server's key, if it has one.
        ca: Certificates to trust for https, as PEM; those of the system if not given.
        timeout_s: For connecting and for an answer.
    """

    def __init__(
        self, url: str, *, key: str | None = None, ca: Path | None = None, timeout_s: float = 30.0
    ) -> None:
        parts = urlsplit(url if "//" in url else f"//{url}")
        if parts.hostname is None or parts.scheme not in _PORTS:
            raise Problem(
                "G103",
                f"{url!r} is not the address of a server.",
                where=url,
                tries=["http://127.0.0.1:8080"],
            )
        self.url = url
        self._address = (parts.hostname, parts.port or _PORTS[parts.scheme])
        self._tls = client_context(ca) if parts.scheme == "https" else None
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._fields = {"Host": f"{host}:{self._address[1]}"}
        if key:
            self._fields["Authorization"] = f"Bearer {key}"

    def infer(
        self,
        model: str,
        tensors: Mapping[str, Array | Sequence[bytes]],
        *,
        entities: Sequence[str] | None = None,
        times: Sequence[int] | Array | None = None,
        outputs: Sequence[str] = (),
        version: str | None = None,
    ) -> Answer:
        """Ask for predictions.

        Args:
            model: Name of the line.
            tensors: By input name, each with one entry per row. Images may be a list of JPEG and
                PNG files as bytes. Parameters that are left out have the values that hold now.
            entities: Names, one per row; sent as the input `entity`.
            times: Milliseconds since 1970 UTC, one per row; kept with the prediction.
            outputs: Names of those that are wanted; all of them if none is named.
            version: Package id, to ask that package instead of whose turn it is.

        Raises:
            Problem: G712 when the server does not answer; else what it says, with its code.
        """
        sent = dict(tensors)
        if entities is not None:
            sent["entity"] = np.array(entities, dtype=object)
        if times is not None:
            sent["time"] = np.asarray(times, dtype=np.int64)
        body, length = encode_request(sent, outputs)
        path = f"/v2/models/{quote(model, safe='')}"
        path += f"/versions/{quote(version, safe='')}/infer" if version else "/infer"
        fields = {"Content-Type": "application/octet-stream", _HEAD_LENGTH: str(length)}
        status, headers, data = self._ask("POST", path, body, fields)
        if status != 200:
            raise self._refused(status, data)
        try:
            return decode_answer(data, int(headers.get(_HEAD_LENGTH) or len(data)))
        except _NOT_AN_ANSWER as error:
            raise self._unreachable(error) from error

    def talk(
        self, model: str, messages: Sequence[Mapping[str, Any]], **more: Any
    ) -> Iterator[dict[str, Any]]:
        """Ask a language model and yield what it says, as it says it.

        Args:
            model: LINE, or LINE@PACKAGE.
            messages: The conversation.
            more: Other fields of a chat completion, such as `max_tokens`.

        Yields:
            Chunks of a chat completion: text in `choices[0].delta.content`, and what is known of
            the answer in `genba`.

        Raises:
            Problem: G712 when the server does not answer; else what it says, with its code.
        """
        body = json.dumps({"model": model, "messages": list(messages), "stream": True, **more})
        request = self._request("POST", "/v1/chat/completions", body.encode(), _JSON)
        self.close()  # what is still to come of an answer that nobody finished reading goes with it
        try:
            yield from self._events(request)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            self.close()

    def _events(self, request: bytes) -> Iterator[dict[str, Any]]:
        self._socket = self._connected()
        self._socket.sendall(request)
        with http.client.HTTPResponse(self._socket, method="POST") as response:
            response.begin()
            if response.status != _OK:
                raise self._refused(response.status, response.read())
            for line in response:
                if not line.startswith(_DATA) or line.strip() == _DONE:
                    continue
                event: dict[str, Any] = json.loads(line[len(_DATA) :])
                if "error" in event:
                    raise self._refused(_OK, line[len(_DATA) :])
                yield event

    def feedback(self, line: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Send feedback and return the report of what became of each row."""
        return self._json("POST", f"/genba/v1/lines/{quote(line, safe='')}/feedback", list(rows))

    def line(self, line: str) -> dict[str, Any]:
        """Return rollout, versions and counts of a line."""
        return self._json("GET", f"/genba/v1/lines/{quote(line, safe='')}")

    def metadata(self, model: str) -> dict[str, Any]:
        """Return inputs, outputs and versions of a line."""
        return self._json("GET", f"/v2/models/{quote(model, safe='')}")

    def metrics(self) -> str:
        """Return the server's metrics as Prometheus reads them."""
        return self._ask("GET", "/metrics", None, {})[2].decode()

    def ready(self, model: str | None = None) -> bool:
        """Say whether the server, or one line, can answer; False when there is no server."""
        path = f"/v2/models/{quote(model, safe='')}/ready" if model else "/v2/health/ready"
        try:
            return self._ask("GET", path, None, {})[0] == 200
        except Problem:
            return False

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "Client":
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def _json(self, method: str, path: str, value: Any = None) -> dict[str, Any]:
        body = None if value is None else json.dumps(value).encode()
        status, _, data = self._ask(method, path, body, {"Content-Type": "application/json"})
        if status != 200:
            raise self._refused(status, data)
        try:
            answer: dict[str, Any] = json.loads(data)
        except ValueError as error:
            raise self._unreachable(error) from error
        return answer

    def _ask(
        self, method: str, path: str, body: bytes | None, fields: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        request = self._request(method, path, body, fields)
        fresh = self._socket is None
        try:
            return self._once(method, request)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if fresh:
                raise self._unreachable(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        # The server had closed the idle connection; a new one tells whether it is still there.
        return self._ask(method, path, body, fields)

    def _request(
        self, method: str, path: str, body: bytes | None, fields: Mapping[str, str]
    ) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(body or b'')}"]
        lines += [f"{name}: {value}" for name, value in {**self._fields, **fields}.items()]
        return "\r\n".join((*lines, "", "")).encode() + (body or b"")

    def _once(self, method: str, request: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        if self._socket is None:
            self._socket = self._connected()
        self._socket.sendall(request)  # head and body at once; http.client would send them apart
        with http.client.HTTPResponse(self._socket, method=method) as response:
            response.begin()
            data = response.read()
            if response.will_close:
                self.close()
            return response.status, response.headers, data

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(self._address, self._timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_hostname=self._address[0])
        except OSError:
            connection.close()
            raise

    def _unreachable(self, error: Exception) -> Problem:
        if isinstance(error, ssl.SSLCertVerificationError):
            return Problem(
                "G712",
                f"The certificate of {self.url} is not one to trust.",
                where=self.url,
                why=error.verify_message,
                tries=["export GENBA_CA=ca.pem  # the certificate, or that of who signed it"],
            )
        return Problem(
            "G712",
            f"The server at {self.url} does not answer as a Genba server does.",
            where=self.url,
            why=str(error) or type(error).__name__,
            tries=["genba up", "genba status"],
        )

    def _refused(self, status: int, data: bytes) -> Problem:
        try:
            body = json.loads(data)
            code, what = body.get("code", "G708"), body["error"]
            if isinstance(what, dict):  # as the addresses of the OpenAI API say it
                code, what = what.get("code", "G708"), what["message"]
        except _NOT_AN_ANSWER:
            code, what = "G712", f"The server answered {status} without a reason."
        return Problem(code, what, where=self.url, tries=[f"genba explain {code}"])


def environment_key() -> str | None:
    """Return the key that a person's commands send: $GENBA_KEY, or the name it had before."""
    return os.environ.get("GENBA_KEY") or os.environ.get("GENBA_SERVE_KEY") or None


def environment_ca() -> Path | None:
    """Return the certificates that a person's commands trust: $GENBA_CA."""
    named = os.environ.get("GENBA_CA")
    return Path(named) if named else None


def encode_request(
    tensors: Mapping[str, Array | Sequence[bytes]], outputs: Sequence[str] = ()
) -> tuple[bytes, int]:
    """Return the body of a binary inference request and the length of its JSON part.

    Args:
        tensors: By input name; a list of bytes is sent as it is.
        outputs: Names of those that are wanted; all of them if none is named.
    """
    inputs, pieces = [], []
    for name, given in tensors.items():
        array = np.ascontiguousarray(given if isinstance(given, np.ndarray) else _elements(given))
        if array.dtype.kind in _TEXT_KINDS:
            array, datatype = array.astype(object), "BYTES"
        else:
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            datatype = _DATATYPES[array.dtype]
        pieces.append(to_bytes(array))
        inputs.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": array.shape,
                "parameters": {"binary_data_size": len(pieces[-1])},
            }
        )
    request: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if outputs:
        request["outputs"] = [{"name": name} for name in outputs]
    head = json.dumps(request, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _ALIGNMENT)
    return b"".join((head, *pieces)), len(head)


def _elements(values: Sequence[Any]) -> Array:
    """Return a list as an array; numpy's own bytes would lose zeros at their ends."""
    if not values or not isinstance(values[0], bytes):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def decode_answer(data: bytes, head_length: int) -> Answer:
    """Read the body of an inference answer, binary or JSON."""
    head = json.loads(data[:head_length])
    outputs: dict[str, Array] = {}
    start, rows = head_length, 0
    for output in head["outputs"]:
        name, datatype, shape = output["name"], output["datatype"], output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            kind = DTYPES.get(datatype, np.dtype(object))
            outputs[name] = np.array(output["data"], dtype=kind).reshape(shape)
        else:
            outputs[name] = from_bytes(name, datatype, shape, data, start, size)
            start += size
        rows = shape[0]
    parameters = head["parameters"]
    server, _, first = parameters["prediction"].rpartition("-")
    return Answer(
        outputs=outputs,
        predictions=tuple(f"{server}-{n}" for n in range(int(first), int(first) + rows)),
        package=parameters["package"],
        role=parameters["role"],
    )
