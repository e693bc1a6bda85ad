"""Nearest cases, novelty and representatives: exact, bounded, and the same every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genba.learn import neighbours
from genba.learn.clusters import representatives
from genba.learn.neighbours import nearest, novelty, standardised


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_the_nearest_are_those_of_a_full_search(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    chance = np.random.default_rng(0)
    known, query = chance.normal(size=(50, 4)) * [1, 10, 100, 0], chance.normal(size=(7, 4))
    distance, index = nearest(known, query, 3)
    scaled, asked = standardised(known, query)
    full = np.sqrt(((asked[:, None] - scaled[None]) ** 2).sum(axis=2))
    wanted = np.argsort(full, axis=1, kind="stable")[:, :3]
    assert index.tolist() == wanted.tolist()
    assert np.allclose(distance, np.take_along_axis(full, wanted, axis=1))


def test_a_case_is_its_own_nearest_to_the_last_digit() -> None:
    known = np.random.default_rng(0).normal(1e6, 1e-3, size=(300, 8))
    distance, index = nearest(known, known, 1)
    assert index[:, 0].tolist() == list(range(300))
    assert (distance == 0).all()


def test_there_are_no_more_neighbours_than_cases() -> None:
    distance, index = nearest(np.zeros((2, 3)), np.zeros((4, 3)), 9)
    assert distance.shape == index.shape == (4, 2)
    assert index[0].tolist() == [0, 1]


def test_what_is_not_a_number_is_usual() -> None:
    known = np.array([[1.0, 5.0], [3.0, np.nan], [5.0, 5.0]])
    assert nearest(known, np.array([[np.nan, np.nan]]), 1)[1].tolist() == [[1]]


def test_novelty_grows_with_distance_and_is_none_among_the_known() -> None:
    known = np.random.default_rng(0).normal(size=(500, 3))
    same = np.random.default_rng(1).normal(size=(500, 3))
    assert np.median(novelty(known, same)) == 0.0
    assert (novelty(known, same) > 0.5).mean() < 0.02
    far = novelty(known, np.array([[0.0, 0.0, 0.0], [6.0, 0, 0], [60.0, 0, 0]]))
    assert far[0] == 0.0
    assert 0.5 < far[1] < far[2] < 1.0


def test_novelty_of_nothing_known_or_nothing_asked() -> None:
    assert novelty(np.zeros((1, 2)), np.ones((3, 2))).tolist() == [0.0] * 3
    assert novelty(np.zeros((9, 2)), np.ones((0, 2))).tolist() == []
    assert novelty(np.zeros((9, 2)), np.ones((1, 2))).tolist() == [1.0]


CLOUDS = st.integers(0, 10_000).map(
    lambda seed: np.random.default_rng(seed).normal(size=(seed % 40 + 1, seed % 3 + 1))
)


@settings(deadline=None)
@given(CLOUDS, st.integers(1, 12))
def test_representatives_are_different_points(cloud: np.ndarray, k: int) -> None:
    weights = np.arange(len(cloud), dtype=np.float64)
    found = representatives(cloud, weights, k)
    assert len(set(found.tolist())) == len(found) == min(k, len(cloud))
    assert found.tolist() == representatives(cloud, weights, k).tolist()


def test_each_cluster_has_its_representative_and_weight_draws() -> None:
    chance = np.random.default_rng(0)
    points = np.concatenate([chance.normal(c, 0.1, size=(30, 2)) for c in (0, 5, 10)])
    assert sorted(representatives(points, np.ones(90), 3) // 30) == [0, 1, 2]
    line = np.arange(11.0)[:, None]
    heavy = np.where(np.arange(11) == 8, 1e6, 1.0)
    assert representatives(line, heavy, 1).tolist() == [8]


def test_points_that_are_all_the_same_are_still_told_apart() -> None:
    assert sorted(representatives(np.zeros((5, 2)), np.zeros(5), 3).tolist()) == [0, 1, 2]
