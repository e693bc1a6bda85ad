"""A version of texts continued from production: what people said about what was answered.

Who says what would have been right is believed before the source: the row trains, a row of the
source that answers the very same question otherwise is laid aside, and so are near-duplicates that
test, since they would now be known. What people only confirmed goes to the side its near-duplicates
are on, or is split by age, the newest share for testing. Whatever is laid aside stays in the
version, in the split "purged". What nobody judged teaches nothing and is only counted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute

from genba.core.codec import encode
from genba.core.digest import canonical_json
from genba.core.line import Line
from genba.core.resolve import resolve
from genba.core.task import Lesson, Task
from genba.core.values import DatasetVersion, Segment
from genba.data import versions
from genba.data.feedback.vetting import Held
from genba.data.formats.batch import DETAIL, REASON
from genba.data.images import sheet
from genba.data.images.deal import DealRule, Pile, deal
from genba.data.images.live import by_age
from genba.data.roles import ONLY_ENTITY
from genba.data.segments import REJECTS_SCHEMA, Rejects
from genba.data.texts import alike, pieces, taught
from genba.data.texts.curate import Curator
from genba.data.texts.gather import Gathered, gather
from genba.data.texts.reading import digests, keys_of
from genba.data.texts.taught import Taught
from genba.data.view import DatasetView
from genba.store.home import Store
from genba.store.ledger import Record

ORIGIN: Final = "live"
PURGED: Final = "purged"
_HELD_OUT: Final = ("test", "calibrate")
_CONTACTS: Final = r"@|www\.|https?://|\d{4}|\w\.[a-z]{2,}\b"
_MOST_LISTED: Final = 1_000  # lessons that the sheet lists one by one


def extend(
    store: Store,
    line: Line,
    version: DatasetVersion,
    captures: Sequence[Record],
    lessons: Iterable[Lesson],
) -> DatasetVersion:
    """Return the version continued with what people said about captured answers.

    Args:
        store: Where captures and segments are.
        line: The line; its task finds the questions.
        version: The version to continue.
        captures: Records of captured predictions, oldest first.
        lessons: What people agreed on.

    Returns:
        The new version, or `version` itself when there is nothing new to learn.
    """
    task: Task = resolve("task", line.task)()
    given = list(lessons)
    said = taught.heard(task, given, version.classes)
    entities = line.data.entity is not None
    found = gather(
        store,
        task,
        captures,
        lambda prediction, entity, time: bool(said.about(prediction, entity, time)),
        entities=entities,
    )
    held = _held(store, version)
    rows, back = _taught(version, found, given, said, held)
    extension = _Extension(store, line, version, found, held)
    with Rejects(store.blobs) as rejects:
        rows = extension.curated(rows, back, rejects)
    return extension.record(rows, said.classes, rejects.digest) if rows else version


def _held(store: Store, version: DatasetVersion) -> pl.DataFrame:
    """Return every row of a version and the place of the segment it is in."""
    frames = [
        pl.DataFrame(pieces.read(store.blobs, segment, list(pieces.COLUMNS))).with_columns(
            pl.lit(place).alias("segment")
        )
        for place, segment in enumerate(version.segments)
    ]
    return pl.concat(frames).sort("row")  # as they are looked through for leaks


def _taught(
    version: DatasetVersion,
    found: Gathered,
    lessons: Sequence[Lesson],
    said: Any,
    held: pl.DataFrame,
) -> tuple[list[Taught], tuple[Held, ...]]:
    if version.classes:
        return taught.from_classes(found.came, said), ()
    source = held.filter(pl.col("split") != PURGED)
    known = tuple(source.filter(pl.col("answer").str.contains(_CONTACTS))["answer"].to_list())
    rows, back = taught.from_answers(found.came, lessons, known)
    trained = source.filter(
        (pl.col("split") == "train") & (pl.col("answer") != "") & (pl.col("messages") != "[]")
    )
    right = dict(zip(trained["messages"].to_list(), trained["answer"].to_list(), strict=True))
    return taught.completed(rows, right), back


class _Extension:
    """New rows, and what becomes of those that the version has."""

    def __init__(
        self, store: Store, line: Line, version: DatasetVersion, found: Gathered, held: pl.DataFrame
    ) -> None:
        self._store = store
        self._line = line
        self._version = version
        self._counts = found.counts
        self._held = held
        self._sheet: dict[str, Any] = dict(DatasetView.sheet_of(store, version))
        self._rejected: Counter[str] = Counter()
        self._frame = pl.DataFrame()

    def curated(
        self, rows: Sequence[Taught], back: Sequence[Held], rejects: Rejects
    ) -> list[Taught]:
        """Return the rows that are learnt, oldest first; the others are rejected with reasons."""
        rows = sorted(rows, key=lambda row: (row.came.received_ms, row.came.prediction))
        frame = Curator(self._line, said=True).curate(_frame(rows))
        frame = frame.with_columns(digests(frame), pl.Series("at", range(len(rows)), pl.Int64))
        known = dict(
            zip(self._held["digest"].to_list(), self._held["label"].to_list(), strict=True)
        )
        fresh, kept = pl.Series([False] * frame.height, dtype=pl.Boolean), []
        for place, digest, reason in frame.select("at", "digest", REASON).iter_rows():
            if reason is not None:
                continue
            label = rows[place].label  # of an answer NaN; a text with another class is news
            if digest in known and (np.isnan(label) or label == known[digest]):
                self._counts["already_known"] += 1
                continue
            known[digest] = label
            fresh[place] = True
            kept.append(rows[place])
        bad = [
            _reject(n, row["name"], str(row[REASON]), str(row[DETAIL]), (row["name"],))
            for n, row in enumerate(
                frame.filter(pl.col(REASON).is_not_null()).iter_rows(named=True)
            )
        ]
        bad += [
            _reject(n, one.prediction, f"feedback: {one.reason}", one.detail, one.feedback)
            for n, one in enumerate(back, start=len(bad))
        ]
        self._rejected.update(row["reason"] for row in bad)
        if bad:
            rejects.add(pl.DataFrame(bad, schema=REJECTS_SCHEMA))
        self._frame = frame.filter(fresh)
        return kept

    def _dealt(self, rows: Sequence[Taught]) -> tuple[list[str], npt.NDArray[np.bool_]]:
        """Return the splits of the new rows, and which old ones are laid aside for them."""
        rule = DealRule(**self._sheet["split"]["rule"])
        old, count = self._held.height, len(rows)
        columns = ["messages", "answer", "rejected"]
        keys = keys_of(pl.concat([self._held.select(columns), self._frame.select(columns)]))
        crowded = bool(self._sheet["alike"]["too_alike"])
        group = alike.joined(old + count, alike.near_pairs(keys, crowded=crowded))
        teaches = np.array([row.replaces or bool(row.answer and row.rejected) for row in rows])
        asked = np.full(old + count, None, dtype=object)
        confirmed = np.flatnonzero(~teaches)
        asked[old + confirmed] = by_age(len(confirmed), rule)
        asked[np.isin(group, group[:old])] = None  # near to one that has a split
        known = np.array(self._held["split"].to_list() + [None] * count, dtype=object)
        beside = np.isin(group, group[old:][teaches])  # what trains now, and what is like it
        asked[beside], known[beside] = "train", None
        aside = self._aside(rows, keys, group, teaches)
        pile = Pile(
            group=group,
            label=np.zeros(old + count, dtype=np.int64),
            key=np.zeros(old + count, dtype=np.uint64),
            known=known,
            asked=asked,
            given=frozenset(sheet.SPLITS),
        )
        return [str(name) for name in deal(pile, rule)[old:]], aside

    def _aside(
        self,
        rows: Sequence[Taught],
        keys: alike.Keys,
        group: npt.NDArray[np.int64],
        teaches: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """Say which old rows are laid aside: those contradicted, and those tested on and near."""
        old = self._held.height
        replaced = {
            asked
            for asked, row in zip(keys.asked[old:].to_list(), rows, strict=True)
            if row.replaces
        }
        same = np.array([asked in replaced for asked in keys.asked[:old].to_list()])
        same &= keys.conversation[:old]
        near = np.isin(group[:old], group[old:][teaches])
        tested = np.isin(np.array(self._held["split"].to_list()), _HELD_OUT)
        self._counts["superseded"] = int(same.sum())
        self._counts["no_longer_tested"] = int((near & tested & ~same).sum())
        return np.asarray(same | ((near | self._torn(group[:old])) & tested))

    def _torn(self, group: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Say which old rows are near to one of another split, which nobody knew before.

        Of many near-duplicates only some are compared; which ones changes with what is added.
        """
        split = self._held["split"].to_list()
        sides: dict[int, set[str]] = {}
        for owner, name in zip(group.tolist(), split, strict=True):
            if name != PURGED:
                sides.setdefault(owner, set()).add(name)
        torn = [owner for owner, names in sides.items() if len(names) > 1]
        return np.isin(group, torn)

    def record(
        self, rows: Sequence[Taught], classes: tuple[str, ...], rejects: str | None
    ) -> DatasetVersion:
        """Write the new rows and what was laid aside; record the new version and its sheet."""
        split, aside = self._dealt(rows)
        parts, moved = self._rewritten(aside)
        names = {row.came.entity for row in rows}
        entities = (
            *self._version.entities,
            *sorted(name for name in names if name not in self._version.entities),
        )
        table = self._table(rows, split)
        new: list[tuple[Segment, str]] = []
        for name in sheet.SPLITS:
            some = table.filter(pa.compute.equal(table["split"], name))
            if len(some):
                new.append((self._write(some, ORIGIN), name))
        version = self._version
        extended = versions.seal(
            replace(
                version,
                segments=(*parts, *(s for s, _ in (*moved, *new))),
                entities=entities,
                classes=classes or version.classes,
                rows=version.rows + len(rows),
                rejected=dict(Counter(version.rejected) + self._rejected),
                rejects=rejects or version.rejects,
                parent=version.id,
            )
        )
        body = self._body(extended, [*moved, *new], table, aside)
        body["live"] = [
            *self._sheet.get("live", ()),
            self._part(rows, split, new, table, rejects),
        ]
        facts = versions.source_facts(self._store, version.id)
        return versions.record(self._store, extended, body, facts)

    def _write(self, table: pa.Table, origin: str) -> Segment:
        clock = self._line.data.time is not None
        return pieces.write(self._store.blobs, table, origin=origin, clock=clock)

    def _rewritten(
        self, aside: npt.NDArray[np.bool_]
    ) -> tuple[list[Segment], list[tuple[Segment, str]]]:
        """Return the segments of the version as they stay, and those that rows were moved to."""
        kept: list[Segment] = []
        moved: list[tuple[Segment, str]] = []
        splits = self._sheet["split"]["segments"]
        for place, segment in enumerate(self._version.segments):
            here = (self._held["segment"] == place).to_numpy()
            out = here & aside
            if not out.any() or splits[segment.digest] == PURGED:
                kept.append(segment)
                continue
            frame = self._held.drop("segment")
            left = frame.filter(pl.Series(here & ~aside)).to_arrow()
            if len(left):
                moved.append((self._write(left, segment.origin), splits[segment.digest]))
            gone = frame.filter(pl.Series(out)).with_columns(pl.lit(PURGED).alias("split"))
            moved.append((self._write(gone.to_arrow(), segment.origin), PURGED))
        return kept, moved

    def _table(self, rows: Sequence[Taught], split: Sequence[str]) -> pa.Table:
        clock = self._line.data.time is not None
        first = int(self._sheet["rows"]["next"])
        numbers = list(range(first, first + len(rows)))
        columns = {
            "entity": [row.came.entity or ONLY_ENTITY for row in rows],
            "time": [
                (row.came.received_ms if row.came.time is None else row.came.time) if clock else n
                for row, n in zip(rows, numbers, strict=True)
            ],
            "label": [row.label for row in rows],
            "split": list(split),
            "row": numbers,
            **{name: self._frame[name].to_list() for name in pieces.TEXTS},
            "weight": [row.weight for row in rows],
            "digest": self._frame["digest"].to_list(),
        }
        return pa.table({n: columns[n] for n in pieces.COLUMNS}, schema=pieces.SCHEMA)

    def _body(
        self,
        extended: DatasetVersion,
        written: Sequence[tuple[Segment, str]],
        table: pa.Table,
        aside: npt.NDArray[np.bool_],
    ) -> dict[str, Any]:
        """Return the sheet with its counts as they are now."""
        before, digests_ = self._sheet, {segment.digest for segment in extended.segments}
        old = np.where(aside, PURGED, np.array(self._held["split"].to_list(), dtype=object))
        split = [*old.tolist(), *table["split"].to_pylist()]
        label = np.r_[self._held["label"].to_numpy(), table["label"].to_numpy()]
        known = np.where(np.isnan(label), -1, label).astype(np.int64).tolist()
        kept = {d: of for d, of in before["split"]["segments"].items() if d in digests_}
        return {
            **before,
            "rows": {
                **before["rows"],
                "kept": extended.rows,
                "next": int(before["rows"]["next"]) + len(table),
            },
            "classes": sheet.classes(extended.classes, known, split),
            "split": {
                **before["split"],
                "rows": sheet.rows(split),
                "segments": {**kept, **{segment.digest: of for segment, of in written}},
            },
            "segments": [encode(segment) for segment in extended.segments],
        }

    def _part(
        self,
        rows: Sequence[Taught],
        split: Sequence[str],
        new: Sequence[tuple[Segment, str]],
        table: pa.Table,
        rejects: str | None,
    ) -> dict[str, Any]:
        """Return what the sheet says about this extension."""
        told = (
            *("captured", "damaged_batches", "inputs_not_kept", "unjudged", "already_known"),
            *("superseded", "no_longer_tested"),
        )
        return {
            "segments": [segment.digest for segment, _ in new],
            **{name: self._counts[name] for name in told},
            "rejected": dict(self._rejected),
            "rejects": rejects,
            "rows": len(rows),
            "labelled": int((~np.isnan(table["label"].to_numpy())).sum()),
            "corrected": sum(row.replaces for row in rows),
            "lessons": [
                {"name": row.name, "prediction": row.came.prediction, "split": of}
                for row, of in list(zip(rows, split, strict=True))[-_MOST_LISTED:]
            ],
            "split": {"rows": sheet.rows(list(split))},
        }


def _frame(rows: Sequence[Taught]) -> pl.DataFrame:
    columns = ("messages", "text", "answer", "rejected", "name")
    values = {name: [getattr(row, name) for row in rows] for name in columns}
    empty = dict.fromkeys((REASON, DETAIL, "note", "label"), [None] * len(rows))
    return pl.DataFrame(
        {**values, **empty},
        schema=dict.fromkeys((*columns, REASON, DETAIL, "note", "label"), pl.String),
    )


def _reject(
    number: int, name: str, reason: str, detail: str, feedback: Sequence[str]
) -> dict[str, Any]:
    values = canonical_json({"feedback": list(feedback)}).decode()
    return {"row": number, "file": name, "line": None, "reason": reason, "detail": detail,
            "values": values}  # fmt: skip
