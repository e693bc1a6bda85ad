"""A home as a user has one: lines in production, each with a signed package, served from there."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.serve import models
from benchmarks.serve.asks import Maker, oip_binary, oip_json
from benchmarks.serve.processes import Launched
from genba.catalog import GUESSED_TASKS
from genba.core.codec import encode
from genba.core.values import EngineChoice, Manifest, PackageFile, Signature, Tensor, Verdict
from genba.edge.package import FORMAT, MODEL_FILE, encode_manifest
from genba.edge.signature import sign
from genba.store.home import Store
from genba.store.signing import Signer

MAKERS: Final[Mapping[str, Maker]] = {"json": oip_json, "binary": oip_binary}
_ROOT: Final = Path(__file__).parents[2]
_SIZE: Final = 224


def signature(name: str) -> Signature:
    """Return what a model takes and gives, in the words of a package."""
    feature = Tensor(name="x", datatype="FP32", shape=(-1, *models.SHAPES[name]))
    return Signature(
        inputs=(feature,),
        outputs=(
            Tensor(name="y", datatype="FP32", shape=(-1, models.OUTPUTS[name]), role="expected"),
        ),
    )


def package(
    store: Store, line: str, graph: bytes, shape: Signature, engine: EngineChoice, **more: Any
) -> str:
    """Put a signed package into a store, as the last stage of a run does, and return its id.

    Args:
        store: Where to.
        line: Name of the line.
        graph: ONNX.
        shape: What it takes and gives.
        engine: What runs it.
        more: Other fields of the manifest.
    """
    digest = store.blobs.put(graph)
    fields: dict[str, Any] = {"task": GUESSED_TASKS["table"], "entities": (), "settings": {}}
    manifest = Manifest(
        format=FORMAT,
        line=line,
        model=f"model-{digest[:12]}",
        run="run-0",
        dataset="dataset-0",
        engine=engine,
        signature=shape,
        files={MODEL_FILE: PackageFile(digest=digest, size=len(graph))},
        verdict=Verdict(passed=True),
        **{**fields, **more},
    )
    made = store.blobs.put(encode_manifest(manifest))
    store.ledger.record("package", made, encode(manifest), line=line)
    signer = Signer(store.path)
    signed = sign(made, signer.public_key, signer.sign)
    key = f"signed:{made}:{signer.public_key}"
    store.ledger.append("package.signed", encode(signed), line=line, subject=made, key=key)
    return made


def act(store: Store, line: str, action: str, package_id: str, **more: Any) -> None:
    """Change what a line has in production; there is no other way than this event."""
    body = {"action": action, "package": package_id, **more}
    store.ledger.append("deploy", body, line=line, subject=package_id)


def engine(name: str, cores: int) -> EngineChoice:
    """Return what the peers have too: ONNX Runtime, float32, every core for images."""
    threads = 1 if name == "tab" else cores
    return EngineChoice(name="onnxruntime", settings={"precision": "float32", "threads": threads})


def make(folder: Path, cores: int, names: tuple[str, ...] = models.NAMES) -> None:
    """Make a home in which each model is a line of its own."""
    with Store.open(folder) as store:
        for name in names:
            made = package(store, name, models.graph(name), signature(name), engine(name, cores))
            act(store, name, "deploy", made)


def make_many(folder: Path, count: int) -> None:
    """Make a home with so many lines `tab0`, `tab1`, ..., each with weights of its own."""
    with Store.open(folder) as store:
        for number in range(count):
            line = f"tab{number}"
            made = package(
                store, line, models.graph("tab", 100 + number), signature("tab"), engine("tab", 1)
            )
            act(store, line, "deploy", made)


def launch(folder: Path, port: int, *more: str) -> Launched:
    """Start the server of a home, as `genba up` does."""
    command = [sys.executable, "-m", "genba.serve", "--home", str(folder), "--port", str(port)]
    return Launched([*command, *more], {"PYTHONPATH": str(_ROOT)}, folder)
