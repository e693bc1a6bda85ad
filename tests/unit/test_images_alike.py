"""Near-duplicates and how groups of them are dealt."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genba.data.classes import is_good, ordered
from genba.data.images import alike
from genba.data.images.deal import GOOD, DealRule, Pile, deal
from genba.edge.images import encode_png
from tests.unit.image_files import jpeg, part

RULE = DealRule(by="random", test=0.2, calibrate=0.2)


def looks_of(*files: bytes) -> Any:
    return np.frombuffer(b"".join(map(alike.look, files)), np.uint8).reshape(len(files), -1)


def halved(pixels: Any) -> Any:
    return pixels.reshape(64, 2, 64, 2).mean(axis=(1, 3)).astype(np.uint8)


def test_copies_are_found_and_others_are_not() -> None:
    parts = [part(seed, 128) for seed in range(60)]
    files = [encode_png(p) for p in parts]
    bright = np.clip(parts[2].astype(float) * 0.8 + 10, 0, 255).astype(np.uint8)
    copies = [jpeg(parts[0], 50), encode_png(halved(parts[1])), encode_png(bright)]
    found = alike.groups(looks_of(*files, *copies))
    assert found.first[60:].tolist() == [0, 1, 2]
    assert found.first[:60].tolist() == list(range(60))
    assert not found.crowded


def test_parts_before_a_fixed_camera_are_no_copies() -> None:
    chance = np.random.default_rng(0)
    scene = part(1, 64).astype(float)
    parts = [np.clip(scene + chance.normal(0, 3, scene.shape), 0, 255) for _ in range(200)]
    files = [encode_png(p.astype(np.uint8)) for p in parts]
    found = alike.groups(looks_of(*files, files[7]))
    assert np.bincount(found.first).max() <= 2
    assert found.first[200] == 7


def test_a_chain_of_alike_images_is_not_one_group() -> None:
    """Parts on a belt: each is nearly the one before, the first and the last are different."""
    others = np.random.default_rng(0).integers(0, 256, (200, 256)).astype(np.uint8)
    shift = np.linspace(0, 60, 100)[:, None] * np.cos(np.arange(256) / 40)
    belt = np.clip(part(1, 16).ravel() * 0.5 + 60 + shift, 0, 255).astype(np.uint8)
    found = alike.groups(np.concatenate([others, belt]))
    assert found.crowded
    assert np.bincount(found.first).max() <= 30
    assert not alike.groups(others).crowded


def test_many_images_are_compared_by_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(1)
    looks = chance.integers(0, 256, (600, 256)).astype(np.uint8)
    for at in range(0, 600, 6):
        looks[at + 1] = np.clip(looks[at].astype(int) + chance.integers(-2, 3, 256), 0, 255)
    exact = alike.near_pairs(looks, 2.0)
    monkeypatch.setattr(alike, "EXACT", 10)
    quick = alike.near_pairs(looks, 2.0)
    assert {tuple(sorted(p)) for p in quick.tolist()} == {tuple(p) for p in exact.tolist()}
    assert len(exact) == 100
    assert len(alike.near_pairs(looks, 0.0)) == 0


def test_what_belongs_together_is_one_group() -> None:
    looks = np.random.default_rng(0).integers(0, 256, (20, 256)).astype(np.uint8)
    found = alike.groups(looks, [(3, 9), (9, 12)])
    assert found.first[[9, 12]].tolist() == [3, 3]
    assert alike.groups(looks, limit=0.0).first.tolist() == list(range(20))
    for few in (looks[:0], looks[:1]):
        assert len(alike.groups(few).first) == len(few)


def pile(count: int, **more: Any) -> Pile:
    none = np.full(count, None, dtype=object)
    fields: dict[str, Any] = {
        "group": np.arange(count),
        "label": np.zeros(count, dtype=np.int64),
        "key": np.random.default_rng(count).integers(0, 1 << 60, count).astype(np.uint64),
        "known": none,
        "asked": none,
    }
    return Pile(**(fields | more))


SPLIT = st.sampled_from([None, "train", "calibrate", "test"])
ITEMS = st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 3), SPLIT, SPLIT), max_size=40)


@given(ITEMS, st.booleans(), st.integers(0, 3))
def test_a_group_never_has_two_sides(items: list[Any], good: bool, seed: int) -> None:
    group, label, known, asked = zip(*items, strict=True) if items else ((), (), (), ())
    known = tuple(k if g % 2 else None for k, g in zip(known, group, strict=True))
    made = pile(
        len(items),
        group=np.array(group, dtype=np.int64),
        label=np.array(label, dtype=np.int64),
        known=np.array(known, dtype=object),
        asked=np.array(asked, dtype=object),
        given=frozenset(a for a in asked if a),
    )
    rule = DealRule(by=GOOD if good else "random", test=0.2, calibrate=0.2, seed=seed)
    found = deal(made, rule)
    assert set(found) <= {"train", "calibrate", "test", "purged"}
    assert found.tolist() == deal(made, rule).tolist()
    for number in set(group):
        members = [at for at, g in enumerate(group) if g == number]
        before = {known[at] for at in members if known[at]}
        used = {found[at] for at in members} - {"purged"}
        assert len(used) <= max(1, len(before))
        assert all(found[at] == known[at] for at in members if known[at])
        for at in members:
            wish = asked[at] if not before else None
            assert wish in (None, found[at], "train") or found[at] == "purged"


@pytest.mark.parametrize(
    ("count", "expected"), [(2, (0, 0)), (3, (1, 1)), (5, (1, 1)), (50, (10, 10))]
)
def test_shares(count: int, expected: tuple[int, int]) -> None:
    found = deal(pile(count), RULE).tolist()
    assert (found.count("test"), found.count("calibrate")) == expected


def test_labelled_defects_in_a_training_folder_calibrate_as_well() -> None:
    asked = np.array(["train"] * 10, dtype=object)
    made = pile(
        10, label=np.ones(10, dtype=np.int64), asked=asked, given=frozenset({"train", "test"})
    )
    found = deal(made, DealRule(by=GOOD, test=0.2, calibrate=0.2)).tolist()
    assert (found.count("train"), found.count("calibrate")) == (5, 5)


def test_what_is_near_to_two_splits_is_in_none() -> None:
    known = np.array(["train", "test", None], dtype=object)
    found = deal(pile(3, group=np.zeros(3, dtype=np.int64), known=known), RULE)
    assert found.tolist() == ["train", "test", "purged"]


def test_good_comes_first() -> None:
    assert ordered(["zinc", "OK", "dent", "no_defect"]) == ("OK", "no_defect", "dent", "zinc")
    for name in (
        "good",
        "normal_parts",
        "NODefect_images",
        "defect-free",
        "non_defective",
        "ok_front",
    ):
        assert is_good(name), name
    for name in ("not_good", "NOK", "defect", "abnormal", "T-shirt", "broken", "bad", ""):
        assert not is_good(name), name
