"""The parts of inspection one by one: words, sizes, drawn defects, thresholds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genba.core.line import Data, Limit, Line, Train
from genba.core.problem import Problem
from genba.core.protocols import View
from genba.edge.images import encode_png
from genba.learn import backbone as backbones
from genba.runs.effort import Effort
from genba.tasks.vision.anomaly import calibrate, fit, heads, patches, schema, simulate
from tests.unit.vision_anomaly_parts import ImageView, as_objects, plate_line, plate_view

CLASSES = ("good", "Broken_edge", "scratch")


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("good", 0.0),
        (" OK ", 0.0),
        ("false_alarm", 0.0),
        ("broken edge", 1.0),
        ("Scratch", 2.0),
        ("defect", 3.0),
        ("NG", 3.0),
        ("new:dent", 3.0),
    ],
)
def test_words_people_use(said: str, label: float) -> None:
    assert schema.label(said, CLASSES) == label


def test_a_word_nobody_knows_is_refused_with_a_way_on() -> None:
    with pytest.raises(Problem) as near:
        schema.label("scratsh", CLASSES)
    assert near.value.code == "G801"
    assert near.value.tries == ("scratch", "new:scratsh") or list(near.value.tries) == [
        "scratch",
        "new:scratsh",
    ]
    with pytest.raises(Problem, match="no kind of defect"):
        schema.label("?!", CLASSES)
    assert schema.label("defect") == 1.0


def test_names_of_classes() -> None:
    assert schema.class_name(1.0, CLASSES) == "Broken_edge"
    assert schema.class_name(3.0, CLASSES) == ""
    assert schema.kind_word("Broken_edge") == "broken_edge"


@pytest.mark.parametrize(("side", "size"), [(400, 224), (900, 320)])
def test_large_images_get_a_larger_working_size(side: int, size: int) -> None:
    image = encode_png(np.zeros((side, side), dtype=np.uint8))
    columns = {
        "image": as_objects([image]),
        "label": np.zeros(1),
        "split": np.array(["train"]),
    }
    line = replace(plate_line(), options={})
    view: View = ImageView(line, columns, ("good",))
    derived = schema.derive(line, view)
    assert derived["size"] == size
    assert derived["overkill"] == {"value": 0.02, "because": "the default"}
    assert derived["candidates"] == list(schema.CANDIDATES)


def test_wrong_settings_are_refused() -> None:
    view = plate_view(good=1, bad=0)
    for options, code in (({"size": 100}, "G103"), ({"sise": 96}, "G102"), ({"size": 32}, "G103")):
        with pytest.raises(Problem) as refused:
            schema.derive(replace(view.line, options=options), view)
        assert refused.value.code == code
    line = replace(view.line, train=Train(candidates=("gausian",)))
    with pytest.raises(Problem, match="gaussian"):
        schema.derive(line, view)


def test_the_gate_sets_the_overkill() -> None:
    line = Line(name="a", task="vision.anomaly", data=Data(source="files:a"))
    gated = replace(line, gates={"overkill": Limit(max=0.1)})
    assert schema.overkill(gated, 0.02)["value"] == pytest.approx(0.05)
    stated = replace(gated, options={"overkill": 0.03})
    assert schema.overkill(stated, 0.03)["because"] == "stated in options.overkill"
    empty = replace(line, gates={"overkill": Limit(min=0.0)})
    assert schema.overkill(empty, 0.02)["value"] == 0.02


def test_what_may_be_taken_for_good() -> None:
    label = np.array([0.0, np.nan, 2.0])
    assert schema.is_good(label, labelled=True).tolist() == [True, False, False]
    assert schema.is_good(label, labelled=False).tolist() == [False, True, False]


def test_every_kind_of_defect_is_drawn_where_the_mask_says() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(90, 160, (16, 64, 64, 3)).astype(np.uint8)
    drawn = simulate.draw(images, seed=1)
    changed = np.abs(drawn.images.astype(int) - images).max(axis=3)
    assert (changed[~drawn.masks] < 4).all()
    for kind in range(len(simulate.KINDS)):
        assert drawn.masks[drawn.kind == kind].sum(axis=(1, 2)).max() > 4
    some = simulate.draw(images[[3, 8]], seed=1, places=np.array([3, 8]))
    np.testing.assert_array_equal(some.images, drawn.images[[3, 8]])


def test_enough_parts_give_the_conformal_threshold() -> None:
    rng = np.random.default_rng(0)
    rejected = []
    for _ in range(200):
        bar = calibrate.choose(rng.gamma(4.0, size=60), np.zeros(0), 0.05)
        assert bar.guaranteed
        rejected.append(float((rng.gamma(4.0, size=400) > bar.value).mean()))
    assert np.mean(rejected) <= 0.055


def test_few_parts_are_joined_by_training_parts_unless_these_are_unlike() -> None:
    rng = np.random.default_rng(0)
    own = rng.lognormal(0.0, 0.1, 20)
    alike = calibrate.choose(own, rng.lognormal(0.0, 0.1, 100), 0.02)
    assert (alike.method, alike.guaranteed, len(alike.scores)) == ("cross-validated", False, 120)
    unlike = calibrate.choose(own, rng.lognormal(-0.5, 0.1, 100), 0.02)
    assert (unlike.method, len(unlike.scores)) == ("prediction limit", 20)
    assert unlike.value > own.max()
    one = calibrate.choose(np.array([2.0]), np.zeros(0), 0.02)
    assert one.value > 2.0


def test_the_prediction_limit_holds_for_lognormal_scores() -> None:
    rng = np.random.default_rng(1)
    rejected = [
        float(rng.lognormal(0.0, 0.2) > calibrate.prediction_limit(rng.lognormal(0, 0.2, 15), 0.05))
        for _ in range(2_000)
    ]
    assert 0.03 < np.mean(rejected) < 0.07


def test_many_scores_are_kept_as_quantiles() -> None:
    scores = np.sort(np.random.default_rng(0).random(5_000))
    kept = calibrate.thinned(scores)
    assert len(kept) == 1_000
    assert (kept[0], kept[-1]) == (scores[0], scores[-1])


def test_patches_are_the_same_at_any_batch() -> None:
    rng = np.random.default_rng(0)
    taps = {"4": rng.normal(size=(5, 6, 16, 16)), "16": rng.normal(size=(5, 8, 4, 4))}
    scales = [t.std(axis=(0, 2, 3)).astype(np.float32) for t in taps.values()]
    projected = patches.projection(scales, 7, seed=0)
    arrays: dict[str, Any] = {f"project.{n}": p for n, p in zip(taps, projected, strict=True)}
    arrays |= {f"gather.{n}": patches.gather(8, t.shape[2]) for n, t in taps.items()}
    whole = patches.vectors(taps, arrays, list(taps))
    assert whole.shape == (5, 64, 7)
    part = patches.vectors({n: t[2:3] for n, t in taps.items()}, arrays, list(taps))
    np.testing.assert_allclose(part, whole[2:3], atol=1e-5)


def test_interpolation_and_averages_keep_a_constant() -> None:
    for matrix in (patches.gather(8, 4), patches.gather(8, 16), patches.spread(16, 8, 1.0)):
        np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-6)


def test_the_projection_is_semi_orthogonal_and_undone_where_it_cannot_shrink() -> None:
    scales = [np.ones(30, dtype=np.float32), np.ones(20, dtype=np.float32)]
    joined = np.concatenate(patches.projection(scales, 10, seed=0))
    np.testing.assert_allclose(joined.T @ joined, np.eye(10) * 5, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(patches.projection(scales, 99, seed=0)), np.eye(50))


def test_candidates_without_weights_are_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = backbones.load

    def offline(name: str, *rest: Any, **how: Any) -> Any:
        if name != "filters":
            raise Problem("G902", "The registry cannot be reached.", tries=["try again"])
        return load(name, *rest, **how)

    monkeypatch.setattr(fit, "load", offline)
    notes: list[str] = []
    effort = Effort.simple()
    monkeypatch.setattr(effort.progress, "note", notes.append)
    settings = {"candidates": list(schema.CANDIDATES), "backbone": "efficientnet-lite0"}
    assert list(fit._kit(settings, effort)) == ["filters-gaussian"]
    assert len(notes) == 2
    with pytest.raises(Problem) as refused:
        fit._kit({**settings, "candidates": ["nearest"]}, effort)
    assert refused.value.code == "G902"


def test_a_shared_gaussian_has_one_place() -> None:
    rng = np.random.default_rng(0)
    taps = {"8": rng.normal(size=(12, 20, 12, 12)).astype(np.float32)}
    chosen = {"taps": "8", "dims": 16, "reach": -1, "strength": 0.1, "top": 0.0}
    trial = {"candidate": "gaussian", "settings": chosen}
    settings = {"size": 96, "head_limit_mb": 100.0}
    made, arrays = heads.build(trial, [taps], heads.scales_of(taps, ["8"]), settings, 0)
    assert arrays["whiten"].shape == (1, 16, 16)
    assert made["head"] == "gaussian"
    assert made["learned_from"] == 12
