"""Questions and answers in memory, as a task reads them from a dataset version."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genba.core.line import Line
from genba.core.protocols import Columns, JsonObject

SPLITS = ("train", "train", "train", "calibrate", "test")


@dataclass
class TextView:
    """Rows of (question, answer); every fifth is for testing, the one before for calibration."""

    line: Line
    rows: Sequence[tuple[str, str]]
    names: dict[int, str] = field(default_factory=dict)  # row -> where it came from
    weights: dict[int, float] = field(default_factory=dict)
    rejected: dict[int, str] = field(default_factory=dict)
    digest: str = "d" * 64
    entities: tuple[str, ...] = ("all",)
    sensors: tuple[str, ...] = ()
    modality: str = "text"
    classes: tuple[str, ...] = ()
    has_clock: bool = False

    @classmethod
    def of(cls, line: Line) -> "TextView":
        """Read the file of a line that `LanguageChat.example` made."""
        path = line.data.source.removeprefix("files:")
        rows = []
        with Path(path).open(encoding="utf-8") as file:
            for text in file:
                question, answer = json.loads(text)["messages"]
                rows.append((question["content"], answer["content"]))
        return cls(line, rows)

    def chunks(self, split: str, *, rows: int = 65_536) -> Iterator[Columns]:
        at = [n for n in range(len(self.rows)) if SPLITS[n % len(SPLITS)] == split]
        for start in range(0, len(at), rows):
            yield self._columns(at[start : start + rows])

    def count(self, split: str) -> int:
        return sum(len(chunk["row"]) for chunk in self.chunks(split))

    def ends(self) -> Any:
        return np.full(1, np.nan)

    def sheet(self) -> JsonObject:
        return {}

    def _columns(self, at: list[int]) -> dict[str, Any]:
        asked = [self.rows[n][0] for n in at]
        spoken = [[{"role": "user", "content": text}] for text in asked]
        return {
            "entity": np.zeros(len(at), dtype=np.int32),
            "time": np.array(at, dtype=np.int64),
            "row": np.array(at, dtype=np.int64),
            "label": np.full(len(at), np.nan),
            "messages": objects([json.dumps(m, separators=(",", ":")) for m in spoken]),
            "text": objects(asked),
            "answer": objects([self.rows[n][1] for n in at]),
            "rejected": objects([self.rejected.get(n, "") for n in at]),
            "weight": np.array([self.weights.get(n, 1.0) for n in at]),
            "name": objects([self.names.get(n, f"questions.jsonl:{n + 1}") for n in at]),
        }


def objects(values: Sequence[Any]) -> Any:
    """Return values as an object array."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found
