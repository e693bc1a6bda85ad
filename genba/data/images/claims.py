"""What is settled before images or texts are dealt: classes, entities, who asks for which split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from genba.core.codec import nearest
from genba.core.line import Line
from genba.core.problem import Problem
from genba.data.classes import is_good, ordered
from genba.data.images import sheet
from genba.data.images.deal import GOOD, DealRule, Words
from genba.data.images.parent import ImageParent
from genba.data.splits import deal_entities

_USES: Final = {"train": "train on", "calibrate": "calibrate on", "test": "test on"}


class Claimants(Protocol):
    """What was read and kept: images, or texts; everything that is a list has one entry each."""

    @property
    def things(self) -> str:
        """What they are called in messages."""
        ...

    line: Line
    read: int
    rejected: Counter[str]
    skipped: Counter[str]
    entities: list[str]
    entity: list[int]
    time: list[int]
    split: list[str | None]

    @property
    def kept(self) -> int:
        """How many were kept."""
        ...


def in_order(names: Sequence[str], before: Sequence[str]) -> tuple[str, ...]:
    """Return the classes: those of the parent keep their numbers, new ones follow."""
    return (*before, *ordered(name for name in names if name not in before))


def entities(names: Sequence[str], parent: ImageParent | None) -> tuple[str, ...]:
    """Return the entities: those of the parent keep their places, new ones follow sorted."""
    known = parent.version.entities if parent else ()
    return (*known, *sorted(name for name in names if name not in known))


def renumbered(
    codes: Sequence[int], old: Sequence[str], new: Sequence[str]
) -> npt.NDArray[np.int64]:
    """Return codes that count in another list of the same names; -1 stays."""
    places = np.array([*(new.index(name) for name in old), -1], dtype=np.int64)
    return places[np.array(codes, dtype=np.int64)]


def wished(split_by: str | None, line: Line) -> str | None:
    """Return how the task wants images divided, if the line has the column it needs."""
    needs = {"entity": line.data.entity, "time": line.data.time}
    return None if split_by in needs and not needs[split_by] else split_by


def usual(line: Line, classes: Sequence[str]) -> str:
    """Return how images are divided where nobody says more."""
    if line.data.time:
        return "time"
    return GOOD if classes and is_good(classes[0]) else "random"


def asked(reading: Claimants, line: Line, rule: DealRule, known: Words) -> Words:
    """Return the split that is asked for each image or text, or None.

    Raises:
        Problem: G216 when they cannot be split as the line asks.
    """
    _check_split(reading, line, rule)
    found = np.array(reading.split, dtype=object)
    if rule.by == "entity":
        found = _by_entity(reading, line, known)
    elif rule.by == "time":
        found = _by_time(reading, rule)
    for name in line.data.split.holdout:
        found[np.array(reading.entity) == reading.entities.index(name)] = "test"
    return found


def given(reading: Claimants, rule: DealRule) -> frozenset[str]:
    """Return the splits that are asked for by name, so that nothing else is dealt to them."""
    if rule.by in ("entity", "time"):
        return frozenset(_USES)
    return frozenset(name for name in reading.split if name)


def _by_entity(reading: Claimants, line: Line, known: Words) -> Words:
    """Deal whole entities; one that has a split already keeps it."""
    entity = np.array(reading.entity, dtype=np.int64)
    fixed = {
        reading.entities[code]: str(split)
        for code, split in zip(entity.tolist(), known, strict=True)
        if split not in (None, "purged")
    }
    new = [name for name in reading.entities if name not in fixed]
    split = line.data.split
    if fixed:
        dealt = dict.fromkeys(new, "train")
        if len(new) > len(_USES) - 1:
            dealt = deal_entities(new, replace(split, holdout=()), line.train.seed)
        fixed |= dealt
    else:
        fixed = deal_entities(new, split, line.train.seed)
    return np.array([fixed[reading.entities[code]] for code in entity.tolist()], dtype=object)


def _by_time(reading: Claimants, rule: DealRule) -> Words:
    time = np.array(reading.time, dtype=np.int64)
    shares = [1 - rule.test - rule.calibrate, 1 - rule.test]
    cuts = np.sort(time)[[min(int(share * len(time)), len(time) - 1) for share in shares]]
    names = np.array(list(_USES), dtype=object)
    return names[np.searchsorted(cuts, time, side="right")]


def _check_split(reading: Claimants, line: Line, rule: DealRule) -> None:
    needs = {"entity": line.data.entity, "time": line.data.time}
    if rule.by in needs and not needs[rule.by]:
        raise Problem(
            "G216",
            f"The {reading.things} cannot be split by {rule.by}: the line names no {rule.by} "
            "column.",
            where="data.split.by",
            tries=[f'{rule.by} = "COLUMN"', 'split = { by = "random" }'],
        )
    for name in line.data.split.holdout:
        if name not in reading.entities:
            near = nearest(name, reading.entities) or reading.entities[0]
            raise Problem(
                "G216",
                f"There is no entity {name!r} to hold out.",
                where="data.split.holdout",
                why=f"The entities are {', '.join(reading.entities[:20])}.",
                tries=[f'holdout = ["{near}"]'],
            )


def check_read(reading: Claimants, location: str) -> None:
    """Refuse a source of which nothing is left.

    Raises:
        Problem: G202 when there are no images, G208 when every one was left out or rejected, G217
            when times are asked for that the images do not have.
    """
    data = reading.line.data
    if (data.since or data.until) and not data.time:
        raise Problem(
            "G217",
            "data.since and data.until need a time column.",
            where="data.time",
            why=f"Without one it is not known which {reading.things} are before or after.",
            tries=['time = "the column with the times"', "remove since and until from [data]"],
        )
    if not reading.read:
        raise Problem(
            "G202",
            f"{location} has no {reading.things}.",
            where=location,
            tries=[f"ls {location}", "genba explain G202"],
        )
    if not reading.kept:
        reasons = (reading.rejected + reading.skipped).most_common(5)
        told = ", ".join(f"{reason}: {count:,}" for reason, count in reasons)
        raise Problem(
            "G208",
            f"None of the {reading.read:,} {reading.things} of {location} is left.",
            where="data.source",
            why=f"{reading.things.capitalize()} left out or rejected: {told}.",
            tries=["genba check LINE", "genba explain G208"],
        )


def check_kept(split: Words, rule: DealRule, things: str = "images") -> None:
    """Refuse images, or texts, of which a split would have none.

    Raises:
        Problem: G211.
    """
    counts: dict[str, Any] = sheet.rows(split.tolist())
    empty = [name for name in _USES if not counts.get(name)]
    if empty:
        raise Problem(
            "G211",
            f"{len(split):,} {things} are too few: nothing is left to {_USES[empty[0]]}.",
            where="data.split",
            why=f"Split by {rule.by}: {counts}. Near-duplicates are always on the same side.",
            tries=[f"add more {things}", "split = { test = 0.2, calibrate = 0.2 }"],
        )
