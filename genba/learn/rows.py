"""Rows in memory behind the View protocol: for tests, benchmarks and windows of a dataset."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from genba.core.digest import digest_bytes
from genba.core.line import Line

Array = npt.NDArray[Any]


class RowsView:
    """A `genba.core.protocols.View` over arrays.

    Args:
        line: The line; its inputs and output name the sensors.
        columns: entity, time, label, split ("train", "calibrate", "test") and every sensor. Rows
            need no order.
        entities: Names behind the numbers in `entity`.
        has_clock: Whether `time` is ms since 1970 UTC or a row number.
    """

    modality = "table"
    classes: tuple[str, ...] = ()

    def __init__(
        self,
        line: Line,
        columns: Mapping[str, Array],
        entities: tuple[str, ...] = ("one",),
        *,
        has_clock: bool = True,
    ) -> None:
        order = np.lexsort((columns["time"], columns["entity"]))
        self.line = line
        self.entities = entities
        self.has_clock = has_clock
        data = line.data
        self.sensors = (*data.inputs, *([data.output] if data.output else []))
        self._columns = {name: np.asarray(column)[order] for name, column in columns.items()}
        self._columns["row"] = order.astype(np.int64)
        self._columns["entity"] = self._columns["entity"].astype(np.int32)
        self.digest = digest_bytes(b"".join(c.tobytes() for c in self._columns.values()))

    def chunks(self, split: str, *, rows: int = 65_536) -> Iterator[dict[str, Array]]:
        """Yield the rows of a split, entity by entity in the order of time."""
        inside = self._columns["split"] == split
        for entity in range(len(self.entities)):
            at = np.flatnonzero(inside & (self._columns["entity"] == entity))
            for start in range(0, len(at), rows):
                part = at[start : start + rows]
                yield {n: c[part] for n, c in self._columns.items() if n != "split"}

    def count(self, split: str) -> int:
        """Return the number of rows in a split."""
        return int((self._columns["split"] == split).sum())

    def ends(self) -> Array:
        """Return when each entity's life ended, NaN if it did not."""
        label, time = self._columns["label"], self._columns["time"]
        found = np.full(len(self.entities), np.nan)
        for entity in range(len(self.entities)):
            mine = self._columns["entity"] == entity
            if not np.isfinite(label).any() and mine.any():
                found[entity] = time[mine].max()
            elif (mine & (label == 1.0)).any():
                found[entity] = time[mine & (label == 1.0)].min()
        return found

    def sheet(self) -> dict[str, Any]:
        """Return the little that is known of rows in memory."""
        return {"rows": len(self._columns["row"]), "entities": list(self.entities)}
