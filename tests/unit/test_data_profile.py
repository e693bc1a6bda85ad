from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.data import profile as profiles
from genba.data.profile import Column, Gaps, Profile, Stuck


def test_a_column_is_summed_up_over_pieces() -> None:
    values = np.random.default_rng(0).normal(5, 2, 1_001)
    values[::7] = np.nan
    column = Column()
    for piece in np.array_split(values, 5):
        column.add(piece)
    told = values[~np.isnan(values)]
    found = column.summary()
    assert (found["count"], found["missing"]) == (len(told), 1_001 - len(told))
    assert (found["min"], found["max"]) == (told.min(), told.max())
    assert found["mean"] == pytest.approx(told.mean())
    assert found["std"] == pytest.approx(told.std())
    assert found["median"] == pytest.approx(np.median(told), abs=0.02)
    assert found["quantiles_method"] == "measured"


def test_quantiles_of_many_rows_are_estimated_in_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiles, "_SAMPLE_ROWS", 500)
    column = Column()
    values = np.random.default_rng(0).uniform(0, 1, 200_000)
    for piece in np.array_split(values, 100):
        column.add(piece)
    found = column.summary()
    assert found["quantiles_method"] == "estimated"
    assert found["quantiles"]["0.95"] == pytest.approx(0.95, abs=0.02)
    assert sum(map(len, column._samples)) <= 500 * (profiles._MOST_SAMPLES + 1)
    assert all(sample.base is None for sample in column._samples)  # no view that holds all rows


def test_a_column_without_values_has_counts_only() -> None:
    column = Column()
    column.add(np.array([np.nan]))
    assert column.summary() == {"count": 0, "missing": 1}


def test_gaps_are_told_per_entity_and_over_pieces() -> None:
    gaps = Gaps(2)
    gaps.add(np.array([0, 0, 0, 1, 1], dtype=np.int32), np.array([0, 10, 20, 0, 10]))
    gaps.add(np.array([0, 0, 1], dtype=np.int32), np.array([30, 60, 50]))
    found = gaps.summary()
    assert found["step_ms"] == 10
    assert gaps.count.tolist() == [1, 1]
    assert gaps.missing_steps.tolist() == [2, 3]
    assert found["longest_ms"] == 40
    assert found["regular_share"] == pytest.approx(4 / 6)


def test_one_row_per_entity_has_no_step() -> None:
    gaps = Gaps(2)
    gaps.add(np.array([0, 1], dtype=np.int32), np.array([5, 5]))
    assert gaps.summary()["step_ms"] is None


def naive_runs(code: list[int], values: list[float], limit: int) -> list[int]:
    runs = []
    for (_, value), group in groupby(zip(code, values, strict=True)):
        length = len(list(group))
        if length > limit and not np.isnan(value):
            runs.append(length)
    return sorted(runs)


@given(
    data=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0, 2.5]), st.integers(1, 30)),
        min_size=1,
        max_size=12,
    ),
    cuts=st.lists(st.integers(1, 200), max_size=4),
)
def test_stuck_runs_are_the_same_however_the_rows_are_cut(
    data: list[tuple[int, float, int]], cuts: list[int]
) -> None:
    rows = [(who, value) for who, value, length in data for _ in range(length)]
    owners = sorted({who for who, _ in rows})
    histories = {who: [v for w, v in rows if w == who] for who in owners}
    longest = max(map(len, histories.values()))
    edges = [0, *sorted({cut for cut in cuts if cut < longest}), longest]
    stuck = Stuck(3)
    stuck.limit = 12
    for begin, end in zip(edges, edges[1:], strict=False):
        piece = [(who, v) for who in owners for v in histories[who][begin:end]]
        if piece:
            code, values = zip(*piece, strict=True)
            stuck.add(np.array(code, dtype=np.int32), np.array(values))
    found = stuck.summary()
    flat = [(who, v) for who in owners for v in histories[who]]
    expected = naive_runs([who for who, _ in flat], [v for _, v in flat], 12)
    assert found["runs"] + found["resting_runs"] == len(expected)
    assert found["rows"] + found["resting_rows"] == sum(expected)


def one_entity(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    stuck = Stuck(1)
    stuck.add(np.zeros(len(values), dtype=np.int32), values)
    return stuck.summary()


def test_a_held_value_is_stuck_and_a_value_held_again_and_again_is_rest() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 2_000)
    values = noise.copy()
    values[100:150] = 3.21  # once: stuck
    for start in (300, 700, 1_100):
        values[start : start + 60] = 0.0  # three times: where it rests
    found = one_entity(values)
    assert (found["runs"], found["rows"]) == (1, 50)
    assert (found["resting_runs"], found["resting_rows"]) == (3, 180)
    assert found["resting_values"] == [0.0]


def test_a_coarse_sensor_may_repeat_itself_more_often() -> None:
    chance = np.random.default_rng(0)
    coarse = np.repeat(chance.normal(0, 1, 500), chance.geometric(0.2, 500))
    fine = one_entity(chance.normal(0, 1, 2_000))
    assert fine["longer_than_steps"] == 12
    assert one_entity(coarse)["longer_than_steps"] > 50
    assert one_entity(coarse)["runs"] == 0


def test_missing_values_are_not_stuck() -> None:
    assert one_entity(np.full(100, np.nan))["runs"] == 0


def test_values_beyond_the_memory_are_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "_MOST_VALUES", 1)
    found = one_entity(np.r_[np.arange(500), np.repeat([1.5, 2.5, 3.5], 30)])
    assert (found["runs"], found["rows"]) == (3, 90)


def test_the_profile_knows_rows_and_times_of_each_entity() -> None:
    profile = Profile(["x"], 1, 3, clock=True)
    code = np.array([0, 0, 2], dtype=np.int32)
    profile.add(code, np.array([10, 20, 5]), {"x": np.ones(3)}, np.full(3, np.nan))
    profile.add(code[:1], np.array([30]), {"x": np.ones(1)}, np.full(1, np.nan))
    assert profile.rows.tolist() == [3, 0, 1]
    assert (profile.first[0], profile.last[0], profile.last[2]) == (10, 30, 5)
    assert profile.step_ms == 10
    assert Profile(["x"], 1, 1, clock=False).step_ms is None
