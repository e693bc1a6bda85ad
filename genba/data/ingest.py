"""From a source to a dataset version: read, check, sort, split, profile, store.

Two passes, both in bounded memory. The first reads the source batch by batch, rejects what fails
and hands the rest to `Spill`. The second takes the rows back in the order of time, piece by piece:
removes duplicates, gives each row its split and writes the piece as one segment.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.protocols import Source, SourceFacts
from genba.core.values import DatasetVersion, Segment
from genba.data import plan, segments, sheet, versions
from genba.data.checks import DIFFERENT_DUPLICATE, DUPLICATE
from genba.data.intake import Intake
from genba.data.plan import Parent
from genba.data.profile import Profile
from genba.data.segments import Rejects
from genba.data.sheet import Evidence
from genba.data.sources.aligned import Aligns
from genba.data.spill import PIECE_ROWS, RUN_ROWS, Spill
from genba.data.splits import SPLITS, SplitRule, check_fractions, fingerprints
from genba.runs.progress import Progress, SilentProgress
from genba.store.home import Store

ORIGIN: Final = "source"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How many rows are handled at once; a change of `piece_rows` changes the segments."""

    piece_rows: int = PIECE_ROWS
    run_rows: int = RUN_ROWS


def ingest(  # noqa: PLR0913  # what may be left out is named
    source: Source,
    line: Line,
    store: Store,
    progress: Progress | None = None,
    *,
    parent: Parent | None = None,
    split_by: str | None = None,
    sizes: Sizes | None = None,
) -> DatasetVersion:
    """Read a source into a new dataset version and record it.

    The same source, line and parent give the same version, byte for byte.

    Args:
        source: Where the rows come from.
        line: What the columns mean, the checks and the split.
        store: Where segments, sheet and record go.
        progress: Who is told how far it is.
        parent: An earlier version of the same line. Rows up to its end keep the splits they had,
            so its segments come out unchanged where the rows did not change; only what is newer
            is split anew.
        split_by: How the task wants rows divided where the line is silent.
        sizes: Rows handled at once.

    Raises:
        Problem: G2xx when the source cannot be read or too little is left of it.
    """
    check_fractions(line.data.split)
    sizes = sizes or Sizes()
    progress = progress or SilentProgress()
    facts = source.facts()
    intake = Intake(line.data)
    scratch = store.work_dir("ingest")
    if isinstance(source, Aligns):
        source.scratch = scratch
    with Rejects(store.blobs) as rejects, Spill(scratch, run_rows=sizes.run_rows) as spill:
        for batch, _ in source.batches():
            good, bad = intake.take(batch)
            rejects.add(bad)
            spill.add(good)
            progress.step("rows read", intake.read)
        plan.check_read(intake, line, facts.location)
        second = _SecondPass(line, store, intake, rejects, split_by)
        second.run(spill, parent, sizes, progress)
    assert second.rule is not None
    plan.check_kept(second.profile, second.counts, intake.roles, second.rule)
    joined = source.alignment() if isinstance(source, Aligns) else {}
    return _record(second, facts, rejects, parent, joined)


