"""A dataset version as tasks read it."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.core.line import Line
from genba.core.protocols import Columns, JsonObject
from genba.core.values import DatasetVersion
from genba.data import segments, versions
from genba.store.home import Store

_CHUNK_ROWS: Final = 65_536


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
        has_clock: Whether `time` is a time, not a row number.
    """

    def __init__(self, store: Store, version: DatasetVersion, line: Line) -> None:
        self.store = store
        self.version = version
        self.line = line
        self.digest = version.id
        self.entities = version.entities
        self.sensors = sensors_of(version.columns)
        self.has_clock = line.data.time is not None
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

        Rows of other splits are left out, so look at `time` to see where rows do not adjoin.

        Args:
            split: "train", "calibrate", "test" or "purged".
            rows: Most rows in a chunk.
        """
        for segment in self.version.segments:
            frame = segments.read(self.store.blobs, segment, list(self.version.columns))
            columns = self._columns(frame.filter(pl.col("split") == split))
            for begin, end in _sections(columns["entity"]):
                for start in range(begin, end, rows):
                    stop = min(start + rows, end)
                    yield {name: values[start:stop] for name, values in columns.items()}

    def count(self, split: str) -> int:
        """Return the number of rows in a split."""
        if self._counts is None:
            self._counts = Counter()
            for segment in self.version.segments:
                frame = segments.read(self.store.blobs, segment, ["split"])
                self._counts.update(dict(frame["split"].value_counts().iter_rows()))
        return self._counts[split]

    def sheet(self) -> JsonObject:
        """Return the dataset sheet."""
        found: dict[str, Any] = json.loads(self.store.blobs.read(self.version.sheet))
        return found

    def _columns(self, frame: pl.DataFrame) -> dict[str, npt.NDArray[Any]]:
        """Return a frame as numpy columns in the types the protocol names."""
        codes = {name: place for place, name in enumerate(self.entities)}
        entity = frame["entity"].replace_strict(codes, return_dtype=pl.Int32)
        columns = {"entity": entity.to_numpy(), "time": frame["time"].to_numpy()}
        for name in self.version.columns:
            if name not in ("entity", "time", "split"):
                columns[name] = frame[name].to_numpy()
        return columns


def sensors_of(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sensors among the columns of a version."""
    return columns[columns.index("time") + 1 : columns.index("label")]


def _sections(entity: npt.NDArray[np.int32]) -> list[tuple[int, int]]:
    """Return begin and end of each entity's rows."""
    if not len(entity):
        return []
    begins = np.flatnonzero(np.r_[True, entity[1:] != entity[:-1]]).tolist()
    return list(zip(begins, [*begins[1:], len(entity)], strict=True))
