"""A server in a process of its own with small generated packages, for tests and drills."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper

from genba.catalog import GUESSED_TASKS
from genba.core.values import (
    EngineChoice,
    Manifest,
    PackageFile,
    Signature,
    Tensor,
    Verdict,
)
from genba.edge.package import FORMAT, MODEL_FILE, encode_manifest
from genba.serve.client import Client
from genba.serve.limits import Limits
from genba.serve.server import serve
from genba.serve.settings import Settings
from genba.store.home import Store
from genba.store.signatures import sign_package
from genba.testing.graphs import LAGS, SENSORS, clock_graph, image_graph, small_graph

ENTITY_NAMES: Final = ("R80711", "R80721")
ENGINE: Final = EngineChoice(name="onnxruntime", settings={"precision": "float32"})
SIGNATURE: Final = Signature(
    inputs=(
        Tensor(name="window", datatype="FP32", shape=(-1, LAGS, SENSORS)),
        Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
    ),
    outputs=(
        Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),
        Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
        Tensor(name="expected", datatype="FP32", shape=(-1, 1), role="expected"),
    ),
)
CLASSES: Final = ("red", "green", "blue")
IMAGE_SIZE: Final = 16
_STOP_S: Final = 30.0
_PATIENCE_S: Final = 30.0


def small_package(
    store: Store,
    line: str,
    *,
    seed: int = 0,
    graph: bytes | None = None,
    **changes: Any,
) -> str:
    """Put a package with a generated graph into a store and return its id.

    Args:
        store: Where to.
        line: Name of the line.
        seed: Of the generated numbers.
        graph: ONNX instead of the generated graph.
        changes: Fields of the manifest that shall be different, such as `engine`.
    """
    data = small_graph(seed) if graph is None else graph
    digest = store.blobs.put(data)
    manifest = Manifest(
        format=FORMAT,
        line=line,
        task=GUESSED_TASKS["table"],
        model=f"model-{seed}",
        run="run-0",
        dataset="dataset-0",
        engine=ENGINE,
        signature=SIGNATURE,
        settings={},
        entities=ENTITY_NAMES,
        files={MODEL_FILE: PackageFile(digest=digest, size=len(data))},
        verdict=Verdict(passed=True),
    )
    encoded = encode_manifest(replace(manifest, **changes))
    package = store.blobs.put(encoded)
    store.ledger.record("package", package, json.loads(encoded), line=line)
    sign_package(store, line, package)
    return package


def image_signature(size: int = IMAGE_SIZE, bar: float = 0.5) -> Signature:
    """Return the signature of `image_graph`."""
    return Signature(
        inputs=(
            Tensor(name="image", datatype="UINT8", shape=(-1, size, size, 3), role="image"),
            Tensor(name="bar", datatype="FP32", shape=(-1,), role="parameter", default=bar),
        ),
        outputs=(
            Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),
            Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
            Tensor(name="class", datatype="INT64", shape=(-1,), role="class"),
            Tensor(name="probability", datatype="FP32", shape=(-1, 3), role="probability"),
            Tensor(name="look", datatype="FP32", shape=(-1, 3), role="look"),
            Tensor(name="map", datatype="FP32", shape=(-1, size, size), role="map"),
            Tensor(name="mask", datatype="BOOL", shape=(-1, size, size), role="mask"),
        ),
    )


def image_package(
    store: Store, line: str, *, size: int = IMAGE_SIZE, bar: float = 0.5, **changes: Any
) -> str:
    """Put a package that takes images into a store and return its id.

    Args:
        store: Where to.
        line: Name of the line.
        size: Working size in pixels.
        bar: Default of its parameter.
        changes: Fields of the manifest that shall be different.
    """
    fields: dict[str, Any] = {
        "task": GUESSED_TASKS["good parts"],
        "signature": image_signature(size, bar),
        "settings": {"size": size},
        "entities": (),
        "classes": CLASSES,
    }
    return small_package(store, line, graph=image_graph(size), **{**fields, **changes})


def clock_package(store: Store, line: str) -> str:
    """Put a package whose graph asks for the time into a store and return its id."""
    signature = Signature(
        inputs=(
            Tensor(name="recent", datatype="FP32", shape=(-1, LAGS, 1)),
            Tensor(name="time", datatype="INT64", shape=(-1,), role="time"),
        ),
        outputs=(Tensor(name="expected", datatype="FP32", shape=(-1, 2, 1), role="expected"),),
    )
    return small_package(store, line, graph=clock_graph(), signature=signature, entities=())


def place(store: Store, line: str, action: str, package: str, share: float = 0.0) -> None:
    """Append a deployment to the ledger, without the guard that a real one passes."""
    body: dict[str, Any] = {"action": action, "package": package}
    if action == "canary":
        body["share"] = share
    store.ledger.append("deploy", body, line=line, subject=package)


class RunningServer:
    """A server that was started for a test."""

    def __init__(self, process: "subprocess.Popen[str]", ready: Mapping[str, Any]) -> None:
        self.process = process
        self.port = int(ready["port"])
        self.grpc_port = int(ready.get("grpc_port") or 0)
        self.server = str(ready["server"])
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self, **more: Any) -> Client:
        """Return a new client."""
        return Client(self.url, **more)

    def stop(self) -> int:
        """Ask the server to stop as an operator would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_S)


