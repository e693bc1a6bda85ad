"""From a picture that was served to one that is trained on: the whole way of a correction."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.resolve import resolve
from genba.core.values import DatasetVersion
from genba.data.feedback import effective_labels, receive
from genba.data.sources import source_of
from genba.data.view import DatasetView
from genba.edge.images import decode_mask, encode_png
from genba.loop.queue import queue
from genba.loop.state import LineState
from genba.loop.training import extended_dataset
from genba.runs.progress import SilentProgress
from genba.store.captures import CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.tasks.vision.anomaly import VisionAnomaly

T0 = 1_800_000_000_000
SIDE = 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


def started(store: Store, folder: Path) -> tuple[Line, DatasetVersion]:
    """A line about generated parts whose dataset is read and whose package has answered."""
    folder.mkdir()
    line = VisionAnomaly.example(folder)
    store.ledger.record("line", "l1", encode(line), line=line.name)
    progress = SilentProgress()
    modality = resolve("modality", "image")()
    version: DatasetVersion = modality.ingest(
        source_of(line), line, store, progress, parent=None, split_by=VisionAnomaly.split_by
    )
    manifest = {
        "settings": {"size": SIDE},
        "classes": list(version.classes),
        "signature": {
            "inputs": [{"name": "image", "role": "image", "shape": [-1, SIDE, SIDE, 3]}],
            "outputs": [
                {"name": "score", "role": "score", "shape": [-1]},
                {"name": "alarm", "role": "alarm", "shape": [-1]},
                {"name": "embedding", "role": "embedding", "shape": [-1, 4]},
            ],
        },
    }
    store.ledger.record("package", "v", manifest, line=line.name)
    return line, version


def serve(store: Store, line: Line, count: int) -> None:
    chance = np.random.default_rng(0)
    pictures = [
        encode_png(chance.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(count)
    ]
    rows = CapturedRows(
        package="v",
        n=np.arange(count),
        received_ms=T0 + np.arange(count),
        role=["stable"] * count,
        entity=[None] * count,
        time=[None] * count,
        latency_us=np.ones(count, dtype=np.int64),
        status=["ok"] * count,
        features={"image": np.array(pictures, dtype=object)},
        outputs={
            "score": np.linspace(0.1, 2.0, count).astype(np.float32),
            "alarm": np.linspace(0.1, 2.0, count) > 1,
            "embedding": chance.normal(size=(count, 4)).astype(np.float32),
        },
    )
    CaptureWriter(store, line.name, "s1").write(
        Interval(from_ms=T0, to_ms=T0 + count, packages={"v": {"n": count}}, rows=(rows,))
    )


def live(store: Store, line: Line, version: DatasetVersion) -> dict[str, tuple[float, Any]]:
    view = DatasetView(store, version, line).part("live")
    found = {}
    for split in ("train", "calibrate", "test", "purged"):
        for chunk in view.chunks(split):
            for name, label, mask in zip(chunk["name"], chunk["label"], chunk["mask"], strict=True):
                found[name] = (float(label), mask)
    return found


def test_what_people_mark_in_a_picture_is_trained_on(store: Store, tmp_path: Path) -> None:
    line, version = started(store, tmp_path / "parts")
    serve(store, line, 12)
    asked = queue(store, line.name, 3)
    assert asked[0].prediction == "s1-5"  # its score is nearest to 1
    words = VisionAnomaly().corrections(version.classes)
    defect = next(word for word in words if VisionAnomaly().label(word, version.classes) > 0)
    good = next(word for word in words if VisionAnomaly().label(word, version.classes) == 0)
    rows = [
        {"prediction": "s1-5", "value": defect, "region": "0,0,32,64"},
        {"prediction": "s1-11", "value": good},
        {"prediction": "s1-0", "value": defect},
    ]
    report = receive(store, line.name, rows, source="api", now_ms=T0 + 1_000)
    assert (report.accepted, report.rejected) == (3, ())
    body = store.ledger.events(kinds=("feedback.received",))[-1].body
    assert (body["false_alarms"], body["missed"]) == (1, 2)
    lessons = effective_labels(store, line.name)
    assert [one.prediction for one in lessons] == ["s1-0", "s1-11", "s1-5"]
    state = LineState(line=line.name, dataset=version.id)
    again = extended_dataset(store, line, state)
    extended = DatasetView.open(store, again, line).version
    assert extended.parent == version.id
    found = live(store, line, extended)
    said = {name: value for name, value in found.items() if np.isfinite(value[0])}
    assert len(said) == 3
    assert sorted(label > 0 for label, _ in said.values()) == [False, True, True]
    (mask,) = [mask for _, mask in said.values() if mask is not None]
    assert decode_mask(mask, SIDE).mean() == 0.5
    assert "s1-5" not in {item.prediction for item in queue(store, line.name)}
