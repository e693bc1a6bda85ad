import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genba.core.codec import decode, encode
from genba.core.digest import digest_json
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.task import Model
from genba.core.values import EngineChoice, Manifest, Signature, Tensor, Verdict
from genba.data import versions
from genba.data.view import DatasetView
from genba.edge.package import CASES_FILE, load
from genba.edge.predict import Predictor, golden_samples
from genba.edge.signature import open_package
from genba.edge.tensors import read_tensors
from genba.learn.models import save_model
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.runs.stage import StageContext
from genba.stages.card import model_card
from genba.stages.package import export_package, package
from genba.store.home import Store
from genba.store.lineage import ancestors
from genba.store.signatures import find_signature
from genba.store.signing import Signer
from genba.testing.generated import PUMPS, generated_view

F32 = {"precision": "float32", "threads": 1}
MEASURED = {"cpu_ms": {"value": 0.02, "unit": "ms", "method": "measured"}}
PARITY = {"decision_agreement": 1.0, "max_error": 0.0, "samples": 9, "passed": True}


@dataclass(frozen=True)
class Made:
    store: Store
    context: StageContext
    result: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.result["package"])


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    with generated_view("sensor.anomaly", rows=600) as (store, view):
        task = resolve("task", "sensor.anomaly")()
        model = task.fit(view, task.derive(view.line, view), Effort.simple(trials=2))
        trained = save_model(store, model)
        store.ledger.record(
            "model", trained["model"], {}, line=view.line.name, inputs=[("dataset", view.digest)]
        )
        scores = task.score(task.reference(model), view, "test", model.settings)
        optimized = {
            "engine": {"name": "onnxruntime", "settings": F32},
            "onnx": store.blobs.put(task.export(model)),
            "candidates": [
                {
                    "engine": "onnxruntime",
                    "settings": F32,
                    "measures": MEASURED,
                    "parity": PARITY,
                    "refused": [],
                }
            ],
            "machine": {"processor": "of a test"},
            "reevaluated": encode(scores.measures),
            "verdict": encode(Verdict(passed=True)),
        }
        prepared = {
            "dataset": view.digest,
            "rows": view.version.rows,
            "rejected": dict(view.version.rejected),
            "sheet": view.version.sheet,
            "entities": len(view.entities),
            "source": versions.source_facts(store, view.digest),
        }
        context = StageContext(
            line=view.line,
            store=store,
            run="run-1",
            inputs={
                "prepare": prepared,
                "train": trained,
                "evaluate": {"label_noise": None},
                "optimize": optimized,
            },
            effort=Effort.simple(),
            progress=SilentProgress(),
        )
        yield Made(store, context, package(context))


def test_the_package_is_recorded_with_what_it_was_made_from(made: Made) -> None:
    manifest = decode(Manifest, made.store.ledger.get("package", made.id))
    assert manifest.run == "run-1"
    assert manifest.entities == PUMPS
    assert manifest.engine.settings == F32
    assert manifest.settings["drift"]
    names = ["card.json", "cases.safetensors", "model.onnx", "sample.safetensors"]
    assert sorted(manifest.files) == names
    assert manifest.classes == ()
    assert made.result["manifest"] == made.id
    assert made.result["files"]["model.onnx"] == manifest.files["model.onnx"].size
    found = json.dumps(ancestors(made.store.ledger, made.id), default=str)
    assert manifest.dataset in found
    assert manifest.model in found


def test_the_same_inputs_make_the_same_package(made: Made) -> None:
    assert package(made.context)["package"] == made.id
    signed = made.store.ledger.events(kinds=("package.signed",))
    assert len([e for e in signed if e.subject == made.id]) == 1


def test_it_answers_as_recorded_and_entities_have_names(made: Made) -> None:
    loaded = load(made.store.blobs.read(made.id), made.store.blobs.read, expect=made.id)
    predictor = Predictor(loaded)
    assert predictor.self_test() == 0.0
    inputs, outputs = golden_samples(loaded)
    assert len(inputs["window"]) == 8
    assert len(np.unique(inputs["entity"])) == 2
    names: Any = [PUMPS[i] for i in inputs["entity"]]
    found = predictor.predict({"window": inputs["window"], "entity": names})
    assert np.array_equal(found["score"], outputs["score"])


