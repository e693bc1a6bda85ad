"""A dataset version as tasks read it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.core.line import Line
from genba.core.protocols import Columns, JsonObject
from genba.core.values import DatasetVersion
from genba.data import segments, versions
from genba.store.home import Store

TABLE: Final = "table"
IMAGE: Final = "image"
TEXT: Final = "text"
_CHUNK_ROWS: Final = 65_536
_CHUNK_IMAGES: Final = 64
_CHUNK_TEXTS: Final = 1_024
_CHUNK_BYTES: Final = 16 << 20  # of image files, or characters of answers
_IMAGE_COLUMNS: Final = ("entity", "time", "label", "row", "image", "mask", "name")
_TEXT_COLUMNS: Final = (
    *("entity", "time", "label", "row", "messages", "text", "answer", "rejected", "weight", "name"),
)
_FAILED: Final = 1.0  # the label of the row with which a life ends
_SOURCE: Final = "source"


class DatasetView:
    """Reads a version split by split, one segment in memory at a time; every byte is verified.

    A chunk never spans two segments.

    Args:
        store: Where the segments are.
        version: The version.
        line: The line that reads it.

    Attributes:
        digest: Id of the version.
        entities: Names; the `entity` of a chunk is an index into them.
        sensors: Inputs in the order of the line, then the output if there is one.
        has_clock: Whether `time` is a time, not a count (of cycles) or a row number.
        modality: "table", "image" or "text".
        classes: What the labels 0, 1, 2, ... mean; () where they are plain numbers.
    """

    def __init__(self, store: Store, version: DatasetVersion, line: Line) -> None:
        self.store = store
        self.version = version
        self.line = line
        self.digest = version.id
        self.entities = version.entities
        self.sensors = sensors_of(version.columns)
        self.modality = modality_of(version)
        self.classes = version.classes
        self._counts: Counter[str] | None = None

    @classmethod
    def open(cls, store: Store, id: str, line: Line) -> Self:
        """Return the view of a recorded version.

        Raises:
            Problem: G219 when there is none with that id.
        """
        return cls(store, versions.load(store, id), line)

    def part(self, origin: str) -> "DatasetView":
        """Return a view of the rows of one origin only: "source" or "live"."""
        chosen = tuple(s for s in self.version.segments if s.origin == origin)
        rows = sum(segment.rows for segment in chosen)
        return DatasetView(self.store, replace(self.version, segments=chosen, rows=rows), self.line)

    def chunks(self, split: str, *, rows: int = _CHUNK_ROWS) -> Iterator[Columns]:
        """Yield the rows of a split in chunks: consecutive rows of one entity in order of time.

        Rows of other splits are left out, so look at `time` to see where rows do not adjoin. Of
        images there are at most 64 in a chunk, of texts 1,024, and fewer of large ones.

        Args:
            split: "train", "calibrate", "test" or "purged".
            rows: Most rows in a chunk.
        """
        for segment in self.version.segments:
            if self._split_of.get(segment.digest, split) != split:
                continue
            frame = segments.read(self.store.blobs, segment, self._names)
            frame = frame.filter(pl.col("split") == split)
            columns = self._columns(frame)
            for begin, end in _sections(columns["entity"]):
                for start, stop in self._cuts(columns, begin, end, rows):
                    yield {name: values[start:stop] for name, values in columns.items()}

    def count(self, split: str) -> int:
        """Return the number of rows in a split."""
        if self._counts is None:
            self._counts = Counter()
            for segment in self.version.segments:
                if segment.digest in self._split_of:
                    self._counts[self._split_of[segment.digest]] += segment.rows
                    continue
                frame = segments.read(self.store.blobs, segment, ["split"])
                self._counts.update(dict(frame["split"].value_counts().iter_rows()))
        return self._counts[split]

    def ends(self) -> npt.NDArray[np.float64]:
        """Return when each entity's life ended (float64 [entities], as `time`), NaN if it did not.

        The first row labelled 1 is the end. Where no row of the source has a label, every entity
        of the source ran to failure and its last row there is the end, unless it was seen again in
        service. Images and texts have no lives. Reads three columns, one segment at a time.
        """
        if self.modality != TABLE:
            return np.full(len(self.entities), np.nan)
        failed = np.full(len(self.entities), np.inf)
        last = {origin: np.full(len(self.entities), -np.inf) for origin in (_SOURCE, "live")}
        labelled = False
        for segment in self.version.segments:
            frame = segments.read(self.store.blobs, segment, ["entity", "time", "label"])
            code, time, label = self._codes(frame), frame["time"].to_numpy(), frame["label"]
            said = label.to_numpy()
            labelled |= segment.origin == _SOURCE and bool(np.isfinite(said).any())
            ended = said == _FAILED
            np.minimum.at(failed, code[ended], time[ended])
            np.maximum.at(last[segment.origin], code, time)
        ran = (last[_SOURCE] > -np.inf) & (last["live"] == -np.inf) & np.isinf(failed)
        ends = np.where(ran & (not labelled), last[_SOURCE], failed)
        return np.where(np.isinf(ends), np.nan, ends)

    def sheet(self) -> JsonObject:
        """Return the dataset sheet."""
        return self.sheet_of(self.store, self.version)

    @staticmethod
    def sheet_of(store: Store, version: DatasetVersion) -> JsonObject:
        """Return the sheet of a version."""
        found: dict[str, Any] = json.loads(store.blobs.read(version.sheet))
        return found

    @cached_property
    def has_clock(self) -> bool:
        """Whether `time` is a time; the sheet knows whether the column counted instead."""
        if self.line.data.time is None:
            return False
        return not (self.sheet().get("time") or {}).get("is_count", False)

    @property
    def _names(self) -> list[str]:
        """Columns that a chunk is made of, and the split."""
        if self.modality == IMAGE:
            return [*_IMAGE_COLUMNS, "split"]
        if self.modality == TEXT:
            return [*_TEXT_COLUMNS, "split"]
        return list(self.version.columns)

    @cached_property
    def _split_of(self) -> Mapping[str, str]:
        """The split of each segment that holds one only, by digest."""
        if self.modality == TABLE:
            return {}
        found: dict[str, str] = self.sheet()["split"]["segments"]
        return found

    def _columns(self, frame: pl.DataFrame) -> dict[str, npt.NDArray[Any]]:
        """Return a frame as numpy columns in the types the protocol names."""
        columns = {"entity": self._codes(frame), "time": frame["time"].to_numpy()}
        for name in self._names:
            if name not in ("entity", "time", "split"):
                columns[name] = frame[name].to_numpy()
        return columns

    def _codes(self, frame: pl.DataFrame) -> npt.NDArray[np.int32]:
        codes = {name: place for place, name in enumerate(self.entities)}
        return frame["entity"].replace_strict(codes, return_dtype=pl.Int32).to_numpy()

    def _cuts(
        self, columns: Mapping[str, npt.NDArray[Any]], begin: int, end: int, rows: int
    ) -> Iterator[tuple[int, int]]:
        """Yield where the chunks of one entity begin and end."""
        if self.modality == TABLE:
            yield from ((at, min(at + rows, end)) for at in range(begin, end, rows))
            return
        images = self.modality == IMAGE
        large, most = ("image", _CHUNK_IMAGES) if images else ("answer", _CHUNK_TEXTS)
        start, size, most = begin, 0, min(rows, most)
        for at in range(begin, end):
            size += len(columns[large][at])
            if at > start and (at - start >= most or size > _CHUNK_BYTES):
                yield start, at
                start, size = at, len(columns[large][at])
        if start < end:
            yield start, end


def modality_of(version: DatasetVersion) -> str:
    """Return what kind of data a version holds: "table", "image" or "text"."""
    columns = set(version.columns)
    if set(_IMAGE_COLUMNS) <= columns:
        return IMAGE
    return TEXT if set(_TEXT_COLUMNS) <= columns else TABLE


def sensors_of(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sensors among the columns of a version."""
    return columns[columns.index("time") + 1 : columns.index("label")]


def _sections(entity: npt.NDArray[np.int32]) -> list[tuple[int, int]]:
    """Return begin and end of each entity's rows."""
    if not len(entity):
        return []
    begins = np.flatnonzero(np.r_[True, entity[1:] != entity[:-1]]).tolist()
    return list(zip(begins, [*begins[1:], len(entity)], strict=True))
