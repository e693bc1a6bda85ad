"""The parts of vision.classify: settings, labels, heads, calibration, measures, comparison."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.core.line import Budget, Train
from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors
from genba.core.task import Scores
from genba.learn.classes import calibrate, heads, words
from genba.learn.classes.answers import answers
from genba.learn.classes.chosen import choose
from genba.learn.classes.compare import compare
from genba.learn.classes.heads import Head, Lesson
from genba.learn.proportion import proportion
from genba.tasks.vision.classify.score import score
from tests.unit.image_view import ImageView
from tests.unit.shapes import TASK, line, shapes

CLASSES = ("T-shirt", "Ankle boot", "bag")


@pytest.mark.parametrize(
    ("side", "size"), [(28, 96), (16, 96), (48, 160), (64, 192), (120, 224), (900, 224)]
)
def test_small_images_are_not_blown_up_blindly(side: int, size: int) -> None:
    pixels = [np.zeros((side, side, 3), np.uint8)] * 10
    view = ImageView(line(size=0), pixels, np.zeros(10), CLASSES)
    assert TASK.derive(view.line, view)["size"] == size


def test_settings_say_what_was_derived() -> None:
    view = shapes(each=5, size=96, abstain=0.02)
    made = TASK.derive(replace(view.line, train=Train(budget=Budget(minutes=2))), view)
    assert made["images"]["most"] == 52_083
    assert "2 minutes" in made["images"]["because"]
    assert made["allowed_error"] == 0.02
    assert made["candidates"] == ["linear", "prototype", "head"]


@pytest.mark.parametrize(
    ("options", "code"),
    [({"size": 100}, "G103"), ({"abstain": 2.0}, "G103"), ({"shot": 1}, "G102")],
)
def test_wrong_options_are_refused(options: dict[str, Any], code: str) -> None:
    view = shapes(each=5)
    wrong = replace(view.line, options=options)
    with pytest.raises(Problem, match=code):
        TASK.derive(wrong, view)


def test_an_unknown_candidate_is_refused() -> None:
    view = shapes(each=5)
    wrong = replace(view.line, train=Train(candidates=("linaer",)))
    with pytest.raises(Problem, match="did you mean linear"):
        TASK.derive(wrong, view)


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("t shirt", 0),
        ("ANKLE_BOOT", 1),
        (" bag ", 2),
        ("new:hat", 3),
        ("New: Bag", 2),
    ],
)
def test_words_become_labels(word: str, label: float) -> None:
    assert words.label(word, CLASSES) == label


@pytest.mark.parametrize("word", ["?!", "", "new:", "new:?", "hat"])
def test_nonsense_is_no_label(word: str) -> None:
    with pytest.raises(Problem, match="G801") as caught:
        words.label(word, CLASSES)
    assert caught.value.tries


def test_a_near_miss_is_named() -> None:
    with pytest.raises(Problem, match="did you mean Ankle boot"):
        words.label("ankel boot", CLASSES)


def test_a_label_judges_an_answer() -> None:
    assert TASK.outcome({"class": 1}, 1.0, {}) == "confirmed"
    assert TASK.outcome({"class": 1}, 3.0, {}) == "wrong"
    assert TASK.outcome({"class": 1}, float("nan"), {}) == ""
    assert TASK.outcome({}, 1.0, {}) == ""


def cloud(count: int, kinds: int = 3, size: int = 12, seed: int = 0) -> Lesson:
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(99).normal(0, 2, (kinds, size))
    y = np.arange(count) % kinds
    x = (centre[y] + rng.normal(0, 1, (count, size))) * rng.uniform(1, 9, size)[None] * 0 + (
        centre[y] + rng.normal(0, 1, (count, size))
    ) * np.linspace(0.1, 50, size)
    return Lesson(
        x=(x + 7).astype(np.float32), y=y.astype(np.int64), classes=kinds, balance=False, seed=0
    )


CHOICES: dict[str, dict[str, Any]] = {
    "linear": {"penalty": 0.01},
    "prototype": {"shrink": 0.1},
    "head": {"width": 16, "dropout": 0.1, "decay": 1e-5},
}


@pytest.mark.parametrize("kinds", [2, 3])
@pytest.mark.parametrize("candidate", CHOICES)
def test_heads_learn_whatever_the_scale(candidate: str, kinds: int) -> None:
    head = heads.train(candidate, cloud(300, kinds), CHOICES[candidate])
    apart = cloud(200, kinds, seed=1)
    assert (head(apart.x).argmax(axis=1) == apart.y).mean() > 0.9
    again = Head.of(head.to_arrays())
    np.testing.assert_array_equal(again(apart.x), head(apart.x))
    np.testing.assert_allclose(head.cooled(4.0)(apart.x), head(apart.x) / 4, rtol=1e-4, atol=1e-4)


def test_linear_is_the_minimum_of_its_loss() -> None:
    """The slope of the penalised loss is nearly zero where the head stands."""
    lesson = cloud(200)
    head = heads.train("linear", lesson, {"penalty": 0.1})
    mean, scale = heads.moments(lesson.x)
    z = (lesson.x - mean) / scale
    weight = head.layers[0][0] * scale[:, None]
    slope = heads.softmax(head(lesson.x).astype(np.float64))
    slope[np.arange(len(lesson.y)), lesson.y] -= 1
    total = z.T @ slope / len(z) + 0.1 * weight
    assert np.abs(total).max() < 5e-3


def test_prototypes_are_linear_discriminant_analysis() -> None:
    lesson = cloud(400)
    head = heads.train("prototype", lesson, {"shrink": 0.0})
    x = lesson.x.astype(np.float64)
    means = np.stack([x[lesson.y == k].mean(axis=0) for k in range(3)])
    rest = x - means[lesson.y]
    inverse = np.linalg.inv(rest.T @ rest / len(x))
    distance = np.stack([((x - m) @ inverse * (x - m)).sum(axis=1) for m in means], axis=1)
    wanted = -0.5 * (distance - distance.mean(axis=1, keepdims=True))
    found = head(lesson.x) - head(lesson.x).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=0.05 * np.abs(wanted).max())


def test_balance_weighs_a_rare_class_like_the_others() -> None:
    lesson = cloud(300)
    rare = lesson.rows(np.flatnonzero((lesson.y != 2) | (np.arange(300) < 30)))
    assert np.ptp(rare.weight) == 0
    even = replace(rare, balance=True)
    mass = [even.weight[even.y == k].sum() for k in range(3)]
    np.testing.assert_allclose(mass, len(even.y) / 3, rtol=1e-5)


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4_000, 5)).astype(np.float32)
    p = heads.softmax(logits.astype(np.float64))
    label = np.array([rng.choice(5, p=row) for row in p])
    assert calibrate.temperature(logits * np.float32(3.0), label) == pytest.approx(3.0, rel=0.1)
    assert calibrate.temperature(logits[:0], label[:0]) == pytest.approx(1.0, rel=1e-3)


def simulated(count: int, seed: int) -> tuple[Array, Array]:
    """Confidences that are true: each answer is right with its own confidence."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.7, 1.0, count)
    return sure, rng.random(count) < sure