@dataclass
class _SecondPass:
    """Rows in the order of time become segments."""

    line: Line
    store: Store
    intake: Intake
    rejects: Rejects
    split_by: str | None = None
    segments: list[Segment] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # split -> rows
    duplicates: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        roles, names = self.intake.roles, self.intake.entities
        self.names = sorted(names)
        places = {name: place for place, name in enumerate(self.names)}
        self.rank = np.array([places[name] for name in names], dtype=np.int32)
        self.profile = Profile(
            roles.numbers, len(roles.sensors), len(names), clock=roles.time is not None
        )
        self.rule: SplitRule | None = None
        self.stops: tuple[int, ...] = ()

    def run(self, spill: Spill, parent: Parent | None, sizes: Sizes, progress: Progress) -> None:
        self.stops = plan.stops(parent)
        done = 0
        for piece in spill.pieces(rows=sizes.piece_rows, stops=self.stops):
            done += piece.height
            progress.step("rows stored", done, spill.rows)
            self._store(self._sorted(piece), spill, parent)

    def _sorted(self, piece: pl.DataFrame) -> pl.DataFrame:
        """Sort by entity and time and take out all but the first of equal moments."""
        code = pl.Series("code", self.rank[piece["code"].to_numpy()])
        piece = piece.with_columns(code).sort("code", "time", "row")
        if not self.intake.clock:
            return piece
        owner, time = piece["code"].to_numpy(), piece["time"].to_numpy()
        again = np.r_[False, (owner[1:] == owner[:-1]) & (time[1:] == time[:-1])]
        if not again.any():
            return piece
        self._reject(piece, again)
        return piece.filter(pl.Series(~again))

    def _reject(self, piece: pl.DataFrame, again: npt.NDArray[np.bool_]) -> None:
        """Reject repeated moments, telling those that say something else than the first apart."""
        at = np.flatnonzero(again)
        first = np.maximum.accumulate(np.where(again, 0, np.arange(len(again))))[at]
        repeated, kept = piece[at], piece[first]
        held = [*self.intake.roles.numbers, "label", *self.intake.roles.words]
        same = pl.all_horizontal(repeated[n].eq_missing(kept[n]) for n in held)
        reasons = (
            pl.DataFrame({"same": pl.select(same).to_series()})
            .select(pl.when("same").then(pl.lit(DUPLICATE)).otherwise(pl.lit(DIFFERENT_DUPLICATE)))
            .to_series()
        )
        for reason in reasons:
            self.duplicates[reason] += 1
        self.rejects.add(
            repeated.select(
                "row",
                pl.lit(None, dtype=pl.String).alias("file"),
                pl.lit(None, dtype=pl.Int64).alias("line"),
                reasons.alias("reason"),
                pl.format("same moment as row {}", kept["row"]).alias("detail"),
                pl.struct(held).struct.json_encode().alias("values"),
            )
        )

    def _store(self, piece: pl.DataFrame, spill: Spill, parent: Parent | None) -> None:
        roles, clock = self.intake.roles, self.intake.clock is not None
        numbers = [pl.col(n).fill_null(float("nan")) for n in (*roles.numbers, "label")]
        piece = piece.with_columns(numbers)
        owner, time = piece["code"].to_numpy(), piece["time"].to_numpy()
        values = {name: piece[name].to_numpy() for name in roles.numbers}
        self.profile.add(owner, time, values, piece["label"].to_numpy())
        if self.rule is None:
            self.rule = plan.split_rule(
                self.line,
                self.names,
                spill,
                parent,
                step_ms=self.profile.step_ms,
                split_by=self.split_by,
            )
        contents = (
            fingerprints([values[n] for n in roles.sensors]) if self.rule.by == "random" else owner
        )
        split = self.rule.assign(self.names, owner, time, contents)
        for number, count in enumerate(np.bincount(split, minlength=len(SPLITS)).tolist()):
            self.counts[SPLITS[number]] += count
        frame = piece.with_columns(
            pl.Series("entity", self.names).gather(owner),
            pl.Series("split", list(SPLITS)).gather(split),
        ).select(roles.columns)
        self.segments.append(segments.write(self.store.blobs, frame, origin=ORIGIN, clock=clock))


def _record(
    done: _SecondPass,
    facts: SourceFacts,
    rejects: Rejects,
    parent: Parent | None,
    joined: Mapping[str, Any],
) -> DatasetVersion:
    """Write the sheet and the record; only now does the version exist."""
    assert done.rule is not None
    intake, rejected = done.intake, done.intake.rejected + done.duplicates
    body = sheet.build(
        Evidence(
            line=done.line,
            facts=facts,
            intake=intake,
            profile=done.profile,
            rule=done.rule,
            split_rows=done.counts,
            rejected=rejected,
            names=done.names,
            stops=done.stops,
            segments=done.segments,
        )
    )
    if done.split_by is not None:
        body["split"]["asked"] = done.split_by
    if joined:
        body["join"] = dict(joined)
    version = versions.seal(
        DatasetVersion(
            id="",
            line=done.line.name,
            segments=tuple(done.segments),
            entities=plan.entities(done.names, parent),
            columns=intake.roles.columns,
            rows=int(done.profile.rows.sum()),
            rejected=rejected,
            sheet="",
            rejects=rejects.digest,
            parent=parent.version.id if parent else None,
        )
    )
    return versions.record(done.store, version, body, encode(facts))
