"""A version continued with rows from production: what was served, and what people said about it.

What the version knows from its source stays as it is, so a row that was tested on can never be
trained on. New moments become rows, split among themselves. Rows that an earlier extension added
keep their splits, and what people said since then still reaches them.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

import numpy as np
import polars as pl

from genba.core.codec import decode, encode
from genba.core.line import Line
from genba.core.resolve import resolve
from genba.core.task import Lesson, Task
from genba.core.values import DatasetVersion, Segment
from genba.data import checks, segments, versions
from genba.data.formats.batch import DETAIL, REASON
from genba.data.plan import purge_steps
from genba.data.recovered import PREDICTION, Found, find_rows
from genba.data.roles import Roles
from genba.data.segments import REJECTS_SCHEMA, Rejects
from genba.data.splits import BEGINNING, SPLITS, Bound, SplitRule, fingerprints, time_bounds
from genba.data.teaching import taught
from genba.data.view import sensors_of
from genba.store.home import Store
from genba.store.ledger import Record

ORIGIN: Final = "live"
_KEY: Final = ["entity", "time"]
_PART: Final = "_part"  # which earlier segment a row is of; null: it is new


@dataclass(kw_only=True)
class _Batch:
    """What became of the captured rows."""

    roles: Roles
    found: Found
    rejected: Counter[str] = field(default_factory=Counter)
    known: int = 0


def extend(
    store: Store,
    line: Line,
    version: DatasetVersion,
    captures: Sequence[Record],
    lessons: Iterable[Lesson],
) -> DatasetVersion:
    """Return the version continued with captured rows and what people said about them.

    The segments that came from the source are part of the new version unchanged. Those of earlier
    extensions are too, unless a lesson changes one of their rows: then they are written anew, with
    the splits they had.

    Args:
        store: Where captures and segments are.
        line: The line; its task finds the rows and learns, its checks apply.
        version: The version to continue.
        captures: Records of captured predictions.
        lessons: What people agreed on (see `genba.data.feedback.effective_labels`).

    Returns:
        The new version, or `version` itself when there is nothing new.
    """
    task: Task = resolve("task", line.task)()
    sheet = json.loads(store.blobs.read(version.sheet))
    roles, counts = _roles(line, version), bool((sheet.get("time") or {}).get("is_count"))
    batch = _Batch(roles=roles, found=find_rows(store, task, roles, captures, counts=counts))
    with Rejects(store.blobs) as rejects:
        frame = _checked(batch.found.frame, line, batch, rejects)
    earlier = _earlier(store, version)
    frame = _unknown_only(store, version, earlier, frame, batch)
    rows = _together(frame, earlier, roles, sheet)
    names = (*version.entities, *sorted(set(frame["entity"]) - set(version.entities)))
    rows = taught(task, rows, names, roles, lessons)
    rewritten = _rewritten(store, rows, earlier, roles)
    new = rows.filter(pl.col(_PART).is_null())
    if not new.height and not rewritten:
        return version
    parts = tuple(rewritten.get(segment.digest, segment) for segment in version.segments)
    known = replace(version, segments=parts, entities=names, parent=version.id)
    sheet["live"] = [_renamed(part, rewritten) for part in sheet.get("live", ())]
    if new.height:
        known, sheet = _extended(store, known, new, batch, sheet, rejects.digest)
    facts = versions.source_facts(store, version.id)
    return versions.record(store, versions.seal(known), sheet, facts)


def _roles(line: Line, version: DatasetVersion) -> Roles:
    """Return the roles of a version's columns; what was derived for it stays derived."""
    sensors, data = sensors_of(version.columns), line.data
    beside = version.columns[version.columns.index("row") + 1 :]
    words = tuple(n for n in beside if n in data.checks and data.checks[n].allowed is not None)
    return Roles(
        time=data.time,
        entity=data.entity,
        label=data.label,
        inputs=tuple(name for name in sensors if name != data.output),
        output=data.output,
        extras=tuple(n for n in beside if n not in words),
        words=words,
    )


def _checked(frame: pl.DataFrame, line: Line, batch: _Batch, rejects: Rejects) -> pl.DataFrame:
    """Apply the checks of the line to captured rows; what was not captured cannot fail."""
    roles = batch.roles
    empty = [pl.lit(None, dtype=pl.Float64).alias(name) for name in (*roles.extras, "label")]
    empty += [pl.lit(None, dtype=pl.String).alias(name) for name in (*roles.words, REASON, DETAIL)]
    frame = frame.with_columns(
        *empty, pl.int_range(pl.len(), dtype=pl.Int64).alias("row")
    ).with_columns(pl.when(pl.col("entity").is_null()).then(pl.lit(checks.NO_ENTITY)).alias(REASON))
    captured = {n: check for n, check in line.data.checks.items() if n in roles.sensors}
    frame = checks.apply(frame, checks.rules(roles, captured))
    bad = frame.filter(pl.col(REASON).is_not_null())
    for reason in bad[REASON]:
        batch.rejected[reason] += 1
    kept = bad.with_columns(
        pl.col(PREDICTION).alias("file"),
        pl.lit(None, dtype=pl.Int64).alias("line"),
        pl.col(REASON).alias("reason"),
        pl.col(DETAIL).alias("detail"),
        pl.struct(roles.sensors).struct.json_encode().alias("values"),
    )
    rejects.add(kept.select(list(REJECTS_SCHEMA)))
    return frame.filter(pl.col(REASON).is_null())


