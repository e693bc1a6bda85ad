"""Packages of language models for tests: of the speller, or of any engine and model."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from genba.catalog import GUESSED_TASKS
from genba.core.digest import canonical_json
from genba.core.values import EngineChoice, Manifest, PackageFile, Signature, Tensor, Verdict
from genba.edge.package import FORMAT, TALK_FILE, encode_manifest
from genba.store.home import Store
from genba.store.signatures import sign_package
from genba.testing.speller import Script, Speller

TASK: Final = GUESSED_TASKS["conversations"]
SIGNATURE: Final = Signature(
    inputs=(
        Tensor(name="messages", datatype="BYTES", shape=(-1,), role="text"),
        Tensor(name="given", datatype="BYTES", shape=(-1,), role="given"),
        Tensor(name="max_tokens", datatype="FP32", shape=(-1,), role="parameter", default=128),
        Tensor(name="temperature", datatype="FP32", shape=(-1,), role="parameter", default=0),
        Tensor(name="top_p", datatype="FP32", shape=(-1,), role="parameter", default=1),
    ),
    outputs=(
        Tensor(name="answer", datatype="BYTES", shape=(-1,), role="text"),
        Tensor(name="log_probability", datatype="FP32", shape=(-1,), role="confidence"),
        Tensor(name="tokens", datatype="INT32", shape=(-1, 2), role="count"),
        Tensor(name="by", datatype="BYTES", shape=(-1,), role="origin"),
        Tensor(name="sources", datatype="BYTES", shape=(-1,), role="origin"),
    ),
)
_SAYS: Final = Script()  # what it is asked
_BARE: Final = 3  # outputs of an engine alone


def talk_package(
    store: Store,
    line: str,
    script: Script | bytes = _SAYS,
    *,
    engine: EngineChoice | None = None,
    files: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> str:
    """Put the package of a language model into a store and return its id.

    Args:
        store: Where to.
        line: Name of the line.
        script: What the speller says; or a model for another engine.
        engine: Which one, if not the speller.
        files: More files of the package; with `assistant.json` it tells where answers come from.
        changes: Fields of the manifest that shall be different.
    """
    model = script if isinstance(script, bytes) else canonical_json(asdict(script))
    blobs = {TALK_FILE: model, **(files or {})}
    outputs = SIGNATURE.outputs if "assistant.json" in blobs else SIGNATURE.outputs[:_BARE]
    fields: dict[str, Any] = {
        "format": FORMAT,
        "line": line,
        "task": TASK,
        "model": "model-0",
        "run": "run-0",
        "dataset": "dataset-0",
        "engine": engine or EngineChoice(name=Speller.name),
        "signature": Signature(inputs=SIGNATURE.inputs, outputs=outputs),
        "settings": {},
        "entities": (),
        "files": {
            name: PackageFile(digest=store.blobs.put(data), size=len(data))
            for name, data in blobs.items()
        },
        "verdict": Verdict(passed=True),
    }
    manifest = Manifest(**{**fields, **changes})
    package = store.blobs.put(encode_manifest(manifest))
    store.ledger.record("package", package, {"task": TASK}, line=line)
    sign_package(store, line, package)
    return package
