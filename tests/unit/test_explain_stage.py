"""Explanations from a package: what drove an answer, the nearest known cases, what was given."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.task import Attribution, Explanation
from genba.core.values import Manifest, Signature, Tensor
from genba.data.view import DatasetView
from genba.edge.images import encode_png
from genba.edge.package import CASES_FILE, load
from genba.stages.explain import Case, Explained, class_name, explain, given_tensors
from genba.stages.pipeline import run_line
from genba.stages.samples import spread
from genba.store.home import Store
from genba.testing.generated import generated_view

TASK = "sensor.anomaly"


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Store, DatasetView, str]]:
    with generated_view(TASK, rows=600) as (store, view):
        line = replace(view.line, target=replace(view.line.target, engines=("onnxruntime",)))
        outcome = run_line(line, store)
        assert outcome.package
        yield store, view, outcome.package


def manifest_of(store: Store, package: str) -> Manifest:
    return load(store.blobs.read(package), store.blobs.read).manifest


def one(made: Any, split: str = "train", **window: float) -> dict[str, Any]:
    store, view, package = made
    settings = manifest_of(store, package).settings
    tensors = spread(resolve("task", TASK)(), view, split, settings, 50)
    sample = {name: tensor[7:8].copy() for name, tensor in tensors.items()}
    for name, value in window.items():
        sample["window"][0, -1, settings["sensors"].index(name)] = value
    return sample


def test_what_drove_it_and_what_it_looks_like(made: Any) -> None:
    store, view, package = made
    found = explain(store, package, one(made, power=400.0), neighbours=2)
    assert found.explanation.attributions[0].name == "power"
    assert found.novelty > 0.5
    assert len(found.cases) == 2
    assert found.cases[0].distance <= found.cases[1].distance
    canonical_json(found.to_json())
    # The nearest case is a row of the dataset, found by its id.
    case = found.cases[0]
    rows = [c for s in ("train", "calibrate") for c in view.chunks(s)]
    at = [(c, int(np.flatnonzero(c["row"] == case.row)[0])) for c in rows if case.row in c["row"]]
    (columns, place), *_ = at
    assert int(columns["time"][place]) == case.time
    assert view.entities[columns["entity"][place]] == case.entity
    assert case.split in ("train", "calibrate")


def test_a_usual_sample_is_not_novel(made: Any) -> None:
    found = explain(made[0], made[2], one(made))
    assert found.novelty < 0.5
    assert found.cases[0].distance < 1.0
    assert len(found.cases) == 3


def test_a_package_from_before_known_cases_is_explained_without_them(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(*args: Any, **more: Any) -> Any:
        whole = load(*args, **more)
        return replace(whole, files={n: f for n, f in whole.files.items() if n != CASES_FILE})

    monkeypatch.setattr("genba.stages.explain.load", older)
    found = explain(made[0], made[2], one(made))
    assert (found.cases, found.novelty) == ((), 0.0)
    assert found.explanation.attributions


def test_what_was_given_is_read_from_a_capture(made: Any) -> None:
    manifest = manifest_of(made[0], made[2])
    sample = one(made)
    row = {"window": sample["window"].ravel().tolist(), "entity": "south", "time": 7}
    found = given_tensors(manifest, row)
    np.testing.assert_array_equal(found["window"], sample["window"])
    assert found["entity"].tolist() == [manifest.entities.index("south")]
    with pytest.raises(Problem) as caught:
        given_tensors(manifest, {"entity": "south"})
    assert caught.value.code == "G550"
    with pytest.raises(Problem) as caught:
        given_tensors(manifest, {"entity": "south", "inputs_sha256": b"x" * 32})
    assert "keeps a digest" in caught.value.why


def test_images_times_and_parameters_are_read_from_a_capture(made: Any) -> None:
    inputs = (
        Tensor(name="image", datatype="UINT8", shape=(-1, 32, 32, 3), role="image"),
        Tensor(name="when", datatype="INT64", shape=(-1,), role="time"),
        Tensor(name="bar", datatype="FP32", shape=(-1,), role="parameter", default=1.0),
    )
    signature = Signature(inputs=inputs, outputs=())
    manifest = replace(manifest_of(made[0], made[2]), signature=signature)
    png = encode_png(np.full((32, 32, 3), 90, dtype=np.uint8))
    found = given_tensors(manifest, {"image": png, "time": 5, "bar": None})
    assert found["image"].shape == (1, 32, 32, 3)
    assert (found["image"] == 90).all()
    assert found["when"].tolist() == [5]
    assert "bar" not in found
    assert given_tensors(manifest, {"image": png, "time": 5, "bar": 2.0})["bar"].tolist() == [2.0]


def test_an_explanation_is_plain_data() -> None:
    reading = Attribution(name="flow", share=1.0, value=float("nan"), usual=2.0)
    heat = np.zeros((2, 3), dtype=np.float32)
    found = Explained(
        package="p",
        explanation=Explanation(attributions=(reading,), heat=heat),
        cases=(Case(row=3, distance=0.5, label=1.0, called="scratch", dataset="d", name="a.png"),),
        novelty=0.25,
    ).to_json()
    canonical_json(found)
    assert found["attributions"] == [{"name": "flow", "share": 1.0, "value": None, "usual": 2.0}]
    assert found["heat"] == {"shape": [2, 3], "peak": 0.0}
    assert found["cases"][0]["called"] == "scratch"
    assert "time" not in found["cases"][0]
    assert class_name(7.0, ("good",)) is None