def test_the_promise_about_errors_is_kept() -> None:
    """In at least nine of ten calibrations no more than the allowed share is wrong."""
    broken = promised = 0
    for seed in range(100):
        found = calibrate.bar(*simulated(2_000, seed), allowed=0.1)
        promised += found.guaranteed
        # Confidence is uniform above the bar, so what is wrong there is known exactly.
        broken += found.guaranteed and (1.0 - max(found.value, 0.7)) / 2 > 0.1
    assert promised > 90
    assert broken <= 16  # one in ten of a hundred, two standard deviations above


def test_a_bar_for_few_images_promises_nothing() -> None:
    found = calibrate.bar(*simulated(12, 0), allowed=0.05)
    assert not found.guaranteed
    assert found.abstained <= 0.5


def test_a_good_model_never_abstains_and_a_bad_one_not_always() -> None:
    sure = np.linspace(0.5, 1.0, 400)
    good = calibrate.bar(sure, np.ones(400, dtype=bool), allowed=0.05)
    assert (good.value, good.abstained, good.wrong, good.guaranteed) == (0.0, 0.0, 0.0, True)
    bad = calibrate.bar(sure, np.zeros(400, dtype=bool), allowed=0.05)
    assert (bad.abstained, bad.guaranteed) == (0.5, False)
    always = calibrate.bar(sure, np.zeros(400, dtype=bool), allowed=0.0)
    assert (always.value, always.wrong) == (0.0, 1.0)
    assert calibrate.bar(sure[:0], np.zeros(0, dtype=bool), allowed=0.05).images == 0


