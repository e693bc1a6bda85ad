"""The sheet of a text version: what it holds, where it came from and what was done to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.protocols import SourceFacts
from genba.core.values import Segment
from genba.data.images.deal import DealRule
from genba.data.images.sheet import classes, entities, rows
from genba.data.texts.alike import Groups
from genba.data.texts.reading import Reading

FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything a sheet is written from."""

    line: Line
    facts: SourceFacts
    asked: str | None  # how the task wants texts divided
    rule: DealRule
    reading: Reading
    groups: Groups
    classes: Sequence[str]
    names: Sequence[str]  # of the entities
    label: Sequence[int]
    entity: Sequence[int]
    split: Sequence[str]
    segments: Sequence[tuple[Segment, str]]  # and their splits


def build(found: Evidence) -> dict[str, Any]:
    """Return the sheet, which has no dates and no durations of its own."""
    reading = found.reading
    return {
        "format": FORMAT,
        "line": found.line.name,
        "source": encode(found.facts),
        "data": encode(found.line.data),
        "derived": _derived(found),
        "rows": {
            "read": reading.read,
            "skipped": dict(reading.skipped),
            "rejected": dict(reading.rejected),
            "kept": len(found.split),
            "next": reading.first + reading.read,
        },
        "classes": classes(found.classes, found.label, found.split),
        "texts": {
            **reading.seen.summary(),
            "languages": dict(reading.curator.languages),
            "personal_data": dict(reading.curator.personal),
        },
        "alike": _alike(found),
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


def _derived(found: Evidence) -> dict[str, Any]:
    derived: dict[str, Any] = {"classes": list(found.classes)} if found.classes else {}
    if found.line.data.split.by is None:
        derived["split.by"] = found.rule.by
    if found.groups.crowded:
        derived["near_duplicates"] = "the texts are so alike that only equal ones were grouped"
    return derived


def _alike(found: Evidence) -> dict[str, Any]:
    counts = np.bincount(found.groups.first) if len(found.groups.first) else np.zeros(1)
    several = counts[counts > 1]
    return {
        "groups": len(several),
        "texts": int(several.sum()),
        "largest": int(counts.max()),
        "too_alike": found.groups.crowded,
        "purged": sum(split == "purged" for split in found.split),
    }
