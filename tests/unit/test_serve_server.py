"""The whole server in this process: addresses, encodings, feedback, keys, start and end."""

import http.client
import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.serve import server
from genba.serve.__main__ import main
from genba.serve.client import Client
from genba.serve.http import routes
from genba.serve.limits import Limits
from genba.serve.oip import answers
from genba.serve.server import serve
from genba.serve.settings import Settings
from genba.store.captures import find_prediction
from genba.store.home import Store
from genba.testing.graphs import small_batch, small_reference
from genba.testing.serving import (
    ENTITY_NAMES,
    place,
    serve_here,
    small_package,
    until,
)

LIMITS = Limits(poll_s=0.01, capture_s=0.05, sweep_s=0.02)
FEW = small_batch(3)


@pytest.fixture
def store(home: Path) -> Store:
    return Store.open(home)


def ask(
    client: Client, method: str, path: str, body: bytes = b"", **fields: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=20)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in fields.items()})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, json.loads(data) if data else None


def connection_status(client: Client, method: str, path: str, **fields: str) -> int:
    """Ask for something that may answer with other than JSON."""
    connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=20)
    connection.request(method, path, b"", fields)
    status = connection.getresponse().status
    connection.close()
    return status


def test_addresses(home: Path, store: Store) -> None:
    package = small_package(store, "pump")
    place(store, "pump", "deploy", package)

    def script(client: Client) -> None:
        assert ask(client, "GET", "/v2")[1]["name"] == "genba"
        assert ask(client, "GET", "/v2/health/live") == (200, {"live": True})
        assert ask(client, "GET", "/v2/health/ready") == (200, {"ready": True})
        ready = {"name": "pump", "ready": True}
        assert ask(client, "GET", "/v2/models/pump/ready") == (200, ready)
        assert ask(client, "GET", f"/v2/models/pump/versions/{package}/ready") == (200, ready)
        assert ask(client, "HEAD", "/v2/health/live") == (200, None)
        model = client.metadata("pump")
        assert model["versions"] == [package]
        assert model["inputs"][0] == {
            "name": "window",
            "datatype": "FP32",
            "shape": [-1, 3, 4],
            "parameters": {"role": "feature"},
        }
        assert ask(client, "GET", f"/v2/models/pump/versions/{package}") == (200, model)
        assert ask(client, "GET", "/genba/v1/lines")[1] == [{"line": "pump", "ready": True}]
        assert client.line("pump")["stable"]["package"] == package
        assert client.ready()
        assert client.ready("pump")
        assert not client.ready("pumps")
        status, body = ask(client, "GET", "/v2/models/pumps")
        assert (status, body["code"]) == (404, "G703")
        assert "did you mean pump?" in body["error"]
        for path in ("/v3", "/v2/models", "/v2/models/pump/infer/x", "/v2/models/..%2f"):
            assert ask(client, "GET", path)[0] == 404
        assert ask(client, "GET", "/v2/models/pump/versions/zzz")[1]["code"] == "G703"
        assert ask(client, "DELETE", "/v2/models/pump")[0] == 405
        assert ask(client, "GET", "/v2/models/pump/infer")[0] == 405
        assert ask(client, "GET", "/v2", Host="evil.example")[0] == 403
        assert 'genba_model_loaded{line="pump"' in client.metrics()

    serve_here(home, script, limits=LIMITS)


