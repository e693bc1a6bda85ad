"""A dataset of texts in memory, as a task reads it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from genba.core.line import Data, Line
from genba.core.protocols import Columns
from genba.edge.texts import written

Row = tuple[str, str | None]  # text and class


class TextView:
    """Texts by split."""

    modality = "text"
    digest = "text-view"
    entities: tuple[str, ...] = ("all",)
    sensors: tuple[str, ...] = ()
    has_clock = False

    def __init__(self, splits: Mapping[str, Sequence[Row]], line: Line | None = None) -> None:
        names = {label for rows in splits.values() for _, label in rows if label is not None}
        self.classes = tuple(sorted(names))
        self.line = line or Line(
            name="texts",
            task="language.classify",
            data=Data(source="files:texts.jsonl", label="intent"),
            options={"encoder": "letters"},
        )
        self._chunks: dict[str, Columns] = {}
        start = 0
        for split in ("train", "calibrate", "test"):
            rows = splits.get(split, ())
            self._chunks[split] = self._columns(rows, start)
            start += len(rows)

    def _columns(self, rows: Sequence[Row], start: int) -> Columns:
        count = len(rows)
        label = [np.nan if c is None else self.classes.index(c) for _, c in rows]
        text, messages = np.empty(count, dtype=object), np.empty(count, dtype=object)
        text[:] = [t for t, _ in rows]
        messages[:] = [written([{"role": "user", "content": t}]).decode() for t, _ in rows]
        return {
            "entity": np.zeros(count, dtype=np.int32),
            "time": np.arange(start, start + count, dtype=np.int64),
            "row": np.arange(start, start + count, dtype=np.int64),
            "label": np.array(label, dtype=np.float64),
            "text": text,
            "messages": messages,
            "answer": np.full(count, "", dtype=object),
        }

    def chunks(self, split: str, *, rows: int = 65_536) -> Iterator[Columns]:
        columns = self._chunks[split]
        for at in range(0, len(columns["row"]), min(rows, 64)):
            yield {name: column[at : at + min(rows, 64)] for name, column in columns.items()}

    def count(self, split: str) -> int:
        return len(self._chunks[split]["row"])

    def ends(self) -> Any:
        return np.full(1, np.nan)

    def sheet(self) -> dict[str, Any]:
        return {}
