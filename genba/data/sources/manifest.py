"""A manifest: a table that names image files and says what is on them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from genba.core.digest import digest_file, digest_json
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, SourceFacts
from genba.data.formats.batch import MISSING
from genba.data.formats.layout import Layout, Wanted
from genba.data.sources import imagefiles
from genba.data.sources.files import layout_of, rows_of
from genba.data.sources.imagelayout import SPLITS, Entry

_SPLIT: Final = "split"


class Manifest:
    """The images that one or more tables name.

    Paths are relative to the folder of the table; absolute ones, and those that lead out of the
    folder, are read as well: who writes the line file may read what they may read. A column
    `split` (train, val, test) is respected where there is one.

    Args:
        paths: The tables.
        data: Names the columns: `image`, and where there are such `mask`, `label`, `entity` and
            `time`.
    """

    def __init__(self, paths: Sequence[Path], data: Data) -> None:
        self.paths = paths
        self.root = paths[0].parent
        self.data = data
        self._rows: list[imagefiles.Wanted] | None = None

    def facts(self, location: str) -> SourceFacts:
        """Read the tables and every file they name once; where they lie does not matter."""
        wanted = self._wanted()
        names = sorted(n for w in wanted for n in (w.entry.name, w.entry.mask) if n is not None)
        there = [name for name in dict.fromkeys(names) if (self.root / name).is_file()]
        tables = [digest_file(path) for path in self.paths]
        contents = [digest_file(self.root / name) for name in there]
        return SourceFacts(
            fingerprint=digest_json([tables, contents]),
            location=location,
            bytes=sum((self.root / name).stat().st_size for name in there),
        )

    def batches(self, cursor: JsonObject | None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield the images in the order of the rows."""
        yield from imagefiles.batches(self.root, self._wanted(), "a manifest", cursor)

    def _wanted(self) -> list[imagefiles.Wanted]:
        if self._rows is None:
            self._rows = [row for path in self.paths for row in self._read(path)]
        return self._rows

    def _read(self, path: Path) -> Iterator[imagefiles.Wanted]:
        columns, layout = self._layout(path)
        for batch, _ in rows_of(path, layout, None):
            for row in batch.to_pylist():
                cells = {
                    role: None if row[name] in MISSING else row[name]
                    for role, name in columns.items()
                }
                if cells["image"]:
                    yield self._row(path, cells)

    def _row(self, path: Path, cells: dict[str, str | None]) -> imagefiles.Wanted:
        split = cells.get(_SPLIT)
        mask = cells.get("mask")
        return imagefiles.Wanted(
            entry=Entry(
                name=self._placed(path, str(cells["image"])),
                label=cells.get("label"),
                split=SPLITS.get(split.strip().lower()) if split else None,
                mask=self._placed(path, mask) if mask else None,
                entity=cells.get("entity"),
            ),
            time=cells.get("time"),
        )

    def _placed(self, path: Path, name: str) -> str:
        """Return a path relative to the folder of the first table."""
        name = name.strip().replace("\\", "/")
        return name if path.parent == self.root else str(path.parent.absolute() / name)

    def _layout(self, path: Path) -> tuple[dict[str, str], Layout]:
        data = self.data
        roles = {
            role: str(name)
            for role in ("image", "mask", "label", "entity", "time")
            if (name := getattr(data, role))
        }
        try:
            split = {**roles, _SPLIT: _SPLIT}
            return split, layout_of(
                path, Wanted(texts=tuple(dict.fromkeys(split.values())), numbers=())
            )
        except Problem as problem:
            if problem.code != "G204":
                raise
            return roles, layout_of(
                path, Wanted(texts=tuple(dict.fromkeys(roles.values())), numbers=())
            )
