"""A version of images continued from production: what was served, and what people said about it.

An image that the version has already, in any split, is left out, and a near-duplicate of one goes
to the same split, so an image of the test set can never be trained on. The rest is split by when
it came: what people judged and what they did not, each with its newest share for testing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.resolve import resolve
from genba.core.task import Lesson, Task
from genba.core.values import DatasetVersion, Segment
from genba.data import versions
from genba.data.images import alike, pieces, sheet
from genba.data.images.deal import DealRule, Pile, Words, deal
from genba.data.images.gather import Came, Gathering
from genba.data.images.lessons import Meant, meant
from genba.data.images.pieces import ImageSpill
from genba.data.segments import Rejects
from genba.data.view import DatasetView
from genba.store.home import Store
from genba.store.ledger import Record

ORIGIN: Final = "live"
_HELD: Final = ["digest", "look", "split", "label"]


def extend(
    store: Store,
    line: Line,
    version: DatasetVersion,
    captures: Sequence[Record],
    lessons: Iterable[Lesson],
) -> DatasetVersion:
    """Return the version continued with captured images and what people said about them.

    The segments of the version are part of the new one unchanged. Classes that people named for
    the first time follow those that are known. Of the images nobody judged, the newest 2,000 are
    kept.

    Args:
        store: Where captures and segments are.
        line: The line; its task finds the images and learns.
        version: The version to continue.
        captures: Records of captured predictions, oldest first.
        lessons: What people agreed on.

    Returns:
        The new version, or `version` itself when there is no new image.
    """
    task: Task = resolve("task", line.task)()
    said = meant(task, lessons, version.classes)
    held = pa.concat_tables(pieces.read(store.blobs, s, _HELD) for s in version.segments)
    entities = line.data.entity is not None
    with Rejects(store.blobs) as rejects, ImageSpill(store.work_dir("ingest")) as spill:
        known = set(held["digest"].to_pylist())
        gathering = Gathering(task, said, known, spill, entities=entities)
        gathering.take(store, captures, rejects)
        spill.done()
        if not gathering.came:
            return version
        extension = _Extension(store, line, version, gathering, held)
        extension.write(task, said, spill)
    return extension.record(said, gathering, rejects.digest)


class _Extension:
    """New images, in the order they came, and what becomes of them.

    `gathering.came` and the spill go from the newest to the oldest; `order` turns that round.
    """

    def __init__(
        self,
        store: Store,
        line: Line,
        version: DatasetVersion,
        gathering: Gathering,
        held: pa.Table,
    ) -> None:
        self._store = store
        self._version = version
        self._came = gathering.came
        self._held = held
        self._clock = line.data.time is not None
        self._sheet: dict[str, Any] = dict(DatasetView.sheet_of(store, version))
        order = sorted(range(len(self._came)), key=lambda at: self._came[at].received_ms)
        self._rank = np.argsort(order, kind="stable")  # of each image that came
        self._split = self._dealt(order)
        self._label = np.full(len(self._came), np.nan)
        names = {came.entity for came in self._came}
        self._names = (*version.entities, *sorted(names - set(version.entities)))
        self._segments: list[tuple[Segment, str]] = []

    def _dealt(self, order: list[int]) -> Words:
        """Split the new images, in groups with those that the version has."""
        rule: dict[str, Any] = self._sheet["split"]["rule"]
        deals = DealRule(**rule)
        looks = self._held["look"].to_pylist() + [came.look for came in self._came]
        old, count = len(self._held), len(looks)
        array = np.frombuffer(b"".join(looks), dtype=np.uint8).reshape(count, -1)
        asked = np.full(count, None, dtype=object)
        for judged in (True, False):
            mine = [at for at in order if self._came[at].judged == judged]
            for at, split in zip(mine, by_age(len(mine), deals), strict=True):
                asked[old + at] = split
        known = np.array(self._held["split"].to_pylist() + [None] * len(self._came), dtype=object)
        group = alike.groups(array, limit=float(self._sheet["alike"]["limit"])).first
        asked[np.isin(group, group[:old])] = None  # near to one that has a split
        pile = Pile(
            group=group,
            label=np.zeros(count, dtype=np.int64),
            key=np.zeros(count, dtype=np.uint64),
            known=known,
            asked=asked,
            given=frozenset(sheet.SPLITS),
        )
        return deal(pile, deals)[old:]

    def write(self, task: Task, said: Meant, spill: ImageSpill) -> None:
        """Write the new images, taught, split by split."""
        for split in sheet.SPLITS:
            chosen = np.flatnonzero(self._split == split)
            at = 0
            for table in spill.read(chosen):
                some = chosen[at : at + len(table)]
                at += len(table)
                whole = self._taught(task, said, self._table(table, some, split))
                self._label[some] = whole["label"].to_numpy()
                segment = pieces.write(self._store.blobs, whole, origin=ORIGIN, clock=self._clock)
                self._segments.append((segment, split))

    def _table(self, table: pa.Table, some: npt.NDArray[np.int64], split: str) -> pa.Table:
        came = [self._came[at] for at in some]
        first = int(self._sheet["rows"]["next"])
        rows = (first + self._rank[some]).tolist()
        columns = {
            "entity": [one.entity for one in came],
            "time": [_time(one, row, self._clock) for one, row in zip(came, rows, strict=True)],
            "label": np.full(len(came), np.nan),
            "split": [split] * len(came),
            "row": rows,
            "image": table["image"],
            "mask": table["mask"],
            "name": table["name"],
            "digest": [one.digest for one in came],
            "look": [one.look for one in came],
        }
        return pa.table(columns, schema=pieces.SCHEMA)

    def _taught(self, task: Task, said: Meant, table: pa.Table) -> pa.Table:
        """Let the task change labels and masks by what was said, entity by entity."""
        owners = np.array(table["entity"].to_pylist(), dtype=object)
        label = table["label"].to_numpy().copy()
        mask = np.array(table["mask"].to_pylist(), dtype=object)
        for entity in dict.fromkeys(owners.tolist()):
            at = np.flatnonzero(owners == entity)
            some = table.take(pa.array(at))
            columns = self._columns(some, entity)
            lessons = [
                lesson
                for name, time in zip(columns["prediction"], columns["time"], strict=True)
                for lesson in said.about(name, entity, int(time) if self._clock else None)
            ]
            kept = task.teach(columns, lessons)
            label[at], mask[at] = kept["label"], kept["mask"]
        table = table.set_column(table.schema.get_field_index("label"), "label", pa.array(label))
        place = table.schema.get_field_index("mask")
        return table.set_column(place, "mask", pa.array(mask.tolist(), pa.binary()))

    def _columns(self, table: pa.Table, entity: str) -> dict[str, npt.NDArray[Any]]:
        """Return rows in the types a view gives them in, and the prediction each one was."""
        texts = {n: np.array(table[n].to_pylist(), dtype=object) for n in ("image", "mask", "name")}
        code = self._names.index(entity)
        return {
            "entity": np.full(len(table), code, dtype=np.int32),
            **{n: table[n].to_numpy() for n in ("time", "row", "label")},
            **texts,
            "prediction": texts["name"],
        }

    def record(self, said: Meant, gathering: Gathering, rejects: str | None) -> DatasetVersion:
        """Record the new version and its sheet."""
        version, before = self._version, self._sheet
        extended = versions.seal(
            replace(
                version,
                segments=(*version.segments, *(segment for segment, _ in self._segments)),
                entities=self._names,
                classes=said.classes,
                rows=version.rows + len(self._came),
                rejected=dict(Counter(version.rejected) + gathering.rejected),
                rejects=rejects or version.rejects,
                parent=version.id,
            )
        )
        split = [*self._held["split"].to_pylist(), *self._split.tolist()]
        label = np.r_[self._held["label"].to_numpy(), self._label]
        known = np.where(np.isnan(label), -1, label).astype(np.int64).tolist()
        body = {
            **before,
            "rows": {
                **before["rows"],
                "kept": extended.rows,
                "next": int(before["rows"]["next"]) + len(self._came),
            },
            "classes": sheet.classes(said.classes, known, split),
            "split": {
                **before["split"],
                "rows": sheet.rows(split),
                "segments": {
                    **before["split"]["segments"],
                    **{segment.digest: of for segment, of in self._segments},
                },
            },
            "segments": [encode(segment) for segment in extended.segments],
            "live": [*before.get("live", ()), self._part(gathering, rejects)],
        }
        facts = versions.source_facts(self._store, version.id)
        return versions.record(self._store, extended, body, facts)

    def _part(self, gathering: Gathering, rejects: str | None) -> dict[str, Any]:
        """Return what the sheet says about this extension."""
        counts = gathering.counts
        told = ("captured", "damaged_batches", "inputs_not_kept", "already_known", "repeated",
                "not_kept")  # fmt: skip
        known = self._label[~np.isnan(self._label)]
        return {
            "segments": [segment.digest for segment, _ in self._segments],
            **{name: counts[name] for name in told},
            "rejected": dict(gathering.rejected),
            "rejects": rejects,
            "rows": len(self._came),
            "labelled": len(known),
            "anomalies": int((known > 0).sum()),
            "images": gathering.seen.summary(),
            "split": {"rows": sheet.rows(self._split.tolist())},
        }


def by_age(count: int, rule: DealRule) -> list[str]:
    """Return the splits of so many images, oldest first: the newest are for testing.

    Example:
        >>> by_age(5, DealRule(by="random", test=0.2, calibrate=0.2))
        ['train', 'train', 'train', 'calibrate', 'test']
    """
    tests = round(rule.test * count)
    held = max(round((rule.test + rule.calibrate) * count), tests)
    return ["train"] * (count - held) + ["calibrate"] * (held - tests) + ["test"] * tests


def _time(came: Came, row: int, clock: bool) -> int:
    if not clock:
        return row
    return came.received_ms if came.time is None else came.time
