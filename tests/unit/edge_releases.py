"""A home whose line can be exported to a device, and releases of it; no model was trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from genba.core.codec import encode
from genba.core.digest import canonical_json, digest_json
from genba.core.line import Check, Data, Limits, Line, Target
from genba.core.protocols import Array
from genba.core.values import DatasetVersion, PackageFile
from genba.edge.trust import Trust
from genba.engines.onnxruntime import OnnxRuntime
from genba.stages import edge_export
from genba.stages.edge_export import Exported, Order, export_edge
from genba.store.home import Store
from genba.testing.graphs import image_graph, small_batch, small_graph
from genba.testing.serving import (
    ENGINE,
    ENTITY_NAMES,
    IMAGE_SIZE,
    image_package,
    place,
    small_package,
)

FIELDS = ("flow", "air|temp", "plc.speed:mean", "power")
STEP_MS = 600_000
PUMP = Line(
    name="pump",
    task="sensor.anomaly",
    data=Data(
        source="files:pump.csv",
        time="at",
        entity="pump",
        inputs=FIELDS[:3],
        output="power",
        checks={"flow": Check(min=0, max=9, required=True), "power": Check(min=-1)},
    ),
    target=Target(limits=Limits(latency_ms_p99=1_000)),
)
SHEET: dict[str, Any] = {
    "time": {"step_ms": STEP_MS, "longer_than_steps": 1.5},
    "columns": {
        "flow": {"min": 0.5, "max": 8.0, "quantiles": {"0.01": 1.0, "0.99": 7.0}},
        "power": {"count": 0},
    },
}
SETTINGS = {
    "sensors": list(FIELDS),
    "outputs": ["power"],
    "lags": 3,
    "step_ms": STEP_MS,
    "has_clock": True,
}
MEASURES = {"r2": {"value": 0.9, "low": 0.8, "high": 0.95, "unit": "", "method": "measured"}}
COSTS = {
    "latency_ms_p99": {"value": 0.5, "unit": "ms", "low": 0.4, "high": 0.6, "method": "measured"},
    "energy_mj": {"value": 2.0, "unit": "mJ", "low": 1.0, "high": 3.0, "method": "modelled"},
    "memory_mib": {"value": 30.0, "unit": "MiB", "method": "measured"},
}


SAFETY: dict[str, Any] = {"plan": {}, "matrix": [], "failing": []}


def known(value: Any, how: str = "measured") -> dict[str, Any]:
    return {"value": value, "how": how}


def card() -> dict[str, Any]:
    facts = {"licence": "CC0", "attribution": "A pump", "fingerprint": "f" * 64, "generated": True}
    return {
        "name": known("pump", "declared"),
        "purpose": known("power from flow", "declared"),
        "data": {
            "source": known("files:pump.csv", "declared"),
            "facts": known(facts, "declared"),
            "rows": known(1_000),
            "entities": known(2),
            "sheet": known("5" * 64),
        },
        "model": {"candidate": known("ridge", "derived")},
        "measures": known(MEASURES),
        "runtime": {"measures": known(COSTS)},
        "limits": {"outside": known("Rows like those of the test set.", "declared")},
    }


def add_package(store: Store, *, seed: int = 0, **changes: Any) -> str:
    """Put everything into a home that a package needs to be exported, and return its id."""
    graph, sample = small_graph(seed), golden(seed)
    return small_package(store, "pump", seed=seed, **(_made(store, seed, graph, sample) | changes))


def add_image_package(store: Store) -> str:
    """As `add_package`, of a graph that looks at images."""
    graph = image_graph(IMAGE_SIZE)
    batch: dict[str, Array] = {
        "image": np.arange(3 * IMAGE_SIZE**2 * 3, dtype=np.uint8).reshape(3, IMAGE_SIZE, -1, 3),
        "bar": np.full(3, 0.5, dtype=np.float32),
    }
    made = _made(store, 0, graph, recorded(graph, batch))
    return image_package(store, "pump", **made | {"settings": {"size": IMAGE_SIZE}})


def _made(store: Store, seed: int, graph: bytes, sample: bytes) -> dict[str, Any]:
    """Record line, run and dataset, and return what a manifest says of them."""
    plain = encode(PUMP)
    store.ledger.record("line", digest_json(plain), plain, line="pump")
    run = f"run-{seed}"
    store.ledger.record("run", run, {"line_digest": digest_json(plain)}, line="pump")
    body = {"run": run, "seconds": 12.0, "cpu_seconds": 20.0}
    store.ledger.append("run.finished", body, line="pump", subject=run)
    data = DatasetVersion(
        id=f"dataset-{seed}",
        line="pump",
        segments=(),
        entities=ENTITY_NAMES,
        columns=("entity", "time", "row", "split", "label", *FIELDS),
        rows=1_000,
        rejected={},
        sheet=store.blobs.put(canonical_json(SHEET)),
    )
    store.ledger.record("dataset", data.id, encode(data), line="pump")
    contents = {
        "model.onnx": graph,
        "card.json": canonical_json(card()),
        "sample.safetensors": sample,
    }
    files = {
        name: PackageFile(digest=store.blobs.put(content), size=len(content))
        for name, content in contents.items()
    }
    return {"run": run, "dataset": data.id, "settings": SETTINGS, "files": files}


def golden(seed: int = 0, shift: float = 0.0) -> bytes:
    return recorded(small_graph(seed), small_batch(4), shift)


def recorded(graph: bytes, batch: dict[str, Array], shift: float = 0.0) -> bytes:
    outputs = OnnxRuntime(graph, ENGINE.settings).run(batch)
    first = next(iter(outputs))
    outputs[first] = outputs[first] + np.float32(shift)
    named = {f"input.{n}": t for n, t in batch.items()}
    return save(named | {f"output.{n}": np.ascontiguousarray(t) for n, t in outputs.items()})


def pump_home(path: Path, add: Callable[[Store], str] = add_package) -> Store:
    """Return a home whose line `pump` has a package in service."""
    store = Store.open(path)
    place(store, "pump", "deploy", add(store))
    return store


def released(store: Store, folder: Path, **changes: Any) -> Exported:
    """Export without the minutes that finding out about faults takes; see `SAFETY`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_export, "assure", lambda *_, **__: SAFETY)
        return export_edge(store, Order(line="pump", folder=folder, **changes))


def copied(release: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(release, to, symlinks=True)
    return to


def trust_of(exported: Exported) -> Trust:
    return Trust(keys={exported.key.fingerprint: exported.key.private.public_key()})
