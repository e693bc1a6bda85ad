"""How a version is cut: the split rule, the purge gap, and what continues an earlier version."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from genba.core.codec import decode, nearest
from genba.core.line import Line, Split
from genba.core.problem import Problem
from genba.core.values import DatasetVersion
from genba.data.intake import Intake
from genba.data.profile import Profile
from genba.data.roles import Roles
from genba.data.spill import Spill
from genba.data.splits import Bound, SplitRule, deal_entities, time_bounds
from genba.store.home import Store

#: Steps left out behind each cut; a window or lag of up to as many steps never sees both sides.
PURGE_STEPS: Final = 64
_PURGE_SHARE: Final = 0.02  # of the rows of an entity, for small data


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """An earlier version that a new one continues."""

    version: DatasetVersion
    rule: SplitRule
    stops: tuple[int, ...]
    end: int  # ms (or row) behind its last row

    @classmethod
    def load(cls, store: Store, version: DatasetVersion) -> "Parent":
        """Return a version as a parent, with the rule its sheet keeps."""
        sheet = json.loads(store.blobs.read(version.sheet))
        times = [s.last_time_ms for s in version.segments if s.last_time_ms is not None]
        return cls(
            version=version,
            rule=decode(SplitRule, sheet["split"]["rule"]),
            stops=tuple(sheet["split"]["stops"]),
            end=max(times) + 1 if times else int(sheet["rows"]["read"]),
        )


def stops(parent: Parent | None) -> tuple[int, ...]:
    """Return where segments must end so that those of the parent come out again."""
    return (*parent.stops, parent.end) if parent else ()


def entities(names: Sequence[str], parent: Parent | None) -> tuple[str, ...]:
    """Return the entities: the parent's keep their places, new ones follow sorted."""
    known = parent.version.entities if parent else ()
    return (*known, *(name for name in names if name not in known))


def split_rule(
    line: Line,
    names: Sequence[str],
    spill: Spill,
    parent: Parent | None,
    step_ms: int | None,
    *,
    split_by: str | None = None,
) -> SplitRule:
    """Derive how rows are divided; what a parent decided stays decided.

    Args:
        line: Its `data.split` comes first.
        names: The entities.
        spill: The rows, for the times to cut at.
        parent: An earlier version, if there is one.
        step_ms: The usual step between rows.
        split_by: How the task wants rows divided where the line is silent; left aside where the
            line names no such column.

    Raises:
        Problem: G216 when the data cannot be split as the line asks.
    """
    split = line.data.split
    by = split.by or _wished(split_by, line) or ("time" if line.data.time else "random")
    _check(split, by, line, names)
    if parent and by == "time":
        return replace(parent.rule, bounds=_continued(parent, spill, len(names)))
    purge = purge_steps(spill.rows, len(names)) if by == "time" else 0
    rule = SplitRule(
        by=by,
        test=split.test,
        calibrate=split.calibrate,
        seed=line.train.seed,
        purge_steps=purge,
        purge_ms=purge * (step_ms or 0),
        entities=dict.fromkeys(split.holdout, "test"),
    )
    if by == "entity":
        return replace(rule, entities=_dealt(names, split, line.train.seed, parent))
    if by == "time":
        return replace(rule, bounds=_bounds(rule, spill))
    return rule


def _wished(split_by: str | None, line: Line) -> Literal["time", "entity", "random"] | None:
    """Return what the task wishes, if the line has the column it needs."""
    if split_by == "entity" and line.data.entity:
        return "entity"
    if split_by == "time" and line.data.time:
        return "time"
    return "random" if split_by == "random" else None


def purge_steps(rows: int, entities: int) -> int:
    """Return how many steps are left out behind a cut.

    Example:
        >>> purge_steps(420_000, 4), purge_steps(1_000, 1)
        (64, 20)
    """
    return max(1, min(PURGE_STEPS, int(rows / max(entities, 1) * _PURGE_SHARE)))


def _bounds(rule: SplitRule, spill: Spill, since: int | None = None) -> tuple[Bound, ...]:
    calibrate = spill.quantile(1 - rule.test - rule.calibrate, since=since)
    test = spill.quantile(1 - rule.test, since=since)
    return time_bounds(calibrate, test, rule.purge_ms)


