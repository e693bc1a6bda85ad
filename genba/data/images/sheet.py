"""The sheet of an image version: what it holds, where it came from and what was done to it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.protocols import SourceFacts
from genba.core.values import Segment
from genba.data.images.alike import Groups
from genba.data.images.deal import DealRule
from genba.data.images.examine import Seen

FORMAT: Final = 1
_MOST_LISTED: Final = 1_000  # entities that are listed one by one
SPLITS: Final = ("train", "calibrate", "test", "purged")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything a sheet is written from."""

    line: Line
    facts: SourceFacts
    asked: str | None  # how the task wants images divided
    rule: DealRule
    layout: str
    read: int
    numbered: int  # the number of the next row
    skipped: Mapping[str, int]
    rejected: Mapping[str, int]
    seen: Seen
    groups: Groups
    classes: Sequence[str]
    names: Sequence[str]  # of the entities
    label: Sequence[int]
    entity: Sequence[int]
    split: Sequence[str]
    segments: Sequence[tuple[Segment, str]]  # and their splits


def build(found: Evidence) -> dict[str, Any]:
    """Return the sheet, which has no dates and no durations of its own."""
    split = np.array(found.split, dtype=object)
    return {
        "format": FORMAT,
        "line": found.line.name,
        "source": encode(found.facts),
        "data": encode(found.line.data),
        "derived": _derived(found),
        "rows": {
            "read": found.read,
            "skipped": dict(found.skipped),
            "rejected": dict(found.rejected),
            "kept": len(split),
            "next": found.numbered,
        },
        "classes": classes(found.classes, found.label, found.split),
        "images": found.seen.summary(),
        "alike": _alike(found, split),
        "columns": {},
        "entities": entities(found.names, found.entity),
        "split": {
            "rule": encode(found.rule),
            "rows": rows(found.split),
            "stops": [],
            "segments": {segment.digest: of for segment, of in found.segments},
            **({"asked": found.asked} if found.asked is not None else {}),
        },
        "segments": [encode(segment) for segment, _ in found.segments],
    }


def rows(split: Sequence[str]) -> dict[str, int]:
    """Return how many rows each split has, in the usual order."""
    counts = Counter(split)
    return {name: counts[name] for name in SPLITS if counts[name]}


def classes(
    names: Sequence[str], label: Sequence[int], split: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return how many images of each class each split has; "" is not labelled.

    Example:
        >>> classes(["good", "dent"], [0, 1, -1], ["train", "test", "train"])
        {'good': {'train': 1}, 'dent': {'test': 1}, '': {'train': 1}}
    """
    counts = Counter(zip(label, split, strict=True))
    found = {
        name: {of: counts[number, of] for of in SPLITS if counts[number, of]}
        for number, name in [*enumerate(names), (-1, "")]
    }
    return {name: of for name, of in found.items() if of or name}


def _derived(found: Evidence) -> dict[str, Any]:
    derived: dict[str, Any] = {"classes": list(found.classes)}
    if found.layout:
        derived["layout"] = found.layout
    if found.line.data.split.by is None:
        derived["split.by"] = found.rule.by
    if found.groups.crowded:
        derived["near_duplicates"] = (
            "the images are so alike that copies cannot be told from other parts"
        )
    return derived


def _alike(found: Evidence, split: Any) -> dict[str, Any]:
    counts = np.bincount(found.groups.first) if len(found.groups.first) else np.zeros(1)
    several = counts[counts > 1]
    return {
        "groups": len(several),
        "images": int(several.sum()),
        "largest": int(counts.max()),
        "limit": found.groups.limit,
        "too_alike": found.groups.crowded,
        "purged": int(np.count_nonzero(split == "purged")),
    }


def entities(names: Sequence[str], entity: Sequence[int]) -> dict[str, Any]:
    """Return how many rows each entity has; of very many, the first thousand are listed."""
    counts = Counter(entity)
    listed = {
        name: {"rows": counts[number]}
        for number, name in list(enumerate(names))[:_MOST_LISTED]
        if counts[number]
    }
    return {"count": len(counts), "by_name": listed}