def _earlier(store: Store, version: DatasetVersion) -> dict[str, pl.DataFrame]:
    """Return the rows of earlier extensions by segment, with the predictions they were."""
    found = {}
    for segment in version.segments:
        if segment.origin == ORIGIN:
            frame = pl.read_parquet(io.BytesIO(store.blobs.read(segment.digest)))
            if PREDICTION not in frame.columns:  # written by an earlier Genba
                frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(PREDICTION))
            found[segment.digest] = frame
    return found


def _unknown_only(
    store: Store,
    version: DatasetVersion,
    earlier: Mapping[str, pl.DataFrame],
    frame: pl.DataFrame,
    batch: _Batch,
) -> pl.DataFrame:
    """Leave out the rows that the version has already, in any split."""
    before = frame.height
    if batch.roles.time is None:
        known = [rows[PREDICTION].drop_nulls() for rows in earlier.values()]
        frame = (
            frame.filter(~pl.col(PREDICTION).is_in(pl.concat(known).implode())) if known else frame
        )
        batch.known = before - frame.height
        return _numbered_behind(frame, earlier)
    slack = batch.found.step // 2
    for segment in version.segments:
        if not frame.height:
            break
        first, last = int(frame["time"].min()), int(frame["time"].max())  # type: ignore[arg-type]  # int64 column
        if (segment.first_time_ms or 0) <= last + slack and (
            segment.last_time_ms or 0
        ) >= first - slack:
            frame = _without(frame, segments.read(store.blobs, segment, _KEY), slack)
    batch.known = before - frame.height
    return frame


def _without(frame: pl.DataFrame, known: pl.DataFrame, slack: int) -> pl.DataFrame:
    """Leave out known moments; a row found before a prediction's own may be off by some."""
    frame = frame.join(known, on=_KEY, how="anti", maintain_order="left")
    if not slack:
        return frame
    near = frame.sort("time").join_asof(
        known.sort("time").with_columns(pl.lit(True).alias("near")),
        on="time",
        by="entity",
        strategy="nearest",
        tolerance=slack,
        check_sortedness=False,
    )
    keep = pl.col("near").is_null() | (pl.col("back") == 0)
    return near.filter(keep).drop("near").sort("entity", "time")


