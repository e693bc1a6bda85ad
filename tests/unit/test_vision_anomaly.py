"""A whole inspection model on generated plates: fit, export, score, compare, drift, explain."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genba.core.line import Limit, Train
from genba.core.problem import Problem
from genba.core.task import Lesson, Model, Scores
from genba.edge.images import encode_png
from genba.engines.onnxruntime import OnnxRuntime
from genba.engines.openvino import OpenVino
from genba.learn import backbone as backbones
from genba.runs.effort import Effort
from genba.tasks.vision.anomaly import (
    VisionAnomaly,
    example,
    fit,
    gallery,
    heads,
    overkill_at,
    schema,
)
from tests.unit.vision_anomaly_parts import ImageView, as_objects, plate_line, plate_view, plates

TASK = VisionAnomaly()
F32 = {"precision": "float32"}


def fitted(view: ImageView, trials: int = 1, seed: int = 0) -> Model:
    settings = TASK.derive(view.line, view)
    return TASK.fit(view, settings, Effort.simple(seed=seed, trials=trials))


@pytest.fixture(scope="module")
def view() -> ImageView:
    return plate_view()


@pytest.fixture(scope="module")
def model(view: ImageView) -> Model:
    return fitted(view)


@pytest.fixture(scope="module")
def nearest() -> Model:
    return fitted(plate_view(Train(candidates=("nearest",))))


@pytest.fixture(scope="module")
def scores(view: ImageView, model: Model) -> Scores:
    return TASK.score(TASK.reference(model), view, "test", model.settings)


def batch(view: ImageView, model: Model, split: str = "test") -> dict[str, Any]:
    return dict(TASK.samples(next(view.chunks(split)), model.settings).tensors)


def test_defects_on_plates_are_found_and_measured_with_intervals(scores: Scores) -> None:
    found = scores.measures
    assert found["auroc"].value > 0.95
    assert found["recall"].value > 0.6
    assert found["aupro"].value > 0.5
    assert found["pixel_auroc"].value > 0.9
    assert found["overkill"].value < 0.3
    assert {
        "recall_blob",
        "recall_scratch",
        "auroc_blob",
        "recall_at_overkill_0_5",
        "escape_rate",
    } <= set(found)
    assert found["recall"].value == pytest.approx(1 - found["escape_rate"].value)
    assert found["simulated_auroc"].method == "modelled"
    assert found["auroc"].method == "measured"
    for name, measure in found.items():
        if name != "head_mb":
            assert measure.low is not None
            assert measure.high is not None
            assert measure.low <= measure.value <= measure.high


@pytest.mark.parametrize("which", ["model", "nearest"])
@pytest.mark.parametrize("engine", [OnnxRuntime, OpenVino])
def test_the_graph_answers_as_the_reference(
    view: ImageView, which: str, engine: Any, request: pytest.FixtureRequest
) -> None:
    model: Model = request.getfixturevalue(which)
    tensors = batch(view, model)
    runtime = engine(TASK.export(model), F32)
    try:
        wanted, found = TASK.reference(model)(tensors), runtime.run(tensors)
        alone = runtime.run({name: tensor[:1] for name, tensor in tensors.items()})
    finally:
        runtime.close()
    assert TASK.parity(wanted, found).passed
    declared = {t.name: t for t in TASK.signature(model.settings).outputs}
    assert set(declared) == set(found)
    for name, value in wanted.items():
        assert found[name].shape[1:] == declared[name].shape[1:]
        if value.dtype == np.float32:
            np.testing.assert_allclose(found[name], value, atol=2e-4)
            np.testing.assert_allclose(alone[name], value[:1], atol=2e-4)
        else:
            assert (found[name] == value).mean() > 0.999


def test_the_threshold_is_an_input_of_the_graph(view: ImageView, model: Model) -> None:
    tensors = batch(view, model)
    runtime = OnnxRuntime(TASK.export(model), F32)
    score = runtime.run(tensors)["score"]
    for threshold in (0.1, 1.0, 3.0):
        tensors["threshold"] = np.full(len(score), threshold, dtype=np.float32)
        np.testing.assert_array_equal(runtime.run(tensors)["alarm"], score > np.float32(threshold))
    parameter = TASK.signature(model.settings).inputs[1]
    assert (parameter.role, parameter.default) == ("parameter", 1.0)


def test_wrong_answers_are_no_parity(view: ImageView, model: Model) -> None:
    wanted = TASK.reference(model)(batch(view, model))
    assert not TASK.parity(wanted, {**wanted, "alarm": ~wanted["alarm"]}).passed
    assert not TASK.parity(wanted, {**wanted, "score": wanted["score"] + 0.1}).passed
    assert not TASK.parity(wanted, {**wanted, "score": wanted["score"] * np.nan}).passed


def test_the_same_seed_gives_the_same_bits(view: ImageView, model: Model) -> None:
    again = fitted(view)
    assert again.settings == model.settings
    for name, array in model.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    other = fitted(view, seed=7)
    assert not np.array_equal(other.arrays["level.mean"], model.arrays["level.mean"])


def test_a_search_goes_on_where_it_was_killed(
    view: ImageView, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TASK.derive(view.line, view)
    whole = Effort.simple(trials=4)
    wanted = TASK.fit(view, settings, whole)
    killed, calls = Effort.simple(trials=4), 0
    make = heads.build

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(heads, "build", dies)
    with pytest.raises(KeyboardInterrupt):
        TASK.fit(view, settings, killed)
    done = killed.checkpoint.load()
    assert done is not None
    assert len(done[0]["trials"]) >= 1
    found = TASK.fit(view, settings, killed)
    assert found.settings == wanted.settings
    assert list(found.trials) == list(wanted.trials)


def test_defects_never_teach_what_is_good(view: ImageView, model: Model) -> None:
    assert model.settings["learned_from"] == 54
    assert model.settings["defects_seen"] == 4


def test_labelled_defects_take_part_in_the_choice(view: ImageView) -> None:
    settings = TASK.derive(view.line, view)
    found = gallery.survey(view)
    pictures = gallery.collect(view, found, settings, 0)
    assert len(pictures.defects) == 4
    shop = fit.Workshop(
        pictures=pictures,
        kit={"gaussian": backbones.load("filters")},
        settings=settings,
        seed=0,
    )
    trial = {"candidate": "gaussian", "settings": {k: v[0] for k, v in SPACE.items()}}
    with_defects = fit._loss(trial, 1.0, shop, Effort.simple())
    pictures.defects = pictures.defects[:0]
    assert fit._loss(trial, 1.0, shop, Effort.simple()) != with_defects


SPACE = heads.SPACE["gaussian"]


def test_a_set_without_labels_is_taken_for_good_and_measured_with_drawn_defects() -> None:
    columns = plates(good=60, bad=0)
    columns["label"] = np.full(60, np.nan)
    view = ImageView(plate_line(), columns, ())
    model = fitted(view)
    found = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert "auroc" not in found.measures
    assert "recall" not in found.measures
    assert found.measures["simulated_auroc"].method == "modelled"
    assert found.measures["overkill"].n == 12
    twice = TASK.compare(found, found, "frozen test set")
    assert [c.name for c in twice] == ["overkill", "simulated_missed_at_equal_overkill"]
    assert not any(c.worse or c.better for c in twice)


def test_twenty_good_parts_are_enough_to_work_and_it_says_what_it_cannot_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = plate_view(good=30, bad=8)
    notes: list[str] = []
    effort = Effort.simple(trials=1)
    monkeypatch.setattr(effort.progress, "note", notes.append)
    model = TASK.fit(view, {**TASK.derive(view.line, view), "overkill": {"value": 0.02}}, effort)
    calibration = model.settings["calibration"]
    assert calibration["method"] == "prediction limit"
    assert not calibration["guaranteed"]
    assert "cannot be guaranteed (49 are needed)" in notes[-1]
    found = TASK.score(TASK.reference(model), view, "test", model.settings)
    assert found.measures["auroc"].value > 0.9


def test_too_few_good_parts_are_refused() -> None:
    with pytest.raises(Problem) as refused:
        fitted(plate_view(good=12, bad=4))
    assert refused.value.code == "G530"


def test_the_overkill_of_any_threshold_can_be_estimated(model: Model) -> None:
    shares = [overkill_at(model.settings, t) for t in (0.0, 0.8, 1.0, 5.0)]
    values = [s.value for s in shares]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0
    assert values[2] <= 0.05
    assert values[3] == 0.0
    assert shares[3].high is not None
    assert shares[3].high > 0.0
    assert all(s.method == "estimated" for s in shares)


def test_memory_and_head_do_not_grow_with_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_MOST_GOOD", 24)
    monkeypatch.setattr(fit, "MOST_IMAGES", 30)
    largest: list[int] = []
    extract = backbones.Backbone.features

    def watched(self: Any, images: Any, taps: Any, **how: Any) -> Any:
        largest.append(len(images))
        return extract(self, images, taps, **how)

    monkeypatch.setattr(backbones.Backbone, "features", watched)
    few, many = fitted(plate_view(good=60, bad=0)), fitted(plate_view(good=600, bad=0))
    assert max(largest) <= gallery.BATCH
    assert many.settings["learned_from"] == few.settings["learned_from"] == 30
    assert {n: a.shape for n, a in many.arrays.items()} == {
        n: a.shape for n, a in few.arrays.items()
    }


def test_a_head_stays_within_the_limit() -> None:
    view = plate_view()
    settings = {**TASK.derive(view.line, view), "head_limit_mb": 1.0}
    model = TASK.fit(view, settings, Effort.simple(trials=1))
    assert sum(a.nbytes for a in model.arrays.values()) <= 1.1e6
    assert model.settings["head_mb"] <= 1.1


def test_a_better_and_a_worse_challenger_are_told_apart(scores: Scores) -> None:
    blind = dict(scores.evidence)
    blind["score"] = np.random.default_rng(0).random(len(blind["score"]))
    worse = TASK.compare(scores, replace(scores, evidence=blind), "frozen test set")
    assert next(c for c in worse if c.name == "missed_at_equal_overkill").worse
    better = TASK.compare(replace(scores, evidence=blind), scores, "frozen test set")
    assert next(c for c in better if c.name == "missed_at_equal_overkill").better
    nervous = {**scores.evidence, "alarm": np.ones(len(blind["score"]), dtype=bool)}
    found = TASK.compare(scores, replace(scores, evidence=nervous), "frozen test set")
    assert next(c for c in found if c.name == "overkill").worse
    assert TASK.compare(Scores(measures={}), scores, "x") == ()


def test_drift_is_noticed_in_darker_and_blurred_images(view: ImageView, model: Model) -> None:
    reference = TASK.drift_reference(TASK.reference(model), view, model.settings)
    assert reference["window"] >= 50
    assert set(reference["columns"]) == {*schema.LOOKS, "score"}
    tensors = batch(view, model)
    before = TASK.reference(model)(tensors)["look"]
    after = TASK.reference(model)(dict(TASK.disturbed(tensors)))["look"]
    brightness = reference["columns"]["brightness"]
    assert (brightness["tensor"], brightness["kind"]) == ("look", "input")
    at = brightness["index"]
    assert after[:, at].max() < before[:, at].min()
    sharpness = schema.LOOKS.index("sharpness")
    assert after[:, sharpness].mean() < before[:, sharpness].mean()


def test_an_explanation_points_at_the_defect(view: ImageView, model: Model) -> None:
    rng = np.random.default_rng(3)
    image = example.plate(rng).copy()
    image[70:80, 70:80] = 255
    tensors: dict[str, Any] = {
        "image": np.repeat(image[None, :, :, None], 3, axis=3),
        "threshold": np.ones(1, dtype=np.float32),
    }
    why = TASK.explain(TASK.reference(model), tensors, model.settings)
    assert why.attributions[0].name == "bottom right"
    assert sum(a.share for a in why.attributions) == pytest.approx(1.0)
    assert why.heat is not None
    row, column = np.unravel_index(int(why.heat.argmax()), why.heat.shape)
    assert abs(row * 4 - 75) < 16
    assert abs(column * 4 - 75) < 16


def test_baselines_are_thresholded_by_the_same_rule(view: ImageView, model: Model) -> None:
    found = TASK.baselines(view, model.settings)
    assert len(found) == 2
    for made in found.values():
        assert 0.4 <= made.measures["auroc"].value <= 1.0
        assert "aupro" not in made.measures


def test_a_lesson_changes_label_and_mask() -> None:
    columns = {
        "label": np.array([np.nan, np.nan]),
        "mask": as_objects([None, None]),
        "prediction": as_objects(["a-1", "a-2"]),
        "time": np.array([1, 2]),
    }
    mask = encode_png(np.ones((4, 4), dtype=bool))
    lessons = [
        Lesson(value="scratch", label=2.0, prediction="a-2", mask=mask),
        Lesson(value="good", label=0.0, prediction="a-1"),
    ]
    taught = TASK.teach(columns, lessons)
    assert taught["label"].tolist() == [0.0, 2.0]
    assert taught["mask"].tolist() == [None, mask]
    assert columns["mask"].tolist() == [None, None]
    bare = {name: column for name, column in columns.items() if name != "mask"}
    assert "mask" not in TASK.teach(bare, lessons)


def test_images_are_found_again_in_what_a_package_was_given() -> None:
    pixels = np.arange(2 * 64 * 64 * 3, dtype=np.uint32).reshape(2, 64, 64, 3).astype(np.uint8)
    found = TASK.rows({"image": pixels}, {})
    with Image.open(BytesIO(found.columns["image"][1])) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels[1])
    given = as_objects([b"jpeg", b"png"])
    assert TASK.rows({"image": given}, {}).columns["image"].tolist() == [b"jpeg", b"png"]


def test_the_embedding_is_what_the_graph_answers(view: ImageView, model: Model) -> None:
    tensors = batch(view, model)
    made = TASK.reference(model)(tensors)
    looks = TASK.embed({}, made, model.settings)
    assert looks.shape == (len(tensors["image"]), schema.EMBEDDING)
    assert looks.std() > 0.01


def test_the_example_is_written_as_folders(tmp_path: Path) -> None:
    line = TASK.example(tmp_path)
    assert len(list((tmp_path / "good").glob("*.png"))) == example.GOOD
    for kind in example.KINDS:
        images = {p.stem for p in (tmp_path / kind).glob("*.png")}
        masks = {p.stem for p in (tmp_path / "ground_truth" / kind).glob("*.png")}
        assert masks == {f"{stem}_mask" for stem in images}
    assert line.gates["auroc"] == Limit(min=0.8)
    assert line.task == TASK.name