def test_predictions_in_json_and_binary(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump"))
    expected = small_reference(FEW)

    def script(client: Client) -> None:
        answer = client.infer("pump", FEW, times=[1, 2, 3])
        for name, values in expected.items():
            np.testing.assert_allclose(answer.outputs[name], values, rtol=1e-5)
        assert answer.role == "stable"
        assert len(set(answer.predictions)) == 3
        again = client.infer("pump", FEW, version=answer.package)
        assert again.package == answer.package
        body = {
            "inputs": [
                {
                    "name": "window",
                    "datatype": "FP32",
                    "shape": [1, 3, 4],
                    "data": [None if v != v else v for v in FEW["window"][0].ravel().tolist()],
                },
                {"name": "entity", "datatype": "BYTES", "shape": [1], "data": ["R80721"]},
            ]
        }
        status, told = ask(client, "POST", "/v2/models/pump/infer", json.dumps(body).encode())
        assert status == 200
        assert [output["name"] for output in told["outputs"]] == ["score", "alarm", "expected"]
        named = client.infer("pump", {"window": FEW["window"][:1]}, entities=["R80721"])
        assert told["outputs"][0]["data"] == named.outputs["score"].tolist()
        with pytest.raises(Problem) as caught:
            client.infer("pump", {"windows": FEW["window"]})
        assert caught.value.code == "G704"
        until(lambda: find_prediction(store, answer.predictions[2]) is not None)
        found = find_prediction(store, answer.predictions[2])
        assert found is not None
        assert found[1]["time"] == 3
        assert found[1]["score"] == pytest.approx(float(expected["score"][2]), rel=1e-5)
        assert found[1]["entity"] == [*ENTITY_NAMES, None][FEW["entity"][2]]

    serve_here(home, script, limits=LIMITS)


def test_feedback(home: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    place(store, "pump", "deploy", small_package(store, "pump"))
    masks: list[str] = []

    def receive(_: Store, line: str, rows: list[dict[str, Any]], *, source: str) -> Any:
        match rows[0].get("value"):
            case "unknown":
                raise Problem("G810", "No such line.", tries=["x"])
            case "locked":
                raise Problem("G305", "The database is locked.", tries=["x"])
            case "mistake":
                raise ZeroDivisionError
        masks.extend(row["mask"] for row in rows if "mask" in row)
        return {"line": line, "accepted": len(rows), "source": source}

    monkeypatch.setattr(server, "receive", receive)

    def script(client: Client) -> None:
        told = client.feedback("pump", [{"value": "normal"}] * 2)
        assert told == {"line": "pump", "accepted": 2, "source": "api"}
        client.feedback("pump", [{"value": "x", "mask": "iVBORw=="}])
        assert masks == ["iVBORw=="]
        path = "/genba/v1/lines/pump/feedback"
        for body, status, code in [
            (b'[{"value": "unknown"}]', 400, "G810"),
            (b'[{"value": "locked"}]', 503, "G305"),
            (b'[{"value": "mistake"}]', 500, "G711"),
            (b"{}", 400, "G704"),
            (b"[1]", 400, "G704"),
            (b"[]", 400, "G704"),
            (b"", 400, "G704"),
            (b'[{"mask": 7}]', 400, "G731"),
            (b'[{"mask": "' + b"A" * 104 + b'"}]', 400, "G731"),
            (json.dumps([{}] * 6).encode(), 400, "G704"),
        ]:
            answer = ask(client, "POST", path, body)
            assert (answer[0], answer[1]["code"]) == (status, code)
        assert ask(client, "POST", "/genba/v1/lines/x/feedback", b"[{}]")[0] == 404

    serve_here(home, script, limits=replace(LIMITS, feedback_rows=5, mask_bytes=100))


def test_too_much_feedback_at_once(
    home: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(store, "pump", "deploy", small_package(store, "pump"))
    gate = threading.Event()
    monkeypatch.setattr(server, "receive", lambda *_, **__: gate.wait(10) and {})

    def script(client: Client) -> None:
        def send(_: int) -> int:
            return ask(client, "POST", "/genba/v1/lines/pump/feedback", b"[{}]")[0]

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(send, i) for i in range(4)]
            until(lambda: sum(future.done() for future in futures) == 2)
            gate.set()
            assert sorted(future.result() for future in futures) == [200, 200, 503, 503]

    serve_here(home, script, limits=replace(LIMITS, pipelined=2))


def test_a_mistake_of_ours_is_one_500(
    home: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(answers, "server_metadata", broken)

    def script(client: Client) -> None:
        status, body = ask(client, "GET", "/v2")
        assert (status, body["code"]) == (500, "G711")
        assert ask(client, "GET", "/v2/health/live")[0] == 200

    serve_here(home, script, limits=LIMITS)
    assert "ZeroDivisionError" in caplog.text


def test_a_key_is_asked_for_everywhere(home: Path, store: Store) -> None:
    place(store, "pump", "deploy", small_package(store, "pump"))

    def script(client: Client) -> None:
        paths = [
            (method.decode(), "/" + "/".join("pump" if part == "*" else part for part in r.pattern))
            for r in routes.ROUTES
            for method in r._handlers
        ]
        assert len(paths) > 20
        alive = {"/", "/talk", "/v2/health/live"}  # all that a stranger may ask
        for method, path in [*paths, ("GET", "/nothing"), ("OPTIONS", "/v2"), ("DELETE", "/v2")]:
            status = connection_status(client, method, path)
            assert (status == 401) is (path not in alive), f"{method} {path}"
            status = connection_status(client, method, path, Authorization="Bearer wrong")
            assert status in (401, 429)
        with Client(client.url, key="secret") as known:
            assert known.infer("pump", FEW).role == "stable"

    serve_here(home, script, limits=LIMITS, key="secret")


def test_ports_and_addresses(home: Path) -> None:
    def script(client: Client) -> None:
        port = int(client.url.rpartition(":")[2])
        with pytest.raises(Problem) as caught:
            serve(Settings(home=home, port=port))
        assert caught.value.code == "G701"
        assert f"--port {port + 1}" in caught.value.tries[0]
        assert client.ready() is False
        assert ask(client, "GET", "/v2/health/live")[0] == 200

    serve_here(home, script, limits=LIMITS)
    with pytest.raises(Problem) as caught:
        serve(Settings(home=home, host="0.0.0.0"))
    assert caught.value.code == "G702"


def test_a_grpc_port_that_is_taken_leaves_nothing_behind(home: Path) -> None:
    before = set(threading.enumerate())  # another test may still be closing its own
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Problem) as caught:
        serve(Settings(home=home, port=0, grpc_port=taken.getsockname()[1]))
    assert caught.value.code == "G701"
    assert "gRPC" in caught.value.what
    left = set(threading.enumerate()) - before
    assert not [t.name for t in left if t.name.startswith("genba")]


def test_the_client_says_when_nobody_is_there() -> None:
    with Client("127.0.0.1:9") as client:
        with pytest.raises(Problem) as caught:
            client.infer("pump", FEW)
        assert caught.value.code == "G712"
        assert not client.ready()
    for url in ("ftp://127.0.0.1", "", "http://"):
        with pytest.raises(Problem) as caught:
            Client(url)
        assert caught.value.code == "G103"


def test_the_command_says_why_it_does_not_start(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("", "secret"):
        monkeypatch.setenv("GENBA_SERVE_KEY", key)
        assert main(["--home", str(home), "--host", "0.0.0.0"]) == 3
        problem = json.loads(capsys.readouterr().err)["problem"]
        assert problem["code"] == "G702"
        assert ("a key" in problem["what"]) is not bool(key)


def test_the_command_announces_its_port_and_ends_well(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_when_announced() -> None:
        until(is_announced)
        os.kill(os.getpid(), signal.SIGTERM)

    def is_announced() -> bool:
        announced.append(capsys.readouterr().out)
        return "ready" in "".join(announced)

    announced: list[str] = []
    thread = threading.Thread(target=stop_when_announced)
    thread.start()
    assert main(["--home", str(home), "--port", "0"]) == 0
    thread.join()
    assert json.loads("".join(announced))["port"] > 0
