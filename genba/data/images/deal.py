"""Which images train, which calibrate and which test, so that no copy is on two sides.

The unit is a group of near-duplicates. What a source says (folders train/ and test/), what an
earlier version decided and what a split by time or entity asks for is respected; the rest is dealt
by the digests of the files, class by class, so that each class has its share everywhere.

Where good parts are told from defects, defects are rare and are what testing needs most: 70 % of
each kind are for testing, 15 % for calibration and 15 % for training, rounded in favour of the
test, so that a kind with fewer than seven images is only tested on.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.data.splits import mix

GOOD: Final = "good"  # how a line of good parts is split; see above
UNKNOWN: Final = -1
_DEFECTS: Final = 0.15  # of each kind, to train with, and as many to calibrate with
_LABELLED: Final = 0.5  # of the defects in a folder train/, to calibrate with
#: When images of one group are claimed by two splits, the first of these has it.
_FIRST: Final = ("test", "calibrate", "train")

Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.object_]


@dataclass(frozen=True, kw_only=True, slots=True)
class DealRule:
    """How images get their splits; plain data, kept in the dataset sheet."""

    by: str  # good, random, entity or time
    test: float
    calibrate: float
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pile:
    """The images to be dealt; everything has one entry per image."""

    group: Numbers  # of near-duplicates
    label: Numbers  # class number, -1 where it is not known
    key: npt.NDArray[np.uint64]  # from the file's digest
    known: Words  # split in an earlier version, or None
    asked: Words  # split the source, the clock or the entity asks for, or None
    given: frozenset[str] = frozenset()  # splits that are asked for by name; none is dealt to them


def deal(pile: Pile, rule: DealRule) -> Words:
    """Return the split of each image: train, calibrate, test or purged.

    Purged is what cannot be on the side it was asked for, because a near-duplicate of it is on
    another one.

    Example:
        >>> free = np.full(10, None, dtype=object)
        >>> pile = Pile(
        ...     group=np.r_[0, 0, 2:10], label=np.zeros(10, np.int64),
        ...     key=np.arange(10, dtype=np.uint64), known=free, asked=free,
        ... )
        >>> sorted(deal(pile, DealRule(by="random", test=0.2, calibrate=0.2)))[::3]
        ['calibrate', 'test', 'train', 'train']
    """
    split = np.full(len(pile.group), None, dtype=object)
    free: dict[int, list[Numbers]] = {}
    for members in _units(pile.group):
        if not _claim(pile, members, split):
            free.setdefault(int(pile.label[members].max()), []).append(members)
    for kind, units in sorted(free.items()):
        units.sort(key=lambda members: _order(pile, members, rule.seed))
        total = sum(map(len, units))
        needs, rest = _needs(rule, kind, total, pile.given)
        for members in units:
            split[members] = _place(len(members), needs, rest)
    return split


def _units(group: Numbers) -> list[Numbers]:
    """Return the numbers of the images of each group."""
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order])) + 1
    return list(np.split(order, ends)) if len(order) else []


def _claim(pile: Pile, members: Numbers, split: Words) -> bool:
    """Give a group the split that one of its images already has or asks for, if one does."""
    known, asked = pile.known[members], pile.asked[members]
    claims = {str(name) for name in (known if known.any() else asked) if name}
    owner = next((name for name in (*_FIRST, "purged") if name in claims), None)
    if known.any() and len(claims) > 1:  # it is near to images of two splits
        owner = "purged"
    loose = "calibrate" not in pile.given  # then what is asked to train may calibrate as well
    if owner is None or (owner == "train" and loose and not known.any()):
        return False
    for place, before, wish in zip(members, known, asked, strict=True):
        fits = wish in (None, owner) or (wish == "train" and owner == "calibrate" and loose)
        split[place] = before or (owner if fits else "purged")
    return True


def _order(pile: Pile, members: Numbers, seed: int) -> int:
    return int(mix(pile.key[members] ^ np.uint64(seed)).min())


def _needs(
    rule: DealRule, kind: int, total: int, given: frozenset[str]
) -> tuple[dict[str, int], str]:
    """Return how many images of a class each split is to have, and who has the rest."""
    if rule.by == GOOD and kind > 0:
        if "test" in given:
            return {"calibrate": 0 if "calibrate" in given else int(_LABELLED * total)}, "train"
        few = int(_DEFECTS * total)
        return {"calibrate": 0 if "calibrate" in given else few, "train": few}, "test"
    needs = {}
    for name, share in (("test", rule.test), ("calibrate", rule.calibrate)):
        least = 1 if total >= len(_FIRST) else 0
        needs[name] = 0 if name in given else max(least, round(share * total))
    return needs, "train"


def _place(size: int, needs: dict[str, int], rest: str) -> str:
    """Return the first split that still needs a group of this size, and note what it got."""
    for name, need in needs.items():
        if need > 0 and 2 * need >= size:
            needs[name] -= size
            return name
    return rest
