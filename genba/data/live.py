"""A version continued with rows from production: what was served, and what people said about it.

Only new moments become rows: what the version knows already, from the source or from an earlier
extension, is left out, so a row that was tested on can never be trained on.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from genba.core.codec import decode, encode
from genba.core.line import Line
from genba.core.values import DatasetVersion, Segment
from genba.data import checks, segments, versions
from genba.data.formats.batch import DETAIL, REASON
from genba.data.plan import purge_steps
from genba.data.roles import ONLY_ENTITY, Roles
from genba.data.segments import REJECTS_SCHEMA, Rejects
from genba.data.splits import BEGINNING, SPLITS, Bound, SplitRule, fingerprints, time_bounds
from genba.data.view import sensors_of
from genba.store.captures import OK, read_capture
from genba.store.home import Store
from genba.store.ledger import Record

ORIGIN: Final = "live"
_ANSWERED: Final = ("stable", "canary")  # a shadow's predictions are copies of theirs
_WINDOW: Final = "window"
_KEY: Final = ["entity", "time"]
_FOUND: Final = {
    "prediction": pl.String,
    "entity": pl.String,
    "time": pl.Int64,
    "received_ms": pl.Int64,
}


@dataclass(kw_only=True)
class _Batch:
    """What became of the captured rows."""

    roles: Roles
    captured: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    known: int = 0


def extend(
    store: Store,
    line: Line,
    version: DatasetVersion,
    *,
    captures: Sequence[Record],
    feedback: Iterable[Mapping[str, Any]],
) -> DatasetVersion:
    """Return the version continued with captured rows and their labels.

    The rows of the version stay what and where they are: its segments are part of the new version
    unchanged. The new rows are split among themselves, the newest for testing.

    Args:
        store: Where captures and segments are.
        line: The line; its checks apply to captured rows as well.
        version: The version to continue.
        captures: Records of captured predictions.
        feedback: Labels that may be trained on: mappings with `value` (a number) and either
            `prediction` or `entity` and `time_ms` (see `genba.data.feedback.effective_labels`).

    Returns:
        The new version, or `version` itself when there is no new row.
    """
    batch = _Batch(roles=_roles(line, version))
    frame = _captured(store, captures, batch)
    frame = _labelled(frame, list(feedback))
    with Rejects(store.blobs) as rejects:
        frame = _checked(frame, line, batch, rejects)
    frame = _unknown_only(store, version, frame, batch)
    if not frame.height:
        return version
    return _extended(store, version, frame, batch, rejects.digest)


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


def _captured(store: Store, captures: Sequence[Record], batch: _Batch) -> pl.DataFrame:
    """Return the newest row of every window that was answered, the first of each moment."""
    schema = {**_FOUND, **dict.fromkeys(batch.roles.sensors, pl.Float64)}
    frames = [pl.DataFrame(schema=schema)]
    for record in captures:
        table = read_capture(store, record)
        if _WINDOW in table.column_names and table.num_rows:
            frames.append(_rows(table, str(record.body["server"]), batch))
    frame = pl.concat(frames)
    if batch.roles.time is None:
        # Without a clock every prediction is a moment of its own.
        return frame.with_columns(
            pl.col("received_ms").rank("ordinal").cast(pl.Int64).alias("time")
        )
    return frame.unique(_KEY, keep="first", maintain_order=True)


def _rows(table: pa.Table, server: str, batch: _Batch) -> pl.DataFrame:
    frame = pl.DataFrame(table)
    names, count = batch.roles.sensors, len(batch.roles.sensors)
    frame = frame.filter(
        pl.col("role").is_in(_ANSWERED)
        & (pl.col("status") == OK)
        & pl.col(_WINDOW).is_not_null()
        & (pl.col(_WINDOW).list.len() % count == 0)
    )
    batch.captured += frame.height
    now = pl.col(_WINDOW).list
    return frame.select(
        pl.format("{}-{}", pl.lit(server), pl.col("n")).alias("prediction"),
        pl.col("entity") if batch.roles.entity else pl.lit(ONLY_ENTITY).alias("entity"),
        pl.col("time").fill_null(pl.col("received_ms")),
        "received_ms",
        *(
            now.get(place - count).cast(pl.Float64).fill_nan(None).alias(name)
            for place, name in enumerate(names)
        ),
    )


def _labelled(frame: pl.DataFrame, feedback: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Add `label`: what was said about the prediction, or else about the moment."""
    said = {str(f["prediction"]): float(f["value"]) for f in feedback if f.get("prediction")}
    moments = {
        (str(f.get("entity") or ONLY_ENTITY), int(f["time_ms"])): float(f["value"])
        for f in feedback
        if f.get("time_ms") is not None
    }
    by_id = pl.DataFrame(
        {"prediction": list(said), "label": list(said.values())},
        schema={"prediction": pl.String, "label": pl.Float64},
    )
    by_moment = pl.DataFrame(
        {
            "entity": [entity for entity, _ in moments],
            "time": [time for _, time in moments],
            "moment_label": list(moments.values()),
        },
        schema={"entity": pl.String, "time": pl.Int64, "moment_label": pl.Float64},
    )
    joined = frame.join(by_id, on="prediction", how="left", maintain_order="left")
    joined = joined.join(by_moment, on=_KEY, how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("label", "moment_label").alias("label")).drop(
        "moment_label"
    )


