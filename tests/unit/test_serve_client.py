"""The client against servers that are not what it expects, and packages with recorded samples."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.values import PackageFile, Signature, Tensor
from genba.edge.package import MODEL_FILE, SAMPLE_FILE
from genba.serve.client import Client, encode_request
from genba.serve.lanes.models import LoadedModel, load_model, zeros
from genba.serve.limits import Limits
from genba.serve.oip.schema import Schema
from genba.store.home import Store
from genba.testing.graphs import small_batch, small_graph, small_reference
from genba.testing.serving import faulty_engine, place, serve_here, small_package

LIVE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def scripted(answers: Sequence[Sequence[bytes]]) -> Iterator[str]:
    """Accept one connection per entry, and answer each request with its next bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for connection_answers in answers:
                connection, _ = listener.accept()
                with connection:
                    for answer in connection_answers:
                        connection.recv(65_536)
                        connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_connection_that_was_closed_while_idle_is_opened_again() -> None:
    with scripted([[LIVE], [LIVE]]) as url, Client(url) as client:
        assert client.line("pump") == {}
        assert client.line("pump") == {}


def test_the_server_ends_the_connection_after_an_answer() -> None:
    closing = LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with scripted([[closing], [closing]]) as url, Client(url) as client:
        assert client.ready()
        assert client.ready()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_something_else_has_the_port(answer: bytes) -> None:
    with scripted([[answer]]) as url, Client(url) as client:
        with pytest.raises(Problem) as caught:
            client.line("pump")
        assert caught.value.code == "G712"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"outputs": [], "parameters": {}}', b"[1]"])
def test_an_answer_that_is_none(body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with scripted([[answer]]) as url, Client(url) as client:
        with pytest.raises(Problem) as caught:
            client.infer("pump", small_batch(1))
        assert caught.value.code == "G712"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"detail": "x"}'])
def test_a_refusal_without_a_reason(body: bytes) -> None:
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with scripted([[answer]]) as url, Client(url) as client:
        with pytest.raises(Problem) as caught:
            client.line("pump")
        assert caught.value.code == "G712"
        assert "502" in caught.value.what


def test_requests_that_come_together_get_their_own_answers(home: Path) -> None:
    with Store.open(home) as store:
        place(store, "pump", "deploy", small_package(store, "pump"))
    batches = [small_batch(rows, seed=rows) for rows in (1, 3, 2, 5)]
    requests = b""
    for batch in batches:
        body, length = encode_request(batch)
        requests += (
            b"POST /v2/models/pump/infer HTTP/1.1\r\nHost: localhost\r\n"
            b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%b"
        ) % (length, len(body), body)

    def script(client: Client) -> None:
        client._socket = socket.create_connection(client._address)
        client._socket.sendall(requests)
        with client._socket.makefile("rb") as answers:
            for batch in batches:
                length = 0
                head = 0
                while (line := answers.readline()) != b"\r\n":
                    name, _, value = line.lower().partition(b": ")
                    length = int(value) if name == b"content-length" else length
                    head = int(value) if name == b"inference-header-content-length" else head
                data = answers.read(length)
                score = np.frombuffer(data, np.float32, len(batch["entity"]), head)
                np.testing.assert_allclose(score, small_reference(batch)["score"], rtol=1e-4)
        assert "genba_inference_batch_size_sum" in client.metrics()
        text = client.metrics()
        assert 'genba_inference_batch_size_bucket{le="4",' in text

    serve_here(home, script)


def sample(batch: dict[str, Array], shift: float) -> bytes:
    answers = {k: v.astype(np.float32) for k, v in small_reference(batch).items() if k != "alarm"}
    answers["score"] = answers["score"] + np.float32(shift)
    given = {f"input.{name}": value for name, value in batch.items()}
    made = {f"output.{name}": value for name, value in answers.items()}
    data: bytes = save({**given, **made})
    return data


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_a_package_first_repeats_what_it_answered_where_it_was_made(
    home: Path, shift: float
) -> None:
    with Store.open(home) as store:
        files = {}
        for name, data in (
            (MODEL_FILE, small_graph()),
            (SAMPLE_FILE, sample(small_batch(4), shift)),
        ):
            files[name] = PackageFile(digest=store.blobs.put(data), size=len(data))
        package = small_package(store, "pump", files=files)
        if not shift:
            model = load_model(package, store.blobs.read, Limits())
            assert model.seconds > 0
            assert model.batch_seconds > 0
            model.close()
            return
        with pytest.raises(Problem) as caught:
            load_model(package, store.blobs.read, Limits())
        assert caught.value.code == "G609"


def test_an_engine_that_raises_something_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> object:
        raise MemoryError("out of memory")

    monkeypatch.setattr(LoadedModel, "run", run)
    with Store.open(home) as store:
        package = small_package(store, "pump", engine=faulty_engine())
        with pytest.raises(Problem) as caught:
            load_model(package, store.blobs.read, Limits())
    assert caught.value.code == "G707"
    assert "out of memory" in caught.value.what


def test_zeros_of_every_kind() -> None:
    class Model:
        class manifest:
            signature = Signature(
                inputs=(
                    Tensor(name="x", datatype="FP16", shape=(-1, -1, 2)),
                    Tensor(name="text", datatype="BYTES", shape=(-1,)),
                ),
                outputs=(),
            )

    made = zeros(Model, 3)  # type: ignore[arg-type]  # only its signature is looked at
    assert made["x"].shape == (3, 1, 2)
    assert made["x"].dtype == np.dtype(np.float16)
    assert made["text"].tolist() == [b""] * 3
    assert Schema(Model.manifest.signature, ()).entity is None