def test_the_card_says_how_each_field_is_known(made: Made) -> None:
    loaded = load(made.store.blobs.read(made.id), made.store.blobs.read)
    card = json.loads(loaded.files["card.json"])
    names = ("name", "purpose", "takes", "answers", "measures", "gates", "label_noise")
    fields = [card[n] for n in names]
    for group in ("data", "model", "runtime", "limits"):
        fields += card[group].values()
    assert all(set(field) == {"value", "how"} for field in fields)
    assert {field["how"] for field in fields} == {"measured", "declared", "derived"}
    assert card["data"]["rows"]["value"] > 1000
    wanted = "sensor.anomaly: power from flow, pressure, temperature, power"
    assert card["purpose"]["value"] == wanted
    assert [t["role"] for t in card["answers"]["value"]] == ["score", "alarm", "expected"]
    assert card["answers"]["value"][0]["means"].startswith("how unusual")
    assert card["measures"]["value"]["r2"]["low"] is not None
    assert card["runtime"]["parity"]["value"]["decision_agreement"] == 1.0


def test_the_card_of_an_inspection_speaks_of_images(made: Made) -> None:
    image = Tensor(name="image", datatype="UINT8", shape=(-1, 64, 64, 3), role="image")
    mask = Tensor(name="mask", datatype="BOOL", shape=(-1, 64, 64), role="mask")
    signature = Signature(inputs=(image,), outputs=(mask,))
    line = replace(made.context.line, data=Data(source="files:good"))
    model = Model(candidate="gaussian", settings={"sensors": []}, arrays={})
    choice = EngineChoice(name="onnxruntime", settings=F32)
    card = model_card(replace(made.context, line=line), model, signature, choice)
    assert card["purpose"]["value"] == "sensor.anomaly: mask from images"
    assert "images like those of the test set" in card["limits"]["outside"]["value"]


def test_known_cases_are_rows_that_the_model_has_learned_from(made: Made) -> None:
    loaded = load(made.store.blobs.read(made.id), made.store.blobs.read)
    cases = read_tensors(loaded.files[CASES_FILE])
    view = DatasetView.open(made.store, loaded.manifest.dataset, made.context.line)
    learned = np.concatenate([c["row"] for s in ("train", "calibrate") for c in view.chunks(s)])
    count = len(cases["row"])
    assert 500 < count <= 2_000
    assert set(cases["row"].tolist()) <= set(learned.tolist())
    assert len(np.unique(cases["row"])) == count
    assert cases["embedding"].shape == (count, 5)
    assert cases["embedding"].dtype == np.float32
    assert np.isfinite(cases["embedding"]).all()
    assert np.isnan(cases["label"]).all()  # nobody labelled anything here


def test_the_package_is_signed_by_this_home(made: Made) -> None:
    signature = find_signature(made.store, made.id)
    assert signature is not None
    assert signature.public_key == Signer(made.store.path).public_key


def test_it_is_carried_to_a_device_and_every_flipped_bit_is_noticed(
    made: Made, tmp_path: Path
) -> None:
    folder = tmp_path / "device"
    export_package(made.store, made.id, folder)
    key = Signer(made.store.path).public_key
    assert Predictor(open_package(folder, expect=made.id, trusted=[key])).self_test() == 0.0
    chance = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in chance.integers(0, len(whole), size=40):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << int(chance.integers(0, 8))
            path.write_bytes(damaged)
            with pytest.raises(Problem) as refused:
                open_package(folder, expect=made.id, trusted=[key])
            wanted = "G605" if path.name == "signature.json" else "G604"
            assert refused.value.code == wanted, path.name
        path.write_bytes(whole)
    assert open_package(folder, expect=made.id, trusted=[key]).id == made.id


def test_an_altered_blob_in_the_store_is_refused(made: Made, tmp_path: Path) -> None:
    loaded = load(made.store.blobs.read(made.id), made.store.blobs.read)
    path = made.store.blobs.path(loaded.manifest.files["model.onnx"].digest)
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + b"\0")
    try:
        with pytest.raises(Problem) as refused:
            export_package(made.store, made.id, tmp_path / "device")
        assert refused.value.code in ("G302", "G604")
        assert not (tmp_path / "device").exists()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "changes", [{"signature": "00" * 64}, {"package": "another"}, {"signature": 7}]
)
def test_a_forged_signature_in_the_ledger_is_noticed(made: Made, changes: dict[str, Any]) -> None:
    good = find_signature(made.store, made.id)
    assert good is not None
    other = digest_json(["a package with", changes])
    body = {**encode(good), "package": other, **changes}
    made.store.ledger.append("package.signed", body, subject=other)
    with pytest.raises(Problem) as refused:
        find_signature(made.store, other)
    assert refused.value.code == "G605"


def test_a_package_that_nobody_signed_has_no_signature(made: Made, tmp_path: Path) -> None:
    body = manifest_of(made, run="unsigned")
    made.store.ledger.record("package", "unsigned", body, line=made.context.line.name)
    assert find_signature(made.store, "unsigned") is None


def manifest_of(made: Made, **changes: Any) -> dict[str, Any]:
    body = made.store.ledger.get("package", made.id)
    assert body is not None
    return {**body, **changes}
