"""vision.classify end to end: learn, answer, export, judge, explain."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors
from genba.core.task import Model
from genba.edge.images import decode
from genba.engines.onnxruntime import OnnxRuntime
from genba.learn import backbone as backbones
from genba.learn.backbone import lite
from genba.learn.classes import chosen
from genba.runs.effort import Effort
from genba.tasks.vision.classify import example, fit
from genba.tasks.vision.classify.example import CLASSES
from tests.unit.image_view import ImageView
from tests.unit.random_lite import NAME, random_weights
from tests.unit.shapes import TASK, fitted, line, shapes, trained


def batch(view: ImageView, model: Model, split: str = "test") -> Tensors:
    return TASK.samples(next(iter(view.chunks(split))), model.settings).tensors


def run(model: Model, tensors: Tensors) -> dict[str, Array]:
    return OnnxRuntime(TASK.export(model), {"precision": "float32"}).run(tensors)


def test_shapes_are_told_apart() -> None:
    view, model = trained()
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert scores.measures["accuracy"].value > 0.85
    base = TASK.baselines(view, model.settings)
    pixels = base["logistic regression on pixels"].measures["accuracy"]
    commonest = base["commonest class"].measures["accuracy"]
    assert scores.measures["accuracy"].value > pixels.value
    assert commonest.value == pytest.approx(1 / 3, abs=0.01)
    canonical_json(model.settings)
    assert model.settings["backbone"] == "filters"
    assert model.settings["left_out"] == {}


def test_the_graph_answers_as_the_reference() -> None:
    view, model = trained()
    tensors = batch(view, model)
    wanted, found = TASK.reference(model)(tensors), run(model, tensors)
    assert sorted(found) == sorted(t.name for t in TASK.signature(model.settings).outputs)
    np.testing.assert_array_equal(found["class"], wanted["class"])
    for name in ("probability", "score", "embedding", "look"):
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-4)
        assert found[name].dtype == wanted[name].dtype == np.float32
    assert TASK.parity(wanted, found).passed
    assert TASK.parity(wanted, found).decision_agreement == 1.0


def test_parity_refuses_other_answers() -> None:
    view, model = trained()
    wanted = TASK.reference(model)(batch(view, model))
    other = {**wanted, "class": np.where(np.arange(len(wanted["class"])) < 1, -1, wanted["class"])}
    assert not TASK.parity(wanted, other).passed
    assert not TASK.parity(wanted, {**wanted, "probability": wanted["probability"] + 0.2}).passed
    broken = np.full_like(wanted["probability"], np.nan)
    assert not TASK.parity(wanted, {**wanted, "probability": broken}).passed


def test_the_package_carries_its_network_only() -> None:
    _, model = trained()
    graph = onnx.load_from_string(TASK.export(model))
    assert [i.name for i in graph.graph.input] == ["image", "abstain_below"]
    assert not [n for n in graph.graph.node if n.domain]


def test_the_bar_can_be_moved_in_service() -> None:
    view, model = trained()
    tensors = dict(batch(view, model))
    for predict in (TASK.reference(model), lambda t: run(model, t)):
        for bar, silent in ((0.0, False), (1.0, True), (0.9999, True)):
            tensors["abstain_below"] = np.full(len(tensors["image"]), bar, dtype=np.float32)
            made = predict(tensors)
            assert (made["class"] == -1).all() == silent or bar == 0.9999
            np.testing.assert_array_equal(made["class"] == -1, made["alarm"])
            np.testing.assert_array_equal(made["alarm"], made["score"] > 1.0)
    sure = made["probability"].max(axis=1)
    np.testing.assert_array_equal(made["alarm"], sure < 0.9999)


def test_another_network_is_written_into_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones._LOADED, NAME, lite(NAME, random_weights(), "random"))
    view = shapes(each=20, backbones=[NAME], size=32)
    model = fitted(view)
    assert model.settings["backbone"] == NAME
    tensors = batch(view, model)
    wanted, found = TASK.reference(model)(tensors), run(model, tensors)
    np.testing.assert_allclose(found["probability"], wanted["probability"], atol=1e-3)
    names = {n.op_type for n in onnx.load_from_string(TASK.export(model)).graph.node}
    assert "Conv" in names


def test_without_weights_the_filters_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise Problem("G902", "it could not be downloaded.", tries=["again"])

    monkeypatch.setattr(backbones, "load_weights", gone)
    monkeypatch.setattr(backbones, "_LOADED", {})
    model = fitted(shapes(each=10, backbones=[NAME]), trials=1)
    assert model.settings["backbone"] == "filters"
    assert "downloaded" in model.settings["left_out"][NAME]


def test_a_hostile_file_is_no_bad_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    def hostile(*_: object, **__: object) -> None:
        raise Problem("G910", "it is not a plain table of tensors.", tries=["again"])

    monkeypatch.setattr(backbones, "load_weights", hostile)
    monkeypatch.setattr(backbones, "_LOADED", {})
    with pytest.raises(Problem, match="G910"):
        fitted(shapes(each=5, backbones=[NAME]), trials=1)


def test_one_image_per_class_is_enough_to_begin() -> None:
    view = shapes(each=30, shots=1)
    model = fitted(view, trials=12)
    assert model.settings["rows"] == {"train": 3}
    assert len(model.trials) == 1
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert scores.measures["accuracy"].value > 0.3
    assert np.isfinite(scores.measures["log_loss"].value)


def test_more_shots_are_better() -> None:
    found = []
    for shots in (2, 20):
        right = []
        for seed in range(3):
            view = shapes(each=80, seed=seed, shots=shots)
            model = fitted(view, seed=seed, trials=1)
            assert model.settings["rows"]["train"] == 3 * shots
            scores = TASK.score(TASK.reference(model), view, "test", model.settings)
            right.append(scores.measures["accuracy"].value)
        found.append(np.mean(right))
    assert found[1] > found[0] + 0.05


def test_the_same_seed_gives_the_same_model() -> None:
    view = shapes(each=20)
    first, second = fitted(view), fitted(view)
    assert (first.candidate, first.settings) == (second.candidate, second.settings)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


def test_of_many_images_one_part_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "_MANY", 100)
    monkeypatch.setattr(fit, "_FEW", 10)
    view = shapes(each=170)
    settings = {**TASK.derive(view.line, view), "candidates": ["head"]}
    model = TASK.fit(view, settings, Effort.simple(trials=1, minutes=5))
    assert model.settings["rows"] == {"train": 306}
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert scores.measures["accuracy"].value > 0.85
    assert scores.measures["ece"].value < 0.2
    found = run(model, batch(view, model))
    assert TASK.parity(TASK.reference(model)(batch(view, model)), found).passed


@pytest.mark.parametrize("candidate", ["linear", "prototype", "head"])
@pytest.mark.parametrize("balance", [False, True])
def test_every_candidate_learns(candidate: str, balance: bool) -> None:
    view = shapes(each=25, balance=balance)
    settings = {**TASK.derive(view.line, view), "candidates": [candidate]}
    model = TASK.fit(view, settings, Effort.simple(trials=1, minutes=5))
    assert model.candidate == candidate
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert scores.measures["accuracy"].value > 0.6


def test_classes_nobody_showed_are_never_answered() -> None:
    view = shapes(each=20)
    view.classes = (*CLASSES, "hat")
    model = fitted(view, trials=1)
    made = run(model, batch(view, model))
    assert made["probability"].shape[1] == 4
    assert (made["probability"][:, 3] < 1e-6).all()


@pytest.mark.parametrize("labels", ["one", "none"])
def test_one_class_is_nothing_to_tell_apart(labels: str) -> None:
    view = shapes(each=5)
    view.label[:] = 1.0 if labels == "one" else np.nan
    with pytest.raises(Problem, match="G535"):
        fitted(view)


def test_images_without_a_label_are_left_out() -> None:
    view = shapes(each=20)
    whole = fitted(view, trials=1).settings["rows"]["train"]
    view.label[::2] = np.nan
    model = fitted(view, trials=1)
    assert model.settings["rows"]["train"] < whole
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert len(scores.evidence["row"]) == np.isfinite(view.label[view.split == "test"]).sum()


def test_without_calibration_images_the_training_images_calibrate() -> None:
    view = shapes(each=25)
    view.split[view.split == "calibrate"] = "train"
    model = fitted(view, trials=1)
    assert "held out" in model.settings["calibrated_on"]["source"]
    assert model.settings["calibrated_on"]["images"] == model.settings["rows"]["train"]
    drift = TASK.drift_reference(TASK.reference(model), view, model.settings)
    assert drift["window"] >= 1


def test_an_explanation_points_at_the_shape() -> None:
    view, model = trained()
    image = np.full((64, 64, 3), 70, dtype=np.uint8)
    yy, xx = np.mgrid[:64, :64]
    image[(yy - 20) ** 2 + (xx - 20) ** 2 < 14**2] = 190  # a disc at the top left
    one: Tensors = {"image": image[None], "abstain_below": np.zeros(1, dtype=np.float32)}
    found = TASK.explain(TASK.reference(model), one, model.settings)
    shares = [a.share for a in found.attributions]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)
    assert {a.name for a in found.attributions[:3]} & {"top left", "centre", "left", "top"}
    assert found.heat is not None
    assert found.heat.shape == (8, 8)
    assert found.heat[:5, :5].mean() > found.heat[5:, 5:].mean()


def test_a_plain_image_has_equal_shares() -> None:
    _, model = trained()
    plain = np.full((1, 64, 64, 3), 90, dtype=np.uint8)
    tensors: Tensors = {"image": plain, "abstain_below": np.zeros(1, dtype=np.float32)}
    found = TASK.explain(TASK.reference(model), tensors, model.settings)
    assert [a.share for a in found.attributions] == pytest.approx([1 / 9] * 9)


def test_a_dim_lamp_is_drift() -> None:
    view, model = trained()
    predict = TASK.reference(model)
    drift = TASK.drift_reference(predict, view, model.settings)
    canonical_json(drift)
    brightness = drift["columns"]["brightness"]
    assert (brightness["tensor"], brightness["index"]) == ("look", 0)
    dim = TASK.disturbed(batch(view, model))
    assert np.median(predict(dim)["look"][:, 0]) < brightness["edges"][0]
    assert drift["columns"]["score"]["kind"] == "output"


def test_served_images_are_found_again() -> None:
    view, model = trained()
    columns = next(iter(view.chunks("test")))
    sent = TASK.rows({"image": columns["image"]}, model.settings)
    assert list(sent.columns["image"]) == list(columns["image"])
    tensors = batch(view, model)
    pixels = TASK.rows(tensors, model.settings)
    for data, image in zip(pixels.columns["image"], tensors["image"], strict=True):
        np.testing.assert_array_equal(decode(data, 64), image)
    assert (pixels.steps_back == 0).all()


def test_what_is_alike_lies_together_and_doubt_is_a_share() -> None:
    view, model = trained()
    tensors = batch(view, model)
    made = TASK.reference(model)(tensors)
    assert TASK.embed(tensors, made, model.settings).shape == (len(tensors["image"]), 32)
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.3, 0.1]])
    found = TASK.uncertainty({"probability": p}, model.settings)
    np.testing.assert_allclose(found, [1.0, 0.0, 0.7])
    empty: Tensors = {"image": tensors["image"][:0], "abstain_below": np.zeros(0, np.float32)}
    assert TASK.reference(model)(empty)["class"].shape == (0,)


def test_the_example_says_that_it_is_generated_and_can_be_learned(tmp_path: Path) -> None:
    made = TASK.example(tmp_path)
    folders = sorted(p.name for p in (tmp_path / "shapes").iterdir())
    assert folders == list(CLASSES)
    assert "generated" in made.name
    files = sorted((tmp_path / "shapes").rglob("*.png"))
    label = [CLASSES.index(f.parent.name) for f in files]
    view = ImageView(made, [decode(f.read_bytes(), 48) for f in files], label, CLASSES)
    model = fitted(view, trials=2)
    scores = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert scores.measures["accuracy"].value >= 0.7
    assert TASK.suggest(line()).gates["accuracy"].min == 0.7
    assert example.CLASSES == CLASSES