@given(st.integers(1, 400), st.floats(0.01, 0.5), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_what_is_said_of_a_bar_is_true_of_its_images(count: int, allowed: float, seed: int) -> None:
    sure, correct = simulated(count, seed)
    found = calibrate.bar(sure, correct, allowed)
    answered = sure >= found.value
    assert answered.mean() == pytest.approx(1.0 - found.abstained)
    assert (~correct)[answered].mean() == pytest.approx(found.wrong)
    if found.guaranteed:
        assert found.wrong <= allowed


def test_images_are_chosen_by_class() -> None:
    view = shapes(each=100)
    view.label[view.label == 2] = np.where(np.arange(100) < 40, 2.0, np.nan)
    made = {**TASK.derive(view.line, view), "shots": 0}
    everything = choose(view, "train", made, 10_000, seed=0)
    assert np.isfinite(view.label[view.split == "train"][everything.at]).all()
    some = choose(view, "train", made, 60, seed=0)
    count = np.bincount(some.label)
    assert count[2] == 20  # a rare class is kept
    assert abs(int(count[0]) - int(count[1])) <= 1
    assert 55 <= len(some.at) <= 75
    few = choose(view, "train", {**made, "shots": 3}, 10_000, seed=0)
    assert np.bincount(few.label).tolist() == [3, 3, 3]
    other = choose(view, "train", {**made, "shots": 3}, 10_000, seed=1)
    assert few.at.tolist() != other.at.tolist()


def said(view: ImageView, right: float, seed: int = 0, classes: int = 3) -> Any:
    """Return a predict that is right at a known rate, for the images in their order."""
    rng = np.random.default_rng(seed)
    truth = iter(view.label[view.split == "test"])

    def predict(tensors: Tensors) -> dict[str, Array]:
        count = len(tensors["image"])
        p = np.full((count, classes), 0.05, dtype=np.float32)
        for i in range(count):
            label = int(next(truth))
            best = label if rng.random() < right else (label + 1) % 3
            p[i, min(best, classes - 1)] = 1 - 0.05 * (classes - 1)
        return {"probability": p, **answers(p, np.asarray(tensors["abstain_below"]))}

    return predict


def judged(right: float, seed: int = 0, each: int = 200, classes: int = 3) -> Scores:
    view = shapes(each=each)
    made = {**TASK.derive(view.line, view), "size": 16}
    made["classes"] = made["classes"][:classes]
    return score(said(view, right, seed, classes), view, "test", made)


def test_measures_are_what_they_are_called() -> None:
    scores = judged(0.8)
    found, evidence = scores.measures, scores.evidence
    assert found["accuracy"].value == pytest.approx(evidence["correct"].mean())
    recalls = [found[f"recall_{name}"].value for name in ("bar", "disc", "ring")]
    assert found["worst_recall"].value == min(recalls)
    assert found["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    confusion = evidence["confusion"]
    assert confusion.sum() == len(evidence["row"])
    assert found["precision_bar"].value == pytest.approx(confusion[0, 0] / confusion[:, 0].sum())
    gap = abs(0.9 - found["accuracy"].value)
    assert found["ece"].value >= gap - 1e-6  # it is always 90 % sure
    assert found["abstained"].value == 0
    assert found["accuracy_answered"].value == found["accuracy"].value
    for name, measure in found.items():
        assert measure.low is not None, name
        assert measure.high is not None, name
        assert measure.low <= measure.value <= measure.high, name


def test_a_class_the_model_does_not_have_is_always_wrong() -> None:
    scores = judged(1.0, classes=2)
    assert scores.measures["accuracy"].value == pytest.approx(2 / 3, abs=0.02)
    assert scores.measures["worst_recall"].value == 0
    assert "recall_ring" not in scores.measures
    assert scores.evidence["confusion"].shape == (2, 2)


def test_groups_widen_the_intervals() -> None:
    view = shapes(each=100)
    made = {**TASK.derive(view.line, view), "size": 16}
    alone = score(said(view, 0.7), view, "test", made).measures["accuracy"]
    view.entity = (np.arange(300) // 20).astype(np.int32)
    grouped = score(said(view, 0.7), view, "test", made)
    assert len(np.unique(grouped.evidence["block"])) == 15
    assert grouped.measures["accuracy"].value == alone.value
    assert grouped.measures["accuracy"].low != alone.low


def test_no_labelled_image_gives_no_measure() -> None:
    view = shapes(each=5)
    made = {**TASK.derive(view.line, view), "size": 16}
    view.label[:] = np.nan
    assert score(said(view, 1.0), view, "test", made).measures == {}


def test_a_worse_model_is_called_worse_and_the_same_is_not() -> None:
    good, bad = judged(0.95, seed=1), judged(0.7, seed=2)
    worse = {c.name: c for c in compare(good, bad, "frozen test set")}
    assert sorted(worse) == ["error", "worst_class_error"]
    assert worse["error"].worse
    assert not worse["error"].better
    assert compare(bad, good, "frozen test set")[0].better
    for same in compare(good, good, "frozen test set"):
        assert not same.worse
        assert not same.better


def test_one_lost_class_is_seen_behind_a_good_average() -> None:
    good = judged(0.9, seed=1)
    evidence = dict(good.evidence)
    lost = np.where(evidence["label"] == 1, 0.0, 1.0)
    found = {
        c.name: c for c in compare(good, replace(good, evidence={**evidence, "correct": lost}), "x")
    }
    assert found["worst_class_error"].worse


def test_models_without_common_rows_are_not_compared() -> None:
    one = judged(0.9, each=30)
    other = replace(one, evidence={**one.evidence, "row": one.evidence["row"] + 10_000})
    assert compare(one, other, "frozen test set") == ()


def test_a_share_of_none_is_not_certain() -> None:
    none = proportion(0, 10)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.2775, abs=1e-3)
