import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.core.line import Split
from genba.core.problem import Problem
from genba.data.splits import (
    SPLITS,
    Bound,
    SplitRule,
    check_fractions,
    deal_entities,
    fingerprints,
    mix,
    time_bounds,
)

NONE = np.empty(0, dtype=np.uint64)


def assign(rule: SplitRule, names: list[str], entity: list[int], time: list[int]) -> list[str]:
    codes = rule.assign(
        names, np.array(entity, dtype=np.int32), np.array(time, dtype=np.int64), NONE
    )
    return [SPLITS[code] for code in codes]


def by_time(**more: object) -> SplitRule:
    return SplitRule(by="time", test=0.2, calibrate=0.2, bounds=time_bounds(60, 80, 5), **more)  # type: ignore[arg-type]  # entities


def test_time_decides_with_a_purge_gap_behind_each_cut() -> None:
    times = [-(2**40), 59, 60, 64, 65, 79, 80, 84, 85, 2**40]
    expected = ["train"] * 2 + ["purged"] * 2 + ["calibrate"] * 2 + ["purged"] * 2 + ["test"] * 2
    assert assign(by_time(), ["a"], [0] * 10, times) == expected


def test_held_out_entities_are_for_the_test_alone() -> None:
    rule = by_time(entities={"b": "test"})
    assert assign(rule, ["a", "b"], [0, 1, 0, 1], [0, 0, 70, 70]) == [
        "train",
        "test",
        "calibrate",
        "test",
    ]


def test_without_room_there_is_no_calibration_part() -> None:
    assert [b.split for b in time_bounds(78, 80, 5)] == ["train", "purged", "test"]
    assert time_bounds(1, 2, 0)[1:] == (
        Bound(from_ms=1, split="calibrate"),
        Bound(from_ms=2, split="test"),
    )


def test_whole_entities_are_dealt() -> None:
    names = [f"pump-{n}" for n in range(10)]
    dealt = deal_entities(names, Split(), seed=0)
    counts = {split: list(dealt.values()).count(split) for split in ("train", "calibrate", "test")}
    assert counts == {"train": 6, "calibrate": 2, "test": 2}
    assert dealt == deal_entities(reversed(names), Split(), seed=0)
    assert dealt != deal_entities(names, Split(), seed=1)
    rule = SplitRule(by="entity", test=0.2, calibrate=0.2, entities=dealt)
    assert assign(rule, names, list(range(10)), [0] * 10) == [dealt[name] for name in names]


def test_a_named_holdout_replaces_the_dealt_test_entities() -> None:
    dealt = deal_entities(["a", "b", "c"], Split(holdout=("b",)), seed=0)
    assert [name for name, split in dealt.items() if split == "test"] == ["b"]


def test_too_few_entities_to_deal() -> None:
    with pytest.raises(Problem) as caught:
        deal_entities(["a", "b"], Split(), seed=0)
    assert caught.value.code == "G216"


@pytest.mark.parametrize(("test", "calibrate"), [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5), (-1, 0.2)])
def test_shares_that_leave_nothing(test: float, calibrate: float) -> None:
    with pytest.raises(Problem) as caught:
        check_fractions(Split(test=test, calibrate=calibrate))
    assert caught.value.code == "G216"


@given(st.lists(st.floats(width=64), min_size=1, max_size=30))
def test_equal_contents_fall_on_the_same_side(values: list[float]) -> None:
    column = np.array(values + values)
    other = np.zeros(len(column))
    contents = fingerprints([column, other])
    rule = SplitRule(by="random", test=0.3, calibrate=0.3)
    nowhere = np.zeros(len(column), dtype=np.int32)
    split = rule.assign(["all"], nowhere, nowhere.astype(np.int64), contents)
    assert split[: len(values)].tolist() == split[len(values) :].tolist()


def test_fingerprints_depend_on_every_value_and_its_column() -> None:
    one, two = np.array([1.0, 2.0, np.nan, 0.0]), np.array([2.0, 1.0, np.nan, -0.0])
    assert fingerprints([one])[3] == fingerprints([two])[3]
    assert fingerprints([one])[2] == fingerprints([-two])[2]  # any NaN is the same
    assert len(set(fingerprints([one, two]).tolist())) == 4
    assert fingerprints([one, two])[0] != fingerprints([two, one])[0]


def test_chance_keeps_the_shares_and_follows_the_seed() -> None:
    values = np.arange(20_000, dtype=np.float64)
    contents, nowhere = fingerprints([values]), np.zeros(20_000, dtype=np.int32)
    first, second = (
        SplitRule(by="random", test=0.2, calibrate=0.1, seed=seed).assign(
            ["all"], nowhere, nowhere.astype(np.int64), contents
        )
        for seed in (0, 1)
    )
    shares = np.bincount(first, minlength=4) / 20_000
    assert shares == pytest.approx([0.7, 0.1, 0.2, 0.0], abs=0.01)
    assert (first != second).mean() > 0.2


def test_the_mixing_of_bits_never_changes() -> None:
    # The published first outputs of SplitMix64 seeded with 0: splits must be the same for ever.
    steps = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert [hex(value) for value in mix(steps)] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]