def _continued(parent: Parent, spill: Spill, entities: int) -> tuple[Bound, ...]:
    """Return the parent's bounds and, behind its last row, those of what is new.

    What is new is split like a data set of its own where it is long enough for the purge gaps;
    until then all of it trains. Its first rows are neighbours of rows that the parent tests on,
    so they are purged as well.
    """
    rule, start = parent.rule, parent.end + parent.rule.purge_ms
    if spill.last < parent.end:
        return rule.bounds
    begin = [Bound(from_ms=parent.end, split="purged"), Bound(from_ms=start, split="train")]
    if purge_steps(spill.count(since=parent.end), entities) < rule.purge_steps:
        return (*rule.bounds, *begin)
    new = _bounds(rule, spill, parent.end)[1:]
    return (*rule.bounds, *begin, *(bound for bound in new if bound.from_ms > start))


def _dealt(
    names: Sequence[str], split: Split, seed: int, parent: Parent | None
) -> Mapping[str, str]:
    if parent is None:
        return deal_entities(names, split, seed)
    new = [name for name in names if name not in parent.rule.entities]
    dealt = deal_entities(new, replace(split, holdout=()), seed) if len(new) > 2 else {}
    return {**parent.rule.entities, **dict.fromkeys(new, "train"), **dealt}


def _check(split: Split, by: str, line: Line, names: Sequence[str]) -> None:
    needs = {"time": line.data.time, "entity": line.data.entity}
    if by in needs and not needs[by]:
        raise Problem(
            "G216",
            f"The data cannot be split by {by}: the line names no {by} column.",
            where="data.split.by",
            tries=[f'{by} = "COLUMN"', 'split = { by = "random" }'],
        )
    for name in split.holdout:
        if name not in names:
            near = nearest(name, list(names))
            raise Problem(
                "G216",
                f"There is no entity {name!r} to hold out"
                + (f"; did you mean {near!r}?" if near else "."),
                where="data.split.holdout",
                why=f"The entities are {', '.join(names[:20])}.",
                tries=[f'holdout = ["{near or names[0]}"]'],
            )


def check_read(intake: Intake, line: Line, location: str) -> None:
    """Refuse a source of which nothing is left after the row checks.

    Raises:
        Problem: G202 when it has no rows, G208 when every row was left out or rejected, G216 when
            an entity the line asks for is not in it.
    """
    if not intake.read:
        raise Problem(
            "G202",
            f"{location} has no rows.",
            where=location,
            why="There is a header and nothing below it.",
            tries=[f"wc -l {location}", "export the file again"],
        )
    if not intake.entities:
        raise _nothing_left(intake, location)
    absent = [name for name in line.data.entities if name not in intake.entities]
    if absent:
        near = nearest(absent[0], intake.entities) or intake.entities[0]
        raise Problem(
            "G216",
            f"No row of {location} is about the entity {absent[0]!r}.",
            where="data.entities",
            why=f"Found: {', '.join(sorted(intake.entities)[:20])}.",
            tries=[f'entities = ["{near}"]', "remove entities from [data] to use all"],
        )


def _nothing_left(intake: Intake, location: str) -> Problem:
    reasons = Counter(intake.rejected) + Counter(intake.skipped)
    told = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common(5))
    return Problem(
        "G208",
        f"None of the {intake.read:,} rows of {location} is left.",
        where="data.checks",
        why=f"Rows left out or rejected: {told}.",
        tries=["correct data.checks, data.since, data.until or data.entities", "genba check LINE"],
    )


def check_kept(profile: Profile, counts: Mapping[str, int], roles: Roles, rule: SplitRule) -> None:
    """Refuse rows that nothing can be learnt from.

    Raises:
        Problem: G209 for a sensor without a value, G210 for an output that never changes, G211
            when a split would be empty.
    """
    rows = sum(counts.values())
    empty = [name for name in ("train", "calibrate", "test") if not counts.get(name)]
    if empty:
        raise Problem(
            "G211",
            f"{_rows(rows)} too few: nothing is left to {_use(empty[0])}.",
            where="data.split",
            why=f"Split by {rule.by}: {dict(counts)}.",
            tries=["add more data", "split = { test = 0.2, calibrate = 0.2 }"],
        )
    for name in roles.sensors:
        if not profile.columns[name].count:
            raise Problem(
                "G209",
                f"The sensor {name!r} has no value in any of {rows:,} rows.",
                where="data.output" if name == roles.output else "data.inputs",
                why="Every one is missing.",
                tries=[f"remove {name} from the line file", f"check how {name} is exported"],
            )
    if roles.output and profile.columns[roles.output].low == profile.columns[roles.output].high:
        raise Problem(
            "G210",
            f"The output {roles.output!r} is always {profile.columns[roles.output].low:g}.",
            where="data.output",
            why="A model of a value that never changes has nothing to learn.",
            tries=['output = "a column that varies"', "remove output from [data]"],
        )


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count:,} rows are"


def _use(split: str) -> str:
    return {"train": "train on", "calibrate": "calibrate on", "test": "test on"}[split]
