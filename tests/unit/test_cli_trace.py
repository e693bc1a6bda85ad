"""Predictions of any task in words, and why they came out as they did."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genba.core.digest import digest_bytes
from genba.core.resolve import resolve
from genba.core.task import Attribution, Explanation
from genba.core.values import Signature, Tensor
from genba.edge.images import decode, encode_png
from genba.edge.package import load
from genba.stages.explain import Case, Explained
from genba.stages.pipeline import run_line
from genba.stages.samples import spread
from genba.store.captures import DIGEST, OK, CapturedRows, CaptureWriter, Interval
from genba.store.home import Store
from genba.testing.generated import generated_view
from genba.ui.cli import trace, trace_why
from genba.ui.cli.trace_report import next_commands
from genba.ui.cli.trace_values import answers, given

INSPECTION = {
    "classes": ["good", "scratch", "a dent"],
    "settings": {"sensors": []},
    "signature": {
        "inputs": [{"name": "image", "role": "image", "shape": [-1, 32, 32, 3]}],
        "outputs": [
            {"name": "class", "role": "class", "shape": [-1]},
            {"name": "probability", "role": "probability", "shape": [-1, 3]},
            {"name": "alarm", "role": "alarm", "shape": [-1]},
            {"name": "score", "role": "score", "shape": [-1], "unit": ""},
            {"name": "embedding", "role": "embedding", "shape": [-1, 4]},
            {"name": "hours", "role": "expected", "shape": [-1], "unit": "h"},
            {"name": "map", "role": "map", "shape": [-1, 9, 9]},
        ],
    },
}


def test_answers_are_in_words_whatever_the_task() -> None:
    values = {
        "image": {"digest": "ab" * 32, "bytes": 2_048},
        "class": 1,
        "probability": [0.25, 0.625, 0.125],
        "alarm": True,
        "score": 1.5,
        "embedding": [0.0, 1.0, 2.0, 3.0],
        "hours": 12.0,
    }
    assert dict(given(values, INSPECTION)) == {"image": "2.0 KiB, sha256 abababababab"}
    assert dict(answers(values, INSPECTION)) == {
        "class": "scratch",
        "probability": "scratch 0.625, good 0.25, a dent 0.125",
        "alarm": "yes",
        "score": "1.5",
        "hours": "12 h",
    }
    unsure = {"class": -1, "probability": [0.5, 0.5]}  # as many as another package knows
    assert dict(answers(unsure, INSPECTION)) == {
        "class": "no class: the model abstains",
        "probability": "0.5, 0.5",
    }
    many = {**INSPECTION, "classes": [f"c{i}" for i in range(9)]}
    shares = {"probability": np.linspace(0, 1, 9).tolist()}
    assert dict(answers(shares, many))["probability"].endswith("c6 0.75 and 6 more")


def test_readings_are_named_by_their_sensors() -> None:
    package = {
        "settings": {"sensors": ["flow", "power"]},
        "signature": {"inputs": [{"name": "window", "role": "feature", "shape": [-1, 3, 2]}]},
    }
    values = {"window": [1.0, 2.0, 3.0, 4.0, 5.5, None], "extra": [float(n) for n in range(9)]}
    found = dict(given(values, package))
    assert found["window"] == "flow 5.5, power missing; 2 earlier rows"
    assert found["extra"] == "0, 1, 2, 3, 4, 5 … (9 values)"
    wide = {**package, "settings": {"sensors": [f"s{i}" for i in range(20)]}}
    wide["signature"] = {"inputs": [{"name": "window", "shape": [-1, 1, 20]}]}
    assert dict(given({"window": [0.0] * 20}, wide))["window"].endswith("s11 0 and 8 more")


def test_feedback_is_suggested_in_words_of_the_task() -> None:
    found: dict[str, Any] = {"prediction": {"line": "parts", "id": "server-x-1"}}
    found["package"] = {"settings": {"corrections": ["a dent", "good"]}}
    assert next_commands(found) == (
        "genba feedback parts --prediction server-x-1 --value 'a dent'",
        "genba trace server-x-1 --explain",
    )
    assert len(next_commands({**found, "explanation": {}})) == 1


@pytest.fixture
def served(home: Path) -> Iterator[tuple[Store, str]]:
    """Pumps that were trained, and one prediction of them, as captured."""
    with generated_view("sensor.anomaly", rows=600) as (_, view), Store.open(home) as store:
        line = replace(view.line, target=replace(view.line.target, engines=("onnxruntime",)))
        package = str(run_line(line, store).package)
        manifest = load(store.blobs.read(package), store.blobs.read).manifest
        task = resolve("task", manifest.task)()
        tensors = spread(task, view, "test", manifest.settings, 3)
        window = tensors["window"][:1].copy()
        window[0, -1, -1] = 400.0
        rows = CapturedRows(
            package=package,
            n=np.array([0]),
            received_ms=np.array([1_760_000_000_000]),
            role=["stable"],
            entity=["south"],
            time=[1_760_000_000_000],
            latency_us=np.array([900]),
            status=[OK],
            features={"window": window},
            outputs={"score": np.array([9.0]), "alarm": np.array([True])},
        )
        summary = {package: {"role": "stable", "n": 1, "cpu_seconds": 0.01}}
        CaptureWriter(store, line.name, "server-x").write(
            Interval(from_ms=1, to_ms=2, packages=summary, rows=[rows])
        )
        yield store, package


def test_a_served_prediction_is_explained(
    served: Any, ask: Callable[..., Any], show: Callable[..., str], tmp_path: Path
) -> None:
    code, found = ask("trace", "last", "--explain")
    assert code == 0
    assert found["explanation"]["attributions"][0]["name"] == "power"
    assert len(found["explanation"]["cases"]) == 3
    text = show("trace", "server-x-0", "--explain")
    for part in ("driven by", "power 400", "novelty", "unlike", "nearest known case", "south at"):
        assert part in text, part
    assert "--value anomaly" in text
    assert "explanation" not in ask("trace", "server-x-0")[1]
    code, found = ask("trace", "server-x-0", "--save-map", str(tmp_path / "map.png"))
    assert (code, found["problem"]["code"]) == (1, "G553")


def test_an_image_is_explained_with_its_heat_map(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The package is made up: what is tested is what becomes of an explanation."""
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 2.5
    found = Explained(
        package="p",
        explanation=Explanation(attributions=(), heat=heat),
        cases=(
            Case(row=7, distance=0.5, label=1.0, called="scratch", dataset="d" * 64, name="7.png"),
            Case(row=8, distance=0.75, label=2.0, called=None, dataset="d" * 64, time=40),
        ),
        novelty=0.25,
    )
    image = Tensor(name="image", datatype="UINT8", shape=(-1, 32, 32, 3), role="image")
    signature = Signature(inputs=(image,), outputs=())
    package = type("P", (), {"manifest": type("M", (), {"signature": signature})})
    monkeypatch.setattr(trace_why, "load", lambda *_, **__: package)
    monkeypatch.setattr(trace_why, "explain", lambda *_: found)
    png = encode_png(np.full((32, 32, 3), 100, dtype=np.uint8))
    store: Any = type("S", (), {"blobs": type("B", (), {"read": None})})
    monkeypatch.setattr(store.blobs, "read", lambda _: b"")
    row = {"package": "p", "image": png}
    data = trace_why.why(store, row, tmp_path / "map.png")
    assert data["heat"] == {"shape": [4, 4], "peak": 2.5}
    saved = decode((tmp_path / "map.png").read_bytes(), 32)
    assert saved[0, 0].tolist() == [216, 25, 25]  # as far as red goes
    assert saved[20, 20].tolist() == [100, 100, 100]
    shown = trace_why.explained(data)
    assert len(shown) == 2
    assert digest_bytes(png) != digest_bytes((tmp_path / "map.png").read_bytes())
    pixels = np.full((32, 32, 3), 100, dtype=np.uint8)
    row = {"package": "p", "image": pixels.ravel().tolist()}  # sent as a tensor
    trace_why.why(store, row, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "map.png").read_bytes()