def _checked(frame: pl.DataFrame, line: Line, batch: _Batch, rejects: Rejects) -> pl.DataFrame:
    """Apply the checks of the line to captured rows; what was not captured cannot fail."""
    roles = batch.roles
    empty = [pl.lit(None, dtype=pl.Float64).alias(name) for name in roles.extras]
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
        pl.col("prediction").alias("file"),
        pl.lit(None, dtype=pl.Int64).alias("line"),
        pl.col(REASON).alias("reason"),
        pl.col(DETAIL).alias("detail"),
        pl.struct(roles.sensors).struct.json_encode().alias("values"),
    )
    rejects.add(kept.select(list(REJECTS_SCHEMA)))
    return frame.filter(pl.col(REASON).is_null())


def _unknown_only(
    store: Store, version: DatasetVersion, frame: pl.DataFrame, batch: _Batch
) -> pl.DataFrame:
    """Leave out the moments that the version has already, in any split."""
    if batch.roles.time is None:
        return frame
    before = frame.height
    for segment in version.segments:
        if not frame.height:
            break
        first, last = int(frame["time"].min()), int(frame["time"].max())  # type: ignore[arg-type]  # int64 column
        if (segment.first_time_ms or 0) <= last and (segment.last_time_ms or 0) >= first:
            known = segments.read(store.blobs, segment, _KEY)
            frame = frame.join(known, on=_KEY, how="anti", maintain_order="left")
    batch.known = before - frame.height
    return frame


def _extended(
    store: Store,
    version: DatasetVersion,
    frame: pl.DataFrame,
    batch: _Batch,
    rejects: str | None,
) -> DatasetVersion:
    roles, sheet = batch.roles, json.loads(store.blobs.read(version.sheet))
    names = sorted(frame["entity"].unique())
    numbered = sheet["rows"]["read"] + sum(part["rows"] for part in sheet.get("live", ()))
    frame = frame.sort("entity", "time", "received_ms").with_columns(
        pl.int_range(numbered, numbered + pl.len(), dtype=pl.Int64).alias("row"),
        *(pl.col(n).fill_null(float("nan")) for n in (*roles.numbers, "label")),
    )
    rule = _rule(frame, names, decode(SplitRule, sheet["split"]["rule"]), _end(version))
    split = rule.assign(names, *_keys(frame, names, roles))
    frame = frame.with_columns(pl.Series("split", list(SPLITS)).gather(split)).select(roles.columns)
    clock = roles.time is not None
    segment = segments.write(store.blobs, frame, origin=ORIGIN, clock=clock)
    extended = versions.seal(
        replace(
            version,
            segments=(*version.segments, segment),
            entities=(*version.entities, *(n for n in names if n not in version.entities)),
            rows=version.rows + frame.height,
            rejected=dict(Counter(version.rejected) + batch.rejected),
            rejects=rejects or version.rejects,
            parent=version.id,
        )
    )
    part = _part(frame, segment, rule, batch, rejects)
    totals = Counter(sheet["split"]["rows"]) + Counter(part["split"]["rows"])
    sheet = {
        **sheet,
        "rows": {**sheet["rows"], "kept": extended.rows},
        "split": {**sheet["split"], "rows": dict(totals)},
        "live": [*sheet.get("live", ()), part],
    }
    return versions.record(store, extended, sheet, versions.source_facts(store, version.id))


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
    rows it tests on and are purged.
    """
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


def _part(
    frame: pl.DataFrame, segment: Segment, rule: SplitRule, batch: _Batch, rejects: str | None
) -> dict[str, Any]:
    """Return what the sheet says about the live rows of one extension."""
    known = frame["label"].drop_nans()
    return {
        "segments": [segment.digest],
        "captured": batch.captured,
        "rejected": dict(batch.rejected),
        "rejects": rejects,
        "already_known": batch.known,
        "rows": frame.height,
        "labelled": len(known),
        "anomalies": int((known > 0).sum()),
        "split": {"rule": encode(rule), "rows": dict(frame["split"].value_counts().iter_rows())},
    }
