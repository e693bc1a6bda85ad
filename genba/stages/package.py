"""Make what is deployed: the graph, how to run it, what it was judged by, and a self-test.

The manifest names every file by digest and the package is named by the digest of the manifest, so
a package cannot change: a new model, engine or threshold is a new package.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save

from genba.core import io
from genba.core.codec import decode, encode
from genba.core.digest import canonical_json
from genba.core.protocols import Engine, View
from genba.core.resolve import resolve
from genba.core.task import Model, Task
from genba.core.values import EngineChoice, Manifest, PackageFile, Verdict
from genba.data.view import DatasetView
from genba.edge.package import (
    CARD_FILE,
    CASES_FILE,
    GGUF,
    MANIFEST_FILE,
    MODEL_FILE,
    SAMPLE_FILE,
    SIGNATURE_FILE,
    TALK_FILE,
    LoadedPackage,
    encode_manifest,
    load,
)
from genba.edge.predict import open_engine
from genba.edge.signature import encode_signature
from genba.edge.texts import pack
from genba.learn.models import load_model
from genba.runs.stage import StageContext
from genba.stages import documents
from genba.stages.card import model_card
from genba.stages.draft import drafted, files_around
from genba.stages.hindsight import looks_back
from genba.stages.samples import affordable, by_label, chosen, spread
from genba.store.home import Store
from genba.store.signatures import find_signature, sign_package

_GOLDEN_ROWS: Final = 8
_GOLDEN_BYTES: Final = 1 << 20  # fewer samples where they are images
_CASES: Final = 2_000
_CASES_BYTES: Final = 64 << 20  # that are predicted on: some four hundred images


def package(context: StageContext) -> dict[str, Any]:
    """Make the package, record it with what it was made from, sign it, and read it back.

    Returns:
        `package`, its id; `manifest`, the blob that holds it (the same digest); `files` and their
        sizes in bytes.
    """
    line, store, inputs = context.line, context.store, context.inputs
    task: Task = resolve("task", line.task)()
    # With the threshold fitted to the chosen form of the graph, where that is not as trained.
    model = load_model(store, inputs["optimize"].get("model") or inputs["train"])
    view = DatasetView.open(store, str(inputs["prepare"]["dataset"]), line)
    choice = EngineChoice(**inputs["optimize"]["engine"])
    signature = task.signature(model.settings)
    graph = store.blobs.read(inputs["optimize"]["onnx"])
    files = {
        **files_around(context, task, model),
        TALK_FILE if graph.startswith(GGUF) else MODEL_FILE: graph,
        CARD_FILE: canonical_json(model_card(context, model, signature, choice)),
    }
    draft = drafted(context, task, model, view, choice)
    # Opened as a server will open it: with everything around the graph that is in the package.
    engine = open_engine(LoadedPackage(id="", manifest=draft, files=files))
    try:
        context.progress.step("recording what watching compares with")
        drift = task.drift_reference(engine.run, view, model.settings)
        files[SAMPLE_FILE] = _golden(task, engine, view, model)
        context.progress.step("keeping known cases for explanations")
        files[CASES_FILE] = _cases(task, engine, view, model)
    finally:
        engine.close()
    manifest = replace(
        draft,
        verdict=decode(Verdict, inputs["optimize"]["verdict"]),
        settings={**draft.settings, "drift": {**drift, "hindsight": looks_back(task)}},
        files={n: PackageFile(digest=store.blobs.put(f), size=len(f)) for n, f in files.items()},
    )
    made = record_package(store, manifest, documents.made_of(store, line.name, files))
    return {
        "package": made.id,
        "manifest": made.id,
        "files": {name: len(data) for name, data in made.files.items()},
    }


def export_package(store: Store, package_id: str, folder: Path) -> LoadedPackage:
    """Write a package to a folder, as it is carried to a device.

    Args:
        store: Where the package is.
        package_id: Which one.
        folder: Made if missing; files of the same names are replaced.

    Raises:
        Problem: G302 or G604 when the package in the store is not whole, G605 when its signature
            is not valid.
    """
    loaded = load(store.blobs.read(package_id), store.blobs.read, expect=package_id)
    io.make_dirs_durable(folder)
    for name, data in loaded.files.items():
        io.write_durable(folder / name, data)
    signature = find_signature(store, package_id)
    if signature:
        io.write_durable(folder / SIGNATURE_FILE, encode_signature(signature))
    io.write_durable(folder / MANIFEST_FILE, store.blobs.read(package_id))
    return loaded


def record_package(
    store: Store, manifest: Manifest, of: Sequence[tuple[str, str]] = ()
) -> LoadedPackage:
    """Write the manifest, record and sign the package, and load it as a server will.

    Args:
        store: Where it goes.
        manifest: Its files are in the store.
        of: What it was made from besides model and dataset, as (kind, id).
    """
    package_id = store.blobs.put(encode_manifest(manifest))
    loaded = load(store.blobs.read(package_id), store.blobs.read, expect=package_id)
    store.ledger.record(
        "package",
        package_id,
        encode(loaded.manifest),
        line=manifest.line,
        inputs=[("model", manifest.model), ("dataset", manifest.dataset), *of],
    )
    sign_package(store, manifest.line, package_id)
    return loaded


def _golden(task: Task, engine: Engine, view: View, model: Model) -> bytes:
    """Return a few real samples with the answers they get, for the self-test on a device."""
    rows = affordable(task.signature(model.settings), _GOLDEN_BYTES, _GOLDEN_ROWS)
    inputs = spread(task, view, "test", model.settings, rows)
    outputs = engine.run(inputs)
    named = {f"input.{name}": tensor for name, tensor in inputs.items()}
    named |= {f"output.{name}": tensor for name, tensor in outputs.items()}
    plain = {name: pack(t) if t.dtype == object else t for name, t in named.items()}
    return save({name: np.ascontiguousarray(tensor) for name, tensor in plain.items()})


def _cases(task: Task, engine: Engine, view: View, model: Model) -> bytes:
    """Return what rows the model has learned from look like, of every label there is.

    They are what an explanation compares a prediction with: its nearest known cases, by row.
    """
    rows = affordable(task.signature(model.settings), _CASES_BYTES, _CASES)
    embedding, row, label = [], [], []
    for split, at in by_label(view, ("train", "calibrate"), rows).items():
        for samples in chosen(task, view, split, model.settings, at):
            if len(samples.row):
                made = engine.run(samples.tensors) if task.embeds_answers else {}
                embedding.append(task.embed(samples.tensors, made, model.settings))
                row.append(samples.row)
                label.append(samples.label)
    cases = {
        "embedding": np.concatenate(embedding).astype(np.float32),
        "row": np.concatenate(row).astype(np.int64),
        "label": np.concatenate(label).astype(np.float64),
    }
    return save({name: np.ascontiguousarray(tensor) for name, tensor in cases.items()})