@contextmanager
def running_server(
    home: Path,
    *more: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = ("-m", "genba.serve"),
) -> Iterator[RunningServer]:
    """Start a server on a free port and stop it at the end of the block.

    Args:
        home: The store it serves from.
        more: More arguments.
        environment: More environment variables.
        command: What Python runs.
    """
    process = subprocess.Popen(  # noqa: S603  # this Python and nothing of a user's
        [sys.executable, *command, "--home", str(home), "--port", "0", *more],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with exit code {process.wait(_STOP_S)}")
        yield RunningServer(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(_STOP_S)
        process.stdout.close()


def serve_here(home: Path, script: Callable[[Client], None], **settings: Any) -> None:
    """Serve in the main thread, where signals arrive, while a script runs beside it.

    Args:
        home: The store to serve from.
        script: Gets a client; the server is stopped when it returns.
        settings: Of the server, except home and port. Packages are not tried in a process of
            their own first, and nobody watches for a hang, unless `guarded` is true.
    """
    limits = settings.pop("limits", Limits())
    if not settings.pop("guarded", False):
        limits = replace(limits, trial_s=0.0, hang_s=0.0)
    errors: list[BaseException] = []
    threads: list[threading.Thread] = []

    def run(port: int) -> None:
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                script(client)
        except BaseException as error:  # noqa: BLE001  # raised again in the main thread
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def announce(ready: Mapping[str, Any]) -> None:
        threads.append(threading.Thread(target=run, args=(ready["port"],)))
        threads[0].start()

    serve(Settings(home=home, port=0, limits=limits, **settings), announce)
    threads[0].join()
    for error in errors:
        raise error


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: If it does not hold in time.
    """
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.005)


def faulty_engine(**settings: Any) -> EngineChoice:
    """Return the choice of an engine that misbehaves; see `genba.testing.faults`."""
    real = {"engine": ENGINE.name, "settings": dict(ENGINE.settings)}
    return EngineChoice(name="faulty", settings={**real, **settings})


def trap_graph() -> bytes:
    """Return the small graph with an index taken from the window: large values make it fail."""
    model = onnx.load_from_string(small_graph())
    nodes = [node for node in model.graph.node if node.op_type not in ("Mod", "Add")]
    index = [
        helper.make_node("Flatten", ["filled"], ["flat_window"]),
        helper.make_node("ReduceMax", ["flat_window", "axis"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["as_index"], to=TensorProto.INT64),
        helper.make_node("Mul", ["entity", "zero"], ["no_entity"]),
        helper.make_node("Div", ["as_index", "ten"], ["tenth"]),
        helper.make_node("Add", ["tenth", "no_entity"], ["index"]),
    ]
    for name, value in (("zero", 0), ("ten", 10)):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [], [value]))
    at = next(i for i, node in enumerate(nodes) if node.op_type == "Gather")
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:at], *index, *nodes[at:]])
    data: bytes = model.SerializeToString()
    return data
