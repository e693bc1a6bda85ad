"""A real server in a process of its own, under load, while its packages change."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genba.core.codec import encode
from genba.core.digest import digest_json
from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.store.captures import find_prediction
from genba.store.home import Store
from genba.testing.graphs import small_batch, small_reference
from genba.testing.serving import RunningServer, place, running_server, small_package, until

LINE = "pump"
BATCH = small_batch(2)


@pytest.fixture
def store(home: Path) -> Store:
    return Store.open(home)


@pytest.fixture
def served(home: Path, store: Store) -> Iterator[RunningServer]:
    place(store, LINE, "deploy", small_package(store, LINE))
    with running_server(home) as running:
        yield running
        assert running.stop() == 0


def stable(served: RunningServer) -> str | None:
    with served.client() as client:
        placed = client.line(LINE)["stable"]
        return placed and str(placed["package"])


class Load:
    """Clients that never stop asking, and check each answer against the package that gave it."""

    def __init__(self, served: RunningServer, seeds: dict[str, int], clients: int = 3) -> None:
        self.answered: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.failures: list[Exception | str] = []
        self._served = served
        self._seeds = seeds
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n + 1,)) for n in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, rows: int) -> None:
        batch = small_batch(rows, seed=rows)  # no two clients send the same
        with self._served.client() as client:
            while not self._stop.is_set():
                try:
                    answer = client.infer(LINE, batch)
                except Problem as problem:
                    self.failures.append(problem)
                    return
                expected = small_reference(batch, self._seeds[answer.package])["score"]
                if not np.allclose(answer.outputs["score"], expected, rtol=1e-4):
                    self.failures.append(f"the answer is not that of {answer.package}")
                self.answered[answer.package] += 1
                self.rows[answer.package] += rows


def test_packages_change_under_load_and_no_request_is_dropped(
    served: RunningServer, store: Store
) -> None:
    first = stable(served)
    assert first is not None
    seeds = {first: 0}
    with Load(served, seeds) as load:
        for seed in (1, 2, 3):
            package = small_package(store, LINE, seed=seed)
            seeds[package] = seed
            place(store, LINE, "canary", package, share=0.3)
            until(lambda p=package: load.answered[p] > 50)  # type: ignore[misc]  # a default binds the loop variable
            place(store, LINE, "promote", package)
            until(lambda p=package: stable(served) == p)  # type: ignore[misc]  # a default binds the loop variable
            if seed == 2:
                place(store, LINE, "roll_back", package)
                until(lambda p=package: stable(served) != p)  # type: ignore[misc]  # a default binds the loop variable
        until(lambda: sum(load.answered.values()) > 2_000)
    assert load.failures == []
    assert len(load.answered) == 4

    def captured() -> int:
        return sum(record.body["rows"] for record in store.ledger.find("capture"))

    until(lambda: captured() == load.rows.total())
    summaries = [r.body["packages"] for r in store.ledger.find("capture")]
    assert all(s["errors"] == 0 for packages in summaries for s in packages.values())
    counted = Counter[str]()
    for packages in summaries:
        counted.update({package: summary["n"] for package, summary in packages.items()})
    assert counted == load.rows


def test_a_canary_gets_its_share(served: RunningServer, store: Store) -> None:
    package = small_package(store, LINE, seed=1)
    place(store, LINE, "canary", package, share=0.1)
    n = 2_000
    with served.client() as client:
        until(lambda: client.line(LINE)["canary"] is not None)
        roles = Counter(client.infer(LINE, BATCH).role for _ in range(n))
    assert roles.total() == n
    assert abs(roles["canary"] - 0.1 * n) < 4 * (n * 0.1 * 0.9) ** 0.5


def test_a_second_server_on_the_port_harms_nothing(served: RunningServer, home: Path) -> None:
    command = [sys.executable, "-m", "genba.serve", "--home", str(home), "--port", str(served.port)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 3
    problem = json.loads(second.stderr.splitlines()[-1])["problem"]
    assert problem["code"] == "G701"
    assert problem["try"][0] == f"genba up --port {served.port + 1}"
    assert second.stdout == ""
    with served.client() as client:
        assert client.infer(LINE, BATCH).role == "stable"


def test_feedback_reaches_the_prediction_it_is_about(served: RunningServer, store: Store) -> None:
    line = Line(name=LINE, task="sensor.anomaly", data=Data(source="files:pump.csv"))
    store.ledger.record("line", digest_json(encode(line)), encode(line), line=LINE)
    with served.client() as client:
        (prediction, _) = client.infer(LINE, BATCH).predictions
        until(lambda: find_prediction(store, prediction) is not None)
        rows = [
            {"prediction": prediction, "kind": "label", "value": "anomaly", "author": "mori"},
            {"prediction": "server-0-0", "kind": "label", "value": "normal", "author": "mori"},
        ]
        report = client.feedback(LINE, rows)
        assert (report["accepted"], report["unknown"]) == (1, 1)
        with pytest.raises(Problem) as caught:
            client.feedback("pumps", rows)
        assert caught.value.code == "G703"
    (row,) = store.feedback.by_prediction(prediction)
    assert (row.value, row.status) == ("anomaly", "accepted")


def test_captures_survive_a_kill(home: Path, store: Store) -> None:
    place(store, LINE, "deploy", small_package(store, LINE))
    with running_server(home) as served:
        with served.client() as client:
            answers = [client.infer(LINE, BATCH) for _ in range(50)]
        last = answers[-1].predictions[-1]
        until(lambda: find_prediction(store, last) is not None)
        served.process.send_signal(signal.SIGKILL)
        assert served.process.wait(30) == -signal.SIGKILL
    with Store.open(home) as again:
        assert again.ledger.verify().ok
        for answer in answers:
            for row, id in enumerate(answer.predictions):
                found = find_prediction(again, id)
                assert found is not None
                assert found[1]["score"] == pytest.approx(float(answer.outputs["score"][row]))
    with running_server(home) as served, served.client() as client:
        other = client.infer(LINE, BATCH)
        assert other.predictions[0] not in {i for a in answers for i in a.predictions}


HOSTILE = [
    b"",
    b"\r\n\r\n",
    b"\x00" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v2/models/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v2/models/" + b"\xff" * 50 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{}",
    b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\n"
    b"Inference-Header-Content-Length: 0\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\n"
    b"Inference-Header-Content-Length: 99999999999999999999\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
]


def raw(port: int, data: bytes) -> bytes:
    """Send bytes, say that this was all, and return what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        received = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before everything was sent
        return received


def test_hostile_bytes_are_refused_and_change_nothing(served: RunningServer) -> None:
    for data in HOSTILE:
        answer = raw(served.port, data)
        assert not answer or answer.startswith(b"HTTP/1.1 4"), data[:60]
    with served.client() as client:
        assert client.infer(LINE, BATCH).role == "stable"
        assert 'code="5' not in client.metrics()


def test_a_client_that_trickles_does_not_hold_up_others(served: RunningServer) -> None:
    slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: local")
        with served.client() as client:
            for _ in range(100):
                assert client.infer(LINE, BATCH).role == "stable"
    finally:
        for connection in slow:
            connection.close()
