"""From a source of texts to a dataset version: read, curate, group, deal, store.

The first pass looks at every text once and spills what is kept to disk; what stays in memory is
about a kilobyte per text. Then near-duplicates are grouped, groups are dealt to the splits, and
each split is written as segments of its own, so that who reads one split reads no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.protocols import Source
from genba.core.values import DatasetVersion, Segment
from genba.data import versions
from genba.data.images import claims
from genba.data.images.deal import DealRule, Pile, deal
from genba.data.segments import Rejects
from genba.data.splits import check_fractions
from genba.data.texts import alike, pieces, sheet
from genba.data.texts.parent import Held, TextParent
from genba.data.texts.pieces import TextSpill
from genba.data.texts.reading import Reading
from genba.runs.progress import Progress
from genba.store.blobs import Blobs
from genba.store.home import Store

ORIGIN: Final = "source"
_KEPT: Final = ("train", "calibrate", "test", "purged")


def ingest(
    source: Source,
    line: Line,
    store: Store,
    progress: Progress,
    *,
    parent: TextParent | None = None,
    split_by: str | None = None,
) -> DatasetVersion:
    """Read a source of texts into a new dataset version and record it.

    The same source, line and parent give the same version, byte for byte.

    Args:
        source: Where the texts come from; see `genba.data.texts` for the columns.
        line: Which of them are read, how they are curated and split.
        store: Where segments, sheet and record go.
        progress: Who is told how far it is.
        parent: An earlier version of the line: its texts keep their splits, and its segments
            that did not change are used again.
        split_by: How the task wants texts divided where the line is silent.

    Raises:
        Problem: G2xx when the source cannot be read or too little is left of it.
    """
    check_fractions(line.data.split)
    facts = source.facts()
    with Rejects(store.blobs) as rejects, TextSpill(store.work_dir("ingest")) as spill:
        reading = Reading(line, spill, rejects, first=parent.next_row if parent else 0)
        for batch, _ in source.batches():
            reading.take(batch)
            progress.step("texts looked at", reading.read)
        spill.done()
        claims.check_read(reading, facts.location)
        progress.step("looking for near-duplicates")
        dealt = _dealt(reading, spill, line, parent, split_by)
        reading.leave_out(spill, dealt.groups.repeats)
        claims.check_kept(dealt.split[dealt.left], dealt.rule, reading.things)
        writer = _Writer(store.blobs, reading, dealt, clock=line.data.time is not None)
        segments = writer.segments(spill, parent, progress)
    found = sheet.Evidence(
        line=line,
        facts=facts,
        asked=split_by,
        rule=dealt.rule,
        reading=reading,
        groups=dealt.groups,
        classes=dealt.classes,
        names=dealt.names,
        label=dealt.label[dealt.left].tolist(),
        entity=dealt.entity[dealt.left].tolist(),
        split=dealt.split[dealt.left].tolist(),
        segments=segments,
    )
    version = versions.seal(
        DatasetVersion(
            id="",
            line=line.name,
            segments=tuple(segment for segment, _ in segments),
            entities=dealt.names,
            columns=pieces.COLUMNS,
            rows=int(dealt.left.sum()),
            rejected=reading.rejected,
            sheet="",
            classes=dealt.classes,
            rejects=rejects.digest,
            parent=parent.version.id if parent else None,
        )
    )
    return versions.record(store, version, sheet.build(found), encode(facts))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Dealt:
    """What was decided about every text that was kept."""

    rule: DealRule
    groups: alike.Groups
    classes: tuple[str, ...]
    names: tuple[str, ...]  # entities
    label: npt.NDArray[np.int64]
    entity: npt.NDArray[np.int64]
    split: npt.NDArray[np.object_]
    left: npt.NDArray[np.bool_]  # false of what repeats another one


def _dealt(
    reading: Reading, spill: TextSpill, line: Line, parent: TextParent | None, split_by: str | None
) -> _Dealt:
    classes = claims.in_order(reading.classes, parent.version.classes if parent else ())
    before = parent.version.entities if parent else ()
    names = (*before, *sorted(name for name in reading.entities if name not in before))
    label = claims.renumbered(reading.label, reading.classes, classes)
    entity = claims.renumbered(reading.entity, reading.entities, names)
    split = line.data.split
    by = split.by or claims.wished(split_by, line) or ("time" if line.data.time else "random")
    rule = DealRule(by=by, test=split.test, calibrate=split.calibrate, seed=line.train.seed)
    groups = alike.groups(reading.keys(spill), reading.together)
    known = np.array(
        [parent.split.get(d) if parent else None for d in reading.digest], dtype=object
    )
    left = np.ones(reading.kept, dtype=bool)
    left[groups.repeats[:, 1]] = False
    keys = np.array([int(d[:16], 16) for d in reading.digest], dtype=np.uint64)
    pile = Pile(
        group=groups.first[left],
        label=label[left],
        key=keys[left],
        known=known[left],
        asked=claims.asked(reading, line, rule, known)[left],
        given=claims.given(reading, rule),
    )
    dealt = np.full(reading.kept, None, dtype=object)
    dealt[left] = deal(pile, rule)
    return _Dealt(
        rule=rule,
        groups=groups,
        classes=classes,
        names=names,
        label=label,
        entity=entity,
        split=dealt,
        left=left,
    )


class _Writer:
    """Writes segments, one split at a time; those of a parent that did not change are taken."""

    def __init__(self, blobs: Blobs, reading: Reading, dealt: _Dealt, *, clock: bool) -> None:
        self._blobs = blobs
        self._reading = reading
        self._dealt = dealt
        self._clock = clock

    def segments(
        self, spill: TextSpill, parent: TextParent | None, progress: Progress
    ) -> list[tuple[Segment, str]]:
        """Return the segments and their splits."""
        found: list[tuple[Segment, str]] = []
        left = self._dealt.left.copy()
        if parent:
            place = {digest: at for at, digest in enumerate(self._reading.digest)}
            for segment, split, held in parent.segments():
                rows = [place.get(row.digest, -1) for row in held]
                if all(
                    at >= 0 and left[at] and self._same(at, row, split)
                    for at, row in zip(rows, held, strict=True)
                ):
                    found.append((segment, split))
                    left[rows] = False
        for split in _KEPT:
            chosen = np.flatnonzero(left & (self._dealt.split == split))
            at = 0
            for table in spill.read(chosen):
                some = chosen[at : at + len(table)]
                at += len(table)
                whole = self._table(table, some, split)
                segment = pieces.write(self._blobs, whole, origin=ORIGIN, clock=self._clock)
                found.append((segment, split))
                progress.step("texts stored", int(left.size - left.sum()) + at, left.size)
        return found

    def _same(self, at: int, row: Held, split: str) -> bool:
        """Say whether a text is, in everything that is stored, what it was in the parent."""
        reading, dealt = self._reading, self._dealt
        return bool(
            dealt.split[at] == split
            and int(dealt.label[at]) == row.label
            and dealt.names[dealt.entity[at]] == row.entity
            and reading.name[at] == row.name
            and reading.weight[at] == row.weight
            and (not self._clock or reading.time[at] == row.time)
        )

    def _table(self, table: pa.Table, rows: npt.NDArray[np.int64], split: str) -> pa.Table:
        reading, dealt = self._reading, self._dealt
        label = dealt.label[rows].astype(np.float64)
        columns: Mapping[str, Any] = {
            "entity": [dealt.names[code] for code in dealt.entity[rows]],
            "time": [reading.time[at] for at in rows],
            "label": np.where(label < 0, np.nan, label),
            "split": [split] * len(rows),
            "row": [reading.row[at] for at in rows],
            **{name: table[name] for name in pieces.TEXTS},
            "weight": [reading.weight[at] for at in rows],
            "digest": [reading.digest[at] for at in rows],
        }
        return pa.table({name: columns[name] for name in pieces.COLUMNS}, schema=pieces.SCHEMA)
