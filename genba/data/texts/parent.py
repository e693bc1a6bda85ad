"""An earlier version of a line of texts, as a new one continues it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from genba.core.values import DatasetVersion, Segment
from genba.data.texts import pieces
from genba.data.view import DatasetView
from genba.store.home import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What a version holds about one text."""

    digest: str
    label: int  # -1 where it is not known
    entity: str
    name: str
    weight: float
    time: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TextParent:
    """An earlier version that a new one continues."""

    store: Store
    version: DatasetVersion
    split: dict[str, str]  # of each text, by its digest
    next_row: int

    @classmethod
    def load(cls, store: Store, version: DatasetVersion) -> "TextParent":
        """Return a version as a parent, with what its sheet keeps."""
        sheet: Any = DatasetView.sheet_of(store, version)
        split: dict[str, str] = {}
        for segment in version.segments:
            table = pieces.read(store.blobs, segment, ["digest", "split"])
            split.update(zip(*(table[n].to_pylist() for n in ("digest", "split")), strict=True))
        next_row = int(sheet["rows"]["next"])
        return cls(store=store, version=version, split=split, next_row=next_row)

    def segments(self) -> Iterator[tuple[Segment, str, list[Held]]]:
        """Yield each segment with its split and what it holds, texts left out."""
        names = ["digest", "label", "entity", "name", "weight", "time", "split"]
        for segment in self.version.segments:
            rows = pieces.read(self.store.blobs, segment, names).to_pylist()
            yield segment, str(rows[0]["split"]), [_held(row) for row in rows]


def _held(row: dict[str, Any]) -> Held:
    return Held(
        digest=row["digest"],
        label=-1 if np.isnan(row["label"]) else int(row["label"]),
        entity=row["entity"],
        name=row["name"],
        weight=row["weight"],
        time=row["time"],
    )