def _numbered_behind(frame: pl.DataFrame, earlier: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Without a clock, go on counting behind the rows of earlier extensions."""
    last = max((int(rows["time"].max() or 0) for rows in earlier.values()), default=0)  # type: ignore[arg-type]  # int64 column
    ranks = pl.col("time").rank("ordinal").cast(pl.Int64)
    return frame.with_columns((ranks + last).alias("time"))


def _together(
    frame: pl.DataFrame, earlier: Mapping[str, pl.DataFrame], roles: Roles, sheet: Mapping[str, Any]
) -> pl.DataFrame:
    """Return new and earlier rows as one frame, the new ones numbered behind all others."""
    numbered = sheet["rows"]["read"] + sum(part["rows"] for part in sheet.get("live", ()))
    columns = [PREDICTION, *(name for name in roles.columns if name != "split")]
    new = frame.sort("entity", "time", "received_ms").with_columns(
        pl.int_range(numbered, numbered + pl.len(), dtype=pl.Int64).alias("row"),
        *(pl.col(n).fill_null(float("nan")) for n in (*roles.numbers, "label")),
    )
    parts = [new.select(*columns, pl.lit(None, dtype=pl.String).alias(_PART))]
    parts += [
        rows.select(*columns, pl.lit(digest).alias(_PART)) for digest, rows in earlier.items()
    ]
    return pl.concat(parts).sort("entity", "time")


def _rewritten(
    store: Store, rows: pl.DataFrame, earlier: Mapping[str, pl.DataFrame], roles: Roles
) -> dict[str, Segment]:
    """Write the segments anew in which a lesson changed a row; by the digest they had."""
    found = {}
    for digest, old in earlier.items():
        new = rows.filter(pl.col(_PART) == digest).join(
            old.select("row", "split"), on="row", how="left", maintain_order="left"
        )
        columns = [*roles.columns, PREDICTION]
        if not new.select(columns).equals(old.sort(_KEY).select(columns)):
            frame = new.select(columns)
            found[digest] = segments.write(
                store.blobs, frame, origin=ORIGIN, clock=roles.time is not None
            )
    return found


def _renamed(part: Mapping[str, Any], rewritten: Mapping[str, Segment]) -> dict[str, Any]:
    """Return what the sheet says about an earlier extension, with the segments it has now."""
    names = [rewritten[d].digest if d in rewritten else d for d in part["segments"]]
    return {**part, "segments": names}


def _extended(
    store: Store,
    version: DatasetVersion,
    frame: pl.DataFrame,
    batch: _Batch,
    sheet: dict[str, Any],
    rejects: str | None,
) -> tuple[DatasetVersion, dict[str, Any]]:
    """Split the new rows and add them as a segment."""
    roles, names = batch.roles, sorted(frame["entity"].unique())
    parent = decode(SplitRule, sheet["split"]["rule"])
    rule = _rule(frame, names, parent, _end(version))
    split = rule.assign(names, *_keys(frame, names, roles))
    frame = frame.with_columns(pl.Series("split", list(SPLITS)).gather(split))
    frame = frame.select(*roles.columns, PREDICTION)
    clock = roles.time is not None
    segment = segments.write(store.blobs, frame, origin=ORIGIN, clock=clock)
    extended = replace(
        version,
        segments=(*version.segments, segment),
        rows=version.rows + frame.height,
        rejected=dict(Counter(version.rejected) + batch.rejected),
        rejects=rejects or version.rejects,
    )
    part = _part(frame, segment, rule, batch, rejects)
    totals = Counter(sheet["split"]["rows"]) + Counter(part["split"]["rows"])
    fixed = replace(parent, entities={**parent.entities, **rule.entities})
    sheet = {
        **sheet,
        "rows": {**sheet["rows"], "kept": extended.rows},
        "split": {**sheet["split"], "rows": dict(totals), "rule": encode(fixed)},
        "live": [*sheet.get("live", ()), part],
    }
    return extended, sheet


def _keys(frame: pl.DataFrame, names: Sequence[str], roles: Roles) -> tuple[Any, Any, Any]:
    places = {name: place for place, name in enumerate(names)}
    entity = frame["entity"].replace_strict(places, return_dtype=pl.Int32).to_numpy()
    contents = fingerprints([frame[name].to_numpy() for name in roles.sensors])
    return entity, frame["time"].to_numpy(), contents


def _end(version: DatasetVersion) -> int:
    """Return the time behind the last row of a version."""
    times = [s.last_time_ms for s in version.segments if s.last_time_ms is not None]
    return max(times, default=BEGINNING) + 1


def _rule(frame: pl.DataFrame, names: Sequence[str], parent: SplitRule, end: int) -> SplitRule:
    """Split live rows as the version was split; by time, among themselves.

    Those that lie between the rows of the version, and the first behind them, are neighbours of
    rows it tests on and are purged. By entity, a new one gets a split that its name decides.
    """
    if parent.by == "entity":
        new = {name: _dealt(name, parent) for name in names if name not in parent.entities}
        return replace(parent, entities={**parent.entities, **new})
    if parent.by != "time":
        return parent
    times = np.sort(frame["time"].to_numpy())
    times = times[times >= end]
    if not len(times):
        return replace(parent, bounds=(Bound(from_ms=BEGINNING, split="purged"),))
    steps = purge_steps(len(times), len(names))
    purge_ms = steps * (parent.purge_ms // max(parent.purge_steps, 1))
    cuts = [
        int(times[min(int(share * len(times)), len(times) - 1)])
        for share in (1 - parent.test - parent.calibrate, 1 - parent.test)
    ]
    first, *later = time_bounds(cuts[0], cuts[1], purge_ms)
    start = end + purge_ms
    bounds = [replace(first, split="purged"), replace(first, from_ms=start)]
    bounds += [bound for bound in later if bound.from_ms > start]
    return replace(parent, purge_steps=steps, purge_ms=purge_ms, bounds=tuple(bounds))


def _dealt(name: str, rule: SplitRule) -> str:
    """Give an entity to a split, in the long run as many as the rule asks for."""
    digest = sha256(f"{rule.seed}/{name}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2.0**64
    if share < rule.test:
        return "test"
    return "calibrate" if share < rule.test + rule.calibrate else "train"


def _part(
    frame: pl.DataFrame, segment: Segment, rule: SplitRule, batch: _Batch, rejects: str | None
) -> dict[str, Any]:
    """Return what the sheet says about the live rows of one extension."""
    known = frame["label"].drop_nans()
    return {
        "segments": [segment.digest],
        "captured": batch.found.captured,
        "damaged_batches": batch.found.damaged,
        "inputs_not_kept": batch.found.unkept,
        "rejected": dict(batch.rejected),
        "rejects": rejects,
        "already_known": batch.known,
        "rows": frame.height,
        "found_in_histories": frame[PREDICTION].null_count(),
        "labelled": len(known),
        "anomalies": int((known > 0).sum()),
        "split": {"rule": encode(rule), "rows": dict(frame["split"].value_counts().iter_rows())},
    }
