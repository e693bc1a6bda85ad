"""In which order predictions are asked about, as a pure function."""

import numpy as np
import pytest

from genba.loop.queue.order import CHOICE, first, one_per_episode, worth


def test_reasons_add_up() -> None:
    found = worth(np.array([0.5, 0.1]), np.array([0.25, 0.0]), np.array([0.0, 2.0]))
    assert found.tolist() == [0.75, 2.1]


def test_without_looks_the_most_worth_are_asked() -> None:
    worths = np.array([0.1, 0.9, 0.5])
    assert first(worths, np.zeros(3), None, 2).tolist() == [1, 2]
    assert first(worths, np.zeros(3), np.zeros((3, 1)), 5).tolist() == [1, 2, 0]
    assert first(worths, np.zeros(3), None, 0).tolist() == []


def test_of_many_that_look_alike_few_are_asked() -> None:
    looks = np.array([[0.0]] * 50 + [[10.0]] * 3 + [[20.0]])
    worths = np.linspace(1.0, 0.9, 54)
    chosen = first(worths, np.zeros(54), looks, 6)
    assert sorted({int(looks[k, 0]) for k in chosen}) == [0, 10, 20]
    assert (np.diff(worths[chosen]) <= 0).all()


def test_only_the_most_worth_are_looked_at() -> None:
    count = 2
    worths = np.linspace(1.0, 0.99, CHOICE * count + 1)
    looks = np.zeros((len(worths), 1))
    looks[-1] = 100.0  # as different as can be, and least of all
    assert len(worths) - 1 not in first(worths, np.zeros(len(worths)), looks, count)


def test_what_is_worth_much_less_is_not_asked_for_being_different() -> None:
    worths, looks = np.array([1.0, 0.95, 0.9, 0.5]), np.array([[0.0], [0.0], [0.0], [9.0]])
    assert 3 not in first(worths, np.zeros(4), looks, 2)
    worths[3] = 0.89
    assert 3 in first(worths, np.zeros(4), looks, 2)


def test_what_is_disputed_comes_first_however_alike() -> None:
    worths, disputed = np.array([1.3, 0.9, 1.2, 0.8]), np.array([1.0, 0, 1.0, 0])
    chosen = first(worths, disputed, np.zeros((4, 1)), 3)
    assert chosen.tolist() == [0, 2, 1]
    assert first(worths, disputed, None, 1).tolist() == [0]


@pytest.mark.parametrize("gap", [1, 5, 1_000])
def test_one_of_each_episode_is_kept(gap: int) -> None:
    chance = np.random.default_rng(gap)
    times = chance.integers(-3_000, 3_000, 300).tolist()
    owners = chance.choice(["a", "b"], 300).tolist()
    ranked = chance.permutation(300)
    kept = one_per_episode(owners, times, ranked, gap).tolist()
    slow: list[int] = []
    for k in ranked.tolist():
        if all(owners[j] != owners[k] or abs(times[j] - times[k]) >= gap for j in slow):
            slow.append(k)
    assert kept == slow


def test_what_has_no_moment_is_an_episode_of_its_own() -> None:
    assert one_per_episode([None, None], [None, None], np.array([1, 0]), 9).tolist() == [1, 0]
