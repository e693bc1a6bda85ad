"""Numerics that inspection brings: Gaussians on a grid, coresets, ranking, regions."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from genba.learn import ranking, regions
from genba.learn.coreset import Reservoir, k_centres
from genba.learn.gaussians import EVERYWHERE, Moments

RNG = np.random.default_rng


def vectors(count: int = 200, dims: int = 4, places: int = 9) -> npt.NDArray[np.float32]:
    rng = RNG(0)
    mixed = np.eye(dims) + 0.3 * rng.normal(size=(places, dims, dims))
    drawn = np.einsum("npd,pde->npe", rng.normal(size=(count, places, dims)), mixed)
    return np.asarray(drawn + rng.normal(size=(places, dims)) * 5, dtype=np.float32)


def test_each_place_has_its_own_gaussian() -> None:
    data = vectors()
    moments = Moments((3, 3), 4)
    for start in range(0, 200, 50):
        moments.add(data[start : start + 50])
    mean, whiten = moments.whitening(reach=0, strength=0.0)
    np.testing.assert_allclose(mean, data.mean(axis=0), atol=1e-3)
    white = np.einsum("npd,ped->npe", data - mean, whiten)
    covariance = np.einsum("npd,npe->pde", white, white) / 200
    np.testing.assert_allclose(covariance, np.broadcast_to(np.eye(4), (9, 4, 4)), atol=0.2)


def test_neighbours_and_all_are_pooled() -> None:
    data = vectors()
    moments = Moments((3, 3), 4)
    moments.add(data)
    mean, _ = moments.whitening(reach=1, strength=0.0)
    np.testing.assert_allclose(mean[4], data.mean(axis=(0, 1)), atol=1e-3)
    corner = data.reshape(200, 3, 3, 4)[:, :2, :2].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(mean[0], corner, atol=1e-3)
    _, _, covariance = moments._pooled(1)
    flat = data.reshape(-1, 4)
    np.testing.assert_allclose(covariance[4], np.cov(flat.T, bias=True), rtol=2e-3, atol=1e-2)
    whole, whiten = moments.whitening(reach=EVERYWHERE, strength=0.0)
    assert whiten.shape == (1, 4, 4)
    np.testing.assert_allclose(whole[0], flat.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(moments._pooled(EVERYWHERE)[2][0], np.cov(flat.T, bias=True), 2e-3)


def test_three_images_are_enough_for_many_dimensions() -> None:
    moments = Moments((2, 2), 20)
    moments.add(RNG(0).normal(size=(3, 4, 20)).astype(np.float32))
    _, whiten = moments.whitening(reach=0, strength=5.0)
    assert np.isfinite(whiten).all()


def test_a_reservoir_is_a_fair_sample_whatever_the_pieces() -> None:
    kept = Reservoir(200, seed=0)
    for start in range(0, 10_000, 130):
        part = np.arange(start, min(start + 130, 10_000), dtype=np.float32)[:, None]
        kept.add(part)
    assert (kept.seen, kept.vectors.shape) == (10_000, (200, 1))
    assert abs(kept.vectors.mean() - 5_000) < 700
    small = Reservoir(50, seed=0)
    small.add(np.zeros((3, 2), dtype=np.float32))
    assert small.vectors.shape == (3, 2)


def test_k_centres_cover_better_than_chance() -> None:
    rng = RNG(0)
    cloud = np.concatenate([rng.normal(size=(900, 40)), rng.normal(6, 1, size=(20, 40))])
    points = cloud.astype(np.float32)

    def cover(chosen: npt.NDArray[np.int64]) -> float:
        away = ((points[:, None] - points[chosen]) ** 2).sum(axis=2)
        return float(away.min(axis=1).max())

    chosen = k_centres(points, 30, seed=0)
    assert len(set(chosen.tolist())) == 30
    assert cover(chosen) < cover(np.arange(30))
    assert k_centres(points, 5_000, seed=0).tolist() == list(range(920))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1), st.lists(st.integers(0, 6), min_size=1))
def test_auroc_is_that_of_scikit_learn(good: list[int], bad: list[int]) -> None:
    left, right = np.array(good, dtype=float), np.array(bad, dtype=float)
    truth = [0] * len(good) + [1] * len(bad)
    wanted = roc_auc_score(truth, np.concatenate([left, right]))
    assert float(ranking.auroc(left, right)) == pytest.approx(wanted)


def test_weights_are_repetitions() -> None:
    good, bad = np.array([1.0, 2.0, 3.0]), np.array([2.5, 0.5])
    weighted = ranking.auroc(good, bad, np.array([2.0, 0.0, 1.0]), np.array([1.0, 3.0]))
    repeated = ranking.auroc(np.array([1.0, 1.0, 3.0]), np.array([2.5, 0.5, 0.5, 0.5]))
    assert float(weighted) == pytest.approx(float(repeated))


def test_recall_at_a_stated_false_rate() -> None:
    good, bad = np.arange(100.0), np.array([94.5, 98.5, 200.0, 3.0])
    assert float(ranking.recall_at(good, bad, 0.05)) == 0.75
    assert float(ranking.recall_at(good, bad, 0.0)) == 0.25
    measure = ranking.recall_measure(good, bad, 0.05)
    assert measure is not None
    assert measure.low is not None
    assert measure.low < 0.75
    assert ranking.recall_measure(good, bad[:0], 0.05) is None
    assert ranking.auroc_measure(good[:0], bad) is None


def test_perfect_separation_still_has_an_interval() -> None:
    measure = ranking.auroc_measure(np.arange(10.0), np.arange(10.0) + 20)
    assert measure is not None
    assert measure.value == 1.0
    assert measure.low is not None
    assert measure.low < 0.8
    assert ranking.share_measure([]) is None


def test_regions_touch_at_corners_and_snakes_are_one() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[0, :] = mask[:, 19] = mask[19, :] = True
    mask[5:8, 5:8] = True
    mask[8, 8] = True
    found = regions.label_regions(mask)
    assert found.max() == 2
    assert found[0, 0] == found[19, 0]
    assert found[8, 8] == found[5, 5]
    assert (found > 0).tolist() == mask.tolist()


def test_a_perfect_map_finds_all_and_a_blind_one_what_chance_finds() -> None:
    rng = RNG(0)
    perfect, blind = [], []
    for number in range(20):
        mask = np.zeros((32, 32), dtype=bool)
        if number % 2:
            mask[4:12, 4 : 8 + number] = True
            mask[24:28, 24:28] = True
        cells = mask.reshape(16, 2, 16, 2).mean(axis=(1, 3))
        perfect.append(regions.count_pixels(0.1 + cells, mask))
        blind.append(regions.count_pixels(rng.uniform(0.1, 1.0, (16, 16)), mask))
    best, worst = regions.pixel_measures(perfect), regions.pixel_measures(blind)
    assert best["aupro"].value == pytest.approx(1.0, abs=0.01)
    assert best["pixel_auroc"].value == pytest.approx(1.0, abs=0.01)
    assert worst["pixel_auroc"].value == pytest.approx(0.5, abs=0.1)
    assert worst["aupro"].value == pytest.approx(0.15, abs=0.1)
    assert worst["aupro"].low is not None
    assert regions.pixel_measures(blind[::2]) == {}


def test_pixel_auroc_is_that_of_scikit_learn() -> None:
    rng = RNG(1)
    mask = rng.random((32, 32)) < 0.2
    chart = rng.gamma(4.0, 0.2, (32, 32)) + 0.2 * mask
    found = regions.pixel_measures([regions.count_pixels(chart, mask)])["pixel_auroc"].value
    assert found == pytest.approx(roc_auc_score(mask.ravel(), chart.ravel()), abs=5e-3)
