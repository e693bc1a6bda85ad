from typing import Any

import numpy as np
import pytest

from genba.learn.noise import estimate, worst

MINUTES = 600_000
LIMIT = 0.1


def episodes(seed: int, count: int = 60, length: int = 5) -> tuple[Any, Any, Any, Any]:
    """Real faults look like faults, false alarms like false alarms; each lasts some rows."""
    rng = np.random.default_rng(seed)
    fault = rng.random(count) < 0.6
    center = np.where(fault[:, None], [4.0, 0.0], [0.0, 3.0]) + rng.normal(0, 0.6, (count, 2))
    features = np.repeat(center, length, axis=0) + rng.normal(0, 0.1, (count * length, 2))
    start = np.arange(count) * 100 * MINUTES
    time = (start[:, None] + np.arange(length) * MINUTES).ravel()
    entity = np.repeat(np.arange(count) % 3, length).astype(np.int64)
    return features, entity, time, np.repeat(fault, length).astype(np.float64)


def noisy(label: Any, chosen: Any) -> Any:
    return np.where(chosen, 1.0 - label, label)


@pytest.mark.parametrize(
    ("rate", "refused_at_least", "refused_at_most"),
    [(0.0, 0, 0), (0.05, 0, 2), (0.3, 28, 30)],
)
def test_random_mistakes_are_measured(
    rate: float, refused_at_least: int, refused_at_most: int
) -> None:
    found, refused = [], 0
    for seed in range(30):
        features, entity, time, label = episodes(seed)
        chosen = np.random.default_rng(100 + seed).random(len(label)) < rate
        noise = estimate(features, entity, time, noisy(label, chosen), merge=6 * MINUTES)
        assert noise is not None
        assert noise.labels == 300
        found.append(noise.rate.value)
        refused += noise.exceeds(LIMIT)
    assert np.mean(found) == pytest.approx(rate, abs=0.05)
    assert refused_at_least <= refused <= refused_at_most


def test_whole_episodes_labelled_wrong_are_seen_by_their_look_alikes() -> None:
    refused = 0
    for seed in range(20):
        features, entity, time, label = episodes(seed, count=120)
        chosen = np.repeat(np.random.default_rng(100 + seed).random(120) < 0.35, 5)
        noise = estimate(features, entity, time, noisy(label, chosen), merge=6 * MINUTES)
        assert noise is not None
        assert noise.rate.method == "estimated"
        refused += noise.exceeds(LIMIT)
    assert refused >= 15


def test_a_bad_batch_does_not_vanish_among_good_labels() -> None:
    features, entity, time, label = episodes(3, count=800)
    bad = (np.arange(len(label)) >= 3_000) & (np.random.default_rng(4).random(len(label)) < 0.3)
    batch = (features, entity, time, noisy(label, bad))
    whole, found = estimate(*batch, merge=6 * MINUTES), worst(*batch, merge=6 * MINUTES)
    assert whole is not None
    assert found is not None
    assert not whole.exceeds(LIMIT)
    assert found.exceeds(LIMIT)
    assert found.labels == 1_000
    honest = worst(features, entity, time, label, merge=6 * MINUTES)
    assert honest is not None
    assert not honest.exceeds(LIMIT)
    assert worst(*(values[:3] for values in batch), merge=6 * MINUTES) is None


def test_a_bad_batch_that_has_just_begun_is_found() -> None:
    features, entity, time, label = episodes(5, count=400)
    newest = np.arange(len(label)) >= len(label) - 250
    bad = newest & (np.random.default_rng(6).random(len(label)) < 0.3)
    found = worst(features, entity, time, noisy(label, bad), merge=6 * MINUTES)
    assert found is not None
    assert found.labels == 250
    assert found.exceeds(LIMIT)


def test_order_and_gaps_do_not_matter() -> None:
    features, entity, time, label = episodes(0)
    features[3] = np.nan
    mixed = np.random.default_rng(0).permutation(len(label))
    first = estimate(features, entity, time, label, merge=6 * MINUTES)
    second = estimate(features[mixed], entity[mixed], time[mixed], label[mixed], merge=6 * MINUTES)
    assert first == second


def test_a_few_labels_say_nothing() -> None:
    features, entity, time, label = episodes(0, count=2, length=3)
    assert estimate(features, entity, time, label, merge=6 * MINUTES) is None
    assert estimate(features[:0], entity[:0], time[:0], label[:0], merge=1) is None
    one = episodes(1, count=1, length=60)
    assert estimate(*one, merge=6 * MINUTES) is not None  # one episode, no look-alikes elsewhere


def images(seed: int, classes: int, count: int = 600) -> tuple[Any, Any, Any, Any]:
    """Embeddings of images in tight clusters, one for each class; time says nothing."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    center = rng.normal(0, 4, (classes, 8))
    features = center[label] + rng.normal(0, 0.5, (count, 8))
    return features, np.zeros(count, dtype=np.int64), np.arange(count), label.astype(np.float64)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3])
def test_images_of_many_classes_are_judged_by_their_look_alikes(classes: int, rate: float) -> None:
    features, entity, time, label = images(1, classes)
    rng = np.random.default_rng(2)
    other = (label + rng.integers(1, classes, len(label))) % classes
    said = np.where(rng.random(len(label)) < rate, other, label)
    noise = worst(features, entity, time, said, merge=None, classes=classes)
    assert noise is not None
    assert noise.exceeds(LIMIT) == (rate > 0.2)
    # Of look-alikes a share may differ truly; the worst of several batches counts.
    assert max(0.0, rate - 0.12) <= noise.rate.value <= rate + 0.06
    assert noise.pairs == noise.labels


def test_rows_that_follow_each_other_in_time_are_no_pairs_where_there_is_no_order() -> None:
    features, entity, time, label = images(1, 2, count=9)
    assert estimate(features, entity, time, label, merge=None) is None  # too few look-alikes
    assert estimate(features[:0], entity[:0], time[:0], label[:0], merge=None) is None
