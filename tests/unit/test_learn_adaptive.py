"""Adaptive conformal inference, and ridge from sums."""

import numpy as np
import pytest

from genba.learn.adaptive import Widths, corrected, followed, widths
from genba.learn.normal import NormalEquations


def test_adapting_holds_the_promise_when_the_world_changes() -> None:
    chance = np.random.default_rng(0)
    table = widths(np.abs(chance.normal(0, 1 / 1.645, 5_000)), 0.1)
    ratios = np.abs(chance.normal(0, 1 / 1.645, (4_000, 1)))
    ratios[2_000:] *= 2.0
    known = [np.array([i - 1], dtype=np.int64) if i else np.zeros(0, int) for i in range(4_000)]
    held = followed(ratios, known, table, 0.1)
    assert (ratios[2_000:] <= 1).mean() < 0.7
    assert held.mean() == pytest.approx(0.9, abs=0.02)
    assert held[2_200:].mean() == pytest.approx(0.9, abs=0.03)


def test_nothing_known_changes_nothing() -> None:
    ratios = np.full((3, 2), np.nan)
    table = Widths(level=(0.1, 0.2), multiplier=(1.0, 0.5))
    known = [np.array([0, 1])] * 3
    assert not followed(ratios, known, table, 0.1).any()


def test_levels_and_widths_are_two_sides_of_one_table() -> None:
    table = widths(np.linspace(0, 2, 2_001), 0.1)
    assert table.at(0.1) == pytest.approx(1.0)
    assert table.level_of(table.at(0.3)) == pytest.approx(0.3)
    assert table.at(-0.01) > table.at(0.001)
    assert Widths.from_json(table.to_json()) == table
    assert widths([np.nan], 0.1).at(0.1) == 1.0
    assert corrected(0.1, 0.5, 0.1) < 0.1 < corrected(0.1, 0.0, 0.1)


def test_sums_in_pieces_solve_as_the_whole() -> None:
    chance = np.random.default_rng(0)
    x, y, weight = chance.normal(size=(50, 4)), chance.normal(size=(50, 3)), chance.random(50)
    left, right = NormalEquations.empty(4, 3), NormalEquations.empty(4, 3)
    left.add(x[:20], y[:20], weight[:20])
    right.add(x[20:], y[20:], weight[20:])
    gram = x.T @ (weight[:, None] * x)
    unit = np.trace(gram) / 4
    wanted = np.linalg.solve(gram + 0.5 * unit * np.eye(4), x.T @ (weight[:, None] * y))
    np.testing.assert_allclose(left.joined(right).solve(0.5), wanted, rtol=1e-6)
    assert left.joined(right).count == pytest.approx(weight.sum())
    assert NormalEquations.empty(0, 2).solve(1.0).shape == (0, 2)
