"""The rows of a JSON Lines file, one object per line: a place to start from."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

from genba.core.digest import digest_file
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, SourceFacts
from genba.data.formats.batch import DETAIL, LINE, REASON, not_a_number, schema
from genba.data.formats.layout import Layout, require, wanted

_BATCH_ROWS: Final = 10_000  # what is in memory at once
_HEAD_ROWS: Final = 1_000  # what is looked at to see which columns there are
_LARGEST: Final = 1e300  # JSON has integers that no float64 can hold


class TemplateSource:
    """A place rows come from.

    Args:
        address: What stands behind the colon in `data.source = "template-name:ADDRESS"`.
        data: What the columns mean to the line, to read no others.
    """

    def __init__(self, address: str, data: Data) -> None:
        self._path = Path(address).expanduser()
        self._wanted = wanted(data)

    @staticmethod
    def example(folder: Path) -> str:
        """Write something small to read and return its address; `genba check` reads it."""
        path = folder / "example.jsonl"
        rows = ({"time": f"2026-01-01T00:{n:02}:00Z", "flow": n / 10} for n in range(60))
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return str(path)

    def facts(self) -> SourceFacts:
        """Describe the source; equal content has an equal fingerprint."""
        path = self._found()
        return SourceFacts(
            fingerprint=digest_file(path), location=str(path), bytes=path.stat().st_size
        )

    def batches(self, cursor: JsonObject | None = None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield (Arrow record batch, cursor behind it), from behind `cursor` on if one is given.

        A line that cannot be read is a row with a reason: it is rejected, counted and kept, and
        stops nothing.

        Raises:
            Problem: G201 when there is no such file, G202 when nothing in it is an object, G204
                when it lacks a column that the line names.
        """
        path = self._found()
        layout = self._layout(path)
        offset, line = (int(cursor["offset"]), int(cursor["line"])) if cursor else (0, 1)
        with path.open("rb") as file:
            file.seek(offset)
            while lines := _take(file, _BATCH_ROWS):
                rows = [_row(text, number, layout) for number, text in enumerate(lines, line)]
                offset, line = offset + sum(map(len, lines)), line + len(lines)
                batch = pa.RecordBatch.from_pylist(rows, schema=schema(layout))
                yield batch, {"offset": offset, "line": line}

    def _found(self) -> Path:
        if self._path.is_file():
            return self._path
        raise Problem(
            "G201",
            f"There is no file {self._path}.",
            where="data.source",
            why=f"The path is looked for from {Path.cwd()}.",
            tries=[f"ls {self._path.parent}", 'source = "template-name:/the/whole/path.jsonl"'],
        )

    def _layout(self, path: Path) -> Layout:
        """Settle the columns and whether each is a number, by the first rows."""
        with path.open("rb") as file:
            head = [row for text in _take(file, _HEAD_ROWS) if (row := _object(text)) is not None]
        if not head:
            raise Problem(
                "G202",
                f"The file {path.name} has no rows.",
                where=str(path),
                why="None of its first lines is a JSON object.",
                tries=[f"head -3 {path}"],
            )
        present = list(dict.fromkeys(name for row in head for name in row))
        require(self._wanted.names, present, path.name)
        spare = [n for n in present if n not in self._wanted.names] if self._wanted.rest else []
        numbers = [n for n in spare if all(_number(row.get(n)) for row in head)]
        return Layout(
            texts=(*self._wanted.texts, *(n for n in spare if n not in numbers)),
            numbers=(*self._wanted.numbers, *numbers),
        )


def _take(file: BinaryIO, rows: int) -> list[bytes]:
    return list(islice(file, rows))


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not abs(value) > _LARGEST)


def _row(text: bytes, line: int, layout: Layout) -> dict[str, Any]:
    """Return one row; what cannot be read gets a reason, in the same words for every such row."""
    found = _object(text)
    if found is None:
        shown = text.decode(errors="replace").strip()[:80]
        return {LINE: line, REASON: "not a JSON object", DETAIL: shown}
    row: dict[str, Any] = {LINE: line}
    for name in layout.texts:
        value = found.get(name)
        row[name] = value if value is None or isinstance(value, str) else json.dumps(value)
    for name in layout.numbers:
        value = found.get(name)
        if _number(value):
            row[name] = None if value is None else float(value)
        else:
            row |= {REASON: not_a_number(name), DETAIL: str(value)[:80]}
    return row
