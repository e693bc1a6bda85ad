"""The dataset sheet: what a version holds, where it came from and what was done to it, as JSON.

It has no dates and no durations of its own, so the same source gives the same sheet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.protocols import SourceFacts
from genba.core.values import Segment
from genba.data.intake import Intake
from genba.data.profile import Profile
from genba.data.splits import SplitRule

FORMAT: Final = 1
_MOST_LISTED: Final = 1_000  # entities and files that are listed one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Everything a sheet is written from."""

    line: Line
    facts: SourceFacts
    intake: Intake
    profile: Profile
    rule: SplitRule
    split_rows: Mapping[str, int]
    rejected: Mapping[str, int]
    names: Sequence[str]
    stops: Sequence[int]
    segments: Sequence[Segment]


def build(found: Evidence) -> dict[str, Any]:
    """Return the sheet."""
    intake, profile = found.intake, found.profile
    kept = int(profile.rows.sum())
    return {
        "format": FORMAT,
        "line": found.line.name,
        "source": encode(found.facts),
        "data": encode(found.line.data),
        "derived": _derived(found),
        "rows": {
            "read": intake.read,
            "skipped": dict(intake.skipped),
            "rejected": dict(found.rejected),
            "kept": kept,
        },
        "files": intake.files[:_MOST_LISTED],
        "columns": {
            name: {"role": _role(found, name), **column.summary()}
            for name, column in profile.columns.items()
        },
        "label": _label(found),
        "time": _time(found),
        "stuck": {name: stuck.summary() for name, stuck in profile.stuck.items()},
        "entities": _entities(found),
        "split": {
            "rule": encode(found.rule),
            "rows": dict(found.split_rows),
            "stops": list(found.stops),
        },
        "segments": [encode(segment) for segment in found.segments],
    }


def _derived(found: Evidence) -> dict[str, Any]:
    """Return what the line leaves open and how it was settled."""
    data, roles, rule = found.line.data, found.intake.roles, found.rule
    derived: dict[str, Any] = {"purge_steps": rule.purge_steps}
    if not data.inputs:
        derived["inputs"] = list(roles.inputs)
    if data.split.by is None:
        derived["split.by"] = rule.by
    if not data.entities and data.entity:
        derived["entities"] = len(found.names)
    if found.profile.step_ms is not None:
        derived["step_ms"] = found.profile.step_ms
    if found.intake.clock and found.intake.clock.naive:
        derived["time"] = f"{found.intake.clock.naive:,} times without an offset are taken as UTC"
    return derived


def _role(found: Evidence, name: str) -> str:
    roles = found.intake.roles
    if name == roles.output:
        return "output"
    return "input" if name in roles.inputs else "extra"


def _label(found: Evidence) -> dict[str, Any] | None:
    if not found.intake.roles.label:
        return None
    summary = found.profile.label.summary()
    return {key: summary[key] for key in ("count", "missing", "mean") if key in summary}


def _time(found: Evidence) -> dict[str, Any] | None:
    clock, gaps, profile = found.intake.clock, found.profile.gaps, found.profile
    if clock is None or gaps is None:
        return None
    return {
        **clock.notes(),
        "from_ms": int(profile.first.min()),
        "to_ms": int(profile.last.max()),
        "out_of_order": found.intake.out_of_order,
        **gaps.summary(),
    }


def _entities(found: Evidence) -> dict[str, Any]:
    profile, gaps = found.profile, found.profile.gaps
    listed: dict[str, Any] = {}
    for place, name in enumerate(found.names[:_MOST_LISTED]):
        if not profile.rows[place]:
            continue
        listed[name] = {"rows": int(profile.rows[place])}
        if gaps is not None:
            listed[name] |= {
                "from_ms": int(profile.first[place]),
                "to_ms": int(profile.last[place]),
                "gaps": int(gaps.count[place]),
                "missing_steps": int(gaps.missing_steps[place]),
            }
    return {"count": int(np.count_nonzero(profile.rows)), "by_name": listed}
