"""`genba up --on ray`: a replica passes bytes on, and two nodes of a real cluster answer as one."""

import asyncio
import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.problem import Problem
from genba.serve.client import decode_answer, encode_request
from genba.serve.process.fleet import Fleet
from genba.serve.ray.forward import Forwarder
from genba.serve.ray.replica import Replica
from genba.serve.settings import Settings
from genba.store.home import Store
from genba.testing.graphs import LAGS, SENSORS
from genba.testing.serving import place, small_package
from genba.ui.cli.up_on import fleet_on

ROOT = Path(__file__).parents[2]
PEERS = (ROOT / "benchmarks" / ".peers", Path("/tmp/peers"))  # environments of their own
RAY = next((p for f in PEERS if (p := f / "ray" / "bin" / "python").exists()), None)
LENGTH = b"inference-header-content-length"


class Asked:
    """A request as Starlette hands it over."""

    def __init__(self, method: str, path: str, body: bytes = b"", **fields: str) -> None:
        self.scope = {
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [
                (b"host", b"127.0.0.1"),
                (b"connection", b"keep-alive"),
                *((n.replace("_", "-").encode(), v.encode()) for n, v in fields.items()),
            ],
        }
        self._body = body

    async def body(self) -> bytes:
        return self._body


@pytest.mark.slow
def test_a_replica_is_the_server_itself(home: Path) -> None:
    with Store.open(home) as store:
        package = small_package(store, "pump")
        place(store, "pump", "deploy", package)
    replica = Replica(str(home), 1, lambda **answer: answer, behind_proxy=False)
    window = np.ones((2, LAGS, SENSORS), dtype=np.float32)
    body, length = encode_request({"window": window})

    async def story() -> list[Any]:
        fields = {"inference_header_content_length": str(length)}
        answers = [
            await replica(Asked("POST", "/v2/models/pump/infer", body, **fields)),
            await replica(Asked("GET", "/v2/models/nothing")),
            await replica(Asked("HEAD", "/v2/health/ready")),
        ]
        replica.check_health()
        replica._worker.stop()
        return [*answers, await replica(Asked("GET", "/v2"))]

    answered, unknown, head, gone = asyncio.run(story())
    assert answered["status_code"] == 200
    assert answered["headers"]["content-type"] == "application/octet-stream"
    made = decode_answer(answered["content"], int(answered["headers"][LENGTH.decode()]))
    assert made.package == package
    assert made.outputs["score"].shape == (2,)
    assert made.predictions[0].startswith(replica.server)
    assert (unknown["status_code"], json.loads(unknown["content"])["code"]) == (404, "G703")
    assert (head["status_code"], head["content"]) == (200, b"")
    assert (gone["status_code"], json.loads(gone["content"])["code"]) == (503, "G712")
    with pytest.raises(RuntimeError, match="has ended"):
        replica.check_health()


class Peer(BaseHTTPRequestHandler):
    """Answers in pieces, and closes connections when asked to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        if self.path == "/last":
            self.send_header("Connection", "close")
        self.end_headers()
        for piece in (b"one", b"and two"):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")
        if self.path == "/vanish":
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_bytes_go_there_and_back() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Peer) as peer:
        thread = threading.Thread(target=peer.serve_forever)
        thread.start()

        async def story() -> list[Any]:
            forwarder = Forwarder(peer.server_address[1])
            asked = [await forwarder.ask(b"GET", path, (), b"") for path in (b"/a", b"/last")]
            asked.append(await forwarder.ask(b"GET", b"/vanish", ((b"TE", b"x"),), b""))
            await asyncio.sleep(0.05)  # the connection is closed behind our back
            asked.append(await forwarder.ask(b"GET", b"/again", (), b""))
            forwarder.close()
            await asyncio.sleep(0.01)
            return asked

        replies = asyncio.run(story())
        peer.shutdown()
        thread.join()
    assert {(reply.status, reply.body) for reply in replies} == {(200, b"oneand two")}
    assert all(b"transfer-encoding" not in dict(reply.fields) for reply in replies)


def test_where_genba_up_answers(home: Path) -> None:
    settings = Settings(home=home)
    assert type(fleet_on("", settings, "2")) is Fleet
    with pytest.raises(Problem, match="no cluster 'slurm'"):
        fleet_on("slurm:head", settings, "2")
    with pytest.raises(Problem, match="yours to say"):
        fleet_on("ray", settings, "auto")


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(400)
@pytest.mark.skipif(RAY is None, reason="Ray has an environment of its own: none here")
def test_two_nodes_answer_as_one(home: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [str(RAY), "-m", "tests.e2e.ray_story", str(home)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["nodes"], told["equal"], told["metadata"]) == (2, 20, True)
    assert told["swap"]["failed"] == []
    assert len(told["swap"]["answered"]) == 2
    assert told["kill"] == {"before": 2, "servers": told["kill"]["servers"], "fine_after": 50}
    assert told["kill"]["servers"] >= 2
    assert told["captured"] > 0