def test_an_explanation_with_nothing_in_it_says_so() -> None:
    nothing: dict[str, Any] = {"attributions": [], "heat": None, "cases": [], "novelty": 0.0}
    (shown,) = trace_why.explained(nothing)
    assert "no explanation" in str(shown)
    many = tuple(
        Attribution(name=f"s{i}", share=1 / 20, value=float("nan"), usual=1.0) for i in range(20)
    )
    found = Explained(
        package="p", explanation=Explanation(attributions=many), cases=(), novelty=0.0
    ).to_json()
    (table,) = trace_why.explained(found)
    assert getattr(table, "row_count", 0) == 13


def test_files_are_named_not_printed() -> None:
    assert trace._plain(b"abc") == {"digest": digest_bytes(b"abc"), "bytes": 3}
    assert trace._plain([1, 2]) == [1, 2]


def test_a_trace_leads_to_its_prediction_and_says_what_was_not_kept(
    factory: Any, ask: Callable[..., Any], show: Callable[..., str]
) -> None:
    store, trace_id = factory.store, "ab" * 16
    digests = np.frombuffer(bytes(range(64)), dtype=np.uint8)
    kind = pa.binary(32)
    rows = CapturedRows(
        package=factory.packages[0],
        n=np.array([7, 8]),
        received_ms=np.array([1_000, 1_001]),
        role=["stable"] * 2,
        entity=["P-1"] * 2,
        time=[None] * 2,
        latency_us=np.array([80, 90]),
        status=[OK] * 2,
        features={
            DIGEST: pa.FixedSizeBinaryArray.from_buffers(kind, 2, [None, pa.py_buffer(digests)])
        },
        outputs={"score": np.array([1.0, 2.0])},
        trace=[None, trace_id],
    )
    packages = {factory.packages[0]: {"role": "stable", "n": 2}}
    made = Interval(from_ms=1, to_ms=2, packages=packages, rows=[rows], inputs="digest")
    CaptureWriter(store, "pump", "s-9").write(made)
    code, found = ask("trace", trace_id)
    assert (code, found["prediction"]["id"]) == (0, "s-9-8")
    assert found["prediction"]["inputs"] == "digest"
    assert found["prediction"][DIGEST] == bytes(range(32, 64)).hex()
    assert DIGEST not in found["prediction"]["values"]
    text = " ".join(show("trace", trace_id).split())
    assert f"trace {trace_id}" in text
    assert "not kept, as the line says; their SHA-256 is 2021" in text
    assert ask("trace", "f" * 32)[1]["problem"]["code"] == "G760"
