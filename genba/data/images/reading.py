"""The first pass over a source of images: each file looked at, what is kept spilled to disk."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from genba.core.digest import canonical_json, digest_bytes
from genba.core.line import Line
from genba.core.problem import Problem
from genba.data.checks import NO_TIME
from genba.data.clock import Clock, moment
from genba.data.formats.batch import DETAIL, REASON
from genba.data.images.alike import SIDE
from genba.data.images.examine import Kept, Seen, examine, reason, values
from genba.data.images.pieces import ImageSpill
from genba.data.intake import BEFORE_SINCE, FROM_UNTIL, OTHER_ENTITY
from genba.data.roles import ONLY_ENTITY
from genba.data.segments import REJECTS_SCHEMA, Rejects

DUPLICATE: Final = "duplicate"
OTHER_CLASS: Final = "duplicate in another class"
_OPTIONAL: Final = ("mask", "label", "split", "entity", "group", "time", REASON, DETAIL)
_STRONGER: Final = {"test": 3, "calibrate": 2, "train": 1, None: 0}
_UNKNOWN: Final = -1


class Reading:
    """What is known of every image that was kept, in the order it was read.

    Args:
        line: Which entities and times are wanted.
        spill: Where the files go.
        rejects: Where the rejected ones go, without their bytes.
        first: Number of the first row.
    """

    things: Final = "images"

    def __init__(self, line: Line, spill: ImageSpill, rejects: Rejects, *, first: int) -> None:
        self.line = line
        self.first = first
        self.read = 0
        self.layout = ""
        self.seen = Seen()
        self.rejected: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.classes: list[str] = []
        self.entities: list[str] = []
        self.digest: list[str] = []
        self.name: list[str] = []
        self.mask: list[str | None] = []  # digests
        self.label: list[int] = []
        self.entity: list[int] = []
        self.time: list[int] = []
        self.row: list[int] = []
        self.split: list[str | None] = []
        self.together: list[tuple[int, int]] = []
        self._looks = bytearray()
        self._spill = spill
        self._rejects = rejects
        self._at: dict[str, int] = {}  # digest -> place
        self._groups: dict[str, int] = {}  # name of a group -> place of its first image
        self._clock = Clock(line.data.time) if line.data.time else None
        self._since = moment(line.data.since, "data.since") if line.data.since else None
        self._until = moment(line.data.until, "data.until") if line.data.until else None

    @property
    def kept(self) -> int:
        """How many images were kept."""
        return len(self.digest)

    def looks(self) -> npt.NDArray[np.uint8]:
        """Return the thumbnails, uint8 [N, 256]."""
        return np.frombuffer(bytes(self._looks), dtype=np.uint8).reshape(-1, SIDE * SIDE)

    def look(self, at: int) -> bytes:
        """Return one thumbnail."""
        return bytes(self._looks[at * SIDE * SIDE : (at + 1) * SIDE * SIDE])

    def take(self, batch: pa.RecordBatch) -> None:
        """Look at the images of a batch.

        Raises:
            Problem: G235 when the source does not yield images.
        """
        check_columns(batch.schema)
        metadata = batch.schema.metadata or {}
        self.layout = metadata.get(b"layout", self.layout.encode()).decode()
        kept: list[tuple[bytes, bytes | None, str]] = []
        bad: list[dict[str, Any]] = []
        for row in _rows(batch, self._times(batch)):
            number = self.first + self.read
            self.read += 1
            why = self._left_out(row)
            if why:
                self.skipped[why] += 1
                continue
            try:
                found = self._examined(row, number)
            except _RejectedError as rejected:
                self.rejected[rejected.reason] += 1
                bad.append(_reject(row, number, rejected))
                continue
            kept.append((found.image, found.mask, str(row["name"])))
        self._spill.add(kept)
        if bad:
            self._rejects.add(pl.DataFrame(bad, schema=REJECTS_SCHEMA))

    def _times(self, batch: pa.RecordBatch) -> list[int | None]:
        if self._clock is None or "time" not in batch.schema.names:
            return [None] * len(batch)
        found: list[int | None] = self._clock.read(pl.Series("time", batch["time"])).to_list()
        return found

    def _left_out(self, row: Mapping[str, Any]) -> str:
        """Return why the line does not ask for an image; "" where it does."""
        wanted, time = self.line.data.entities, row["time"]
        if wanted and row["entity"] not in wanted:
            return OTHER_ENTITY
        if time is not None and self._since is not None and time < self._since:
            return BEFORE_SINCE
        if time is not None and self._until is not None and time >= self._until:
            return FROM_UNTIL
        return ""

    def _examined(self, row: Mapping[str, Any], number: int) -> Kept:
        if row[REASON]:
            raise _RejectedError(row[REASON], row[DETAIL] or "")
        if self._clock is not None and row["time"] is None:
            raise _RejectedError(NO_TIME, "")
        image = row["image"] or b""
        known = self._at.get(digest_bytes(image))
        if known is not None:
            raise self._again(known, row)
        try:
            found = examine(image, row["mask"], self.seen)
        except Problem as problem:
            raise _RejectedError(*reason(problem, image)) from problem
        self._keep(found, row, number)
        return found

    def _again(self, at: int, row: Mapping[str, Any]) -> "_RejectedError":
        """Reject a file that was there before; what it is to be used for still counts."""
        if _STRONGER.get(row["split"], 0) > _STRONGER.get(self.split[at], 0):
            self.split[at] = row["split"]
        before = self.classes[self.label[at]] if self.label[at] >= 0 else None
        why = DUPLICATE if row["label"] in (None, before) else OTHER_CLASS
        return _RejectedError(why, f"the same file as {self.name[at]}")

    def _keep(self, found: Kept, row: Mapping[str, Any], number: int) -> None:
        place = self.kept
        self._at[found.digest] = place
        if row["group"] is not None:
            first = self._groups.setdefault(row["group"], place)
            if first != place:
                self.together.append((first, place))
        self.digest.append(found.digest)
        self._looks += found.look
        self.name.append(str(row["name"]))
        self.mask.append(digest_bytes(found.mask) if found.mask is not None else None)
        self.label.append(_code(self.classes, row["label"]))
        self.entity.append(_code(self.entities, row["entity"] or ONLY_ENTITY))
        self.time.append(number if row["time"] is None else int(row["time"]))
        self.row.append(number)
        self.split.append(row["split"])


class _RejectedError(Exception):
    """An image is not kept."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def check_columns(schema: pa.Schema) -> None:
    """Refuse a source that does not yield images.

    Raises:
        Problem: G235.
    """
    if {"image", "name"} <= set(schema.names):
        return
    raise Problem(
        "G235",
        "The source has no images.",
        where="data.source",
        why=f"Its columns are {', '.join(schema.names[:10])}; the task of the line needs images.",
        tries=[
            'source = "files:FOLDER"',
            'image = "the column that names the image file"',
            "genba explain G235",
        ],
    )


def _code(names: list[str], name: str | None) -> int:
    if name is None:
        return _UNKNOWN
    if name not in names:
        names.append(name)
    return names.index(name)


def _rows(batch: pa.RecordBatch, times: list[int | None]) -> Iterator[dict[str, Any]]:
    """Yield rows with every column that may be there, one image in memory twice at most."""
    names = [n for n in ("image", "name", *_OPTIONAL) if n in batch.schema.names]
    for at in range(len(batch)):
        row = dict.fromkeys((*_OPTIONAL, "image", "name"))
        row.update({name: batch[name][at].as_py() for name in names})
        row["time"] = times[at]
        yield row


def _reject(row: Mapping[str, Any], number: int, rejected: _RejectedError) -> dict[str, Any]:
    image = row["image"] or b""
    held = values(digest_bytes(image), len(image), {n: row[n] for n in ("label", "split")})
    return {
        "row": number,
        "file": row["name"],
        "line": None,
        "reason": rejected.reason,
        "detail": rejected.detail,
        "values": canonical_json(held).decode(),
    }
