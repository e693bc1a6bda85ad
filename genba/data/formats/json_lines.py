"""JSON Lines: one object per line."""

import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import polars as pl
import pyarrow as pa
import pyarrow.json

from genba.core.problem import Problem
from genba.data.formats.batch import DETAIL, LINE, REASON, as_batch, to_numbers
from genba.data.formats.blocks import HEAD_BYTES, Block, blocks, check_encoding, check_text
from genba.data.formats.layout import Layout, Position, Wanted, require

_NOT_AN_OBJECT: Final = "not a JSON object"


def layout(head: bytes, name: str, wanted: Wanted) -> Layout:
    """Return the columns to read, found from the first lines of the first file."""
    sample = _sample(head, name)
    present = list(dict.fromkeys(key for row in sample for key in row))
    require(wanted.names, present, name)
    rest = [key for key in present if key not in wanted.names] if wanted.rest else []
    numeric = [key for key in rest if _is_numeric([row.get(key) for row in sample])]
    return Layout(texts=wanted.texts, numbers=wanted.numbers + tuple(numeric))


def read(
    file: BinaryIO, name: str, layout: Layout, position: Position | None = None
) -> Iterator[tuple[pa.RecordBatch, Position]]:
    """Yield the rows of a file as batches, each with the position behind it.

    Raises:
        Problem: G202 or G203 when the file is not text, G204 for a missing column.
    """
    head = file.read(HEAD_BYTES)
    present = list(dict.fromkeys(key for row in _sample(head, name) for key in row))
    require(layout.names, present, name, "Every file of a source must have the same columns.")
    start = position or Position()
    file.seek(0)
    for block in blocks(file, name, start=start.offset, line=start.line, quoted=False):
        behind = Position(offset=block.end, line=block.line + block.lines)
        yield as_batch(_parse(block, name, layout), layout), behind


def _parse(block: Block, name: str, layout: Layout) -> pl.DataFrame:
    try:
        frame = _quick(block, layout)
    except pa.ArrowInvalid:
        check_encoding(block.data, name, block.line)
        return _careful(block, layout)
    return frame if frame.height == block.lines else _careful(block, layout)


def _quick(block: Block, layout: Layout) -> pl.DataFrame:
    """Parse a block in which every line is an object with the types that are expected."""
    types = [(n, pa.string()) for n in layout.texts] + [(n, pa.float64()) for n in layout.numbers]
    table = pyarrow.json.read_json(
        io.BytesIO(block.data),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(types), unexpected_field_behavior="ignore"
        ),
    )
    empty = pl.lit(None, dtype=pl.String)
    return pl.DataFrame(table).with_columns(
        pl.int_range(block.line, block.line + table.num_rows, dtype=pl.Int64).alias(LINE),
        empty.alias(REASON),
        empty.alias(DETAIL),
    )


def _careful(block: Block, layout: Layout) -> pl.DataFrame:
    """Parse a block line by line; what is not an object gets a reason."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(block.data.decode().splitlines(), start=block.line):
        if not line.strip():
            continue
        parsed = _object(line)
        row = {name: _text((parsed or {}).get(name)) for name in layout.names}
        bad = parsed is None
        rows.append(
            row
            | {LINE: number}
            | {REASON: _NOT_AN_OBJECT if bad else None, DETAIL: line[:200] if bad else None}
        )
    schema = dict.fromkeys([*layout.names, REASON, DETAIL], pl.String) | {LINE: pl.Int64}
    return to_numbers(pl.DataFrame(rows, schema=schema), layout.numbers)


def _object(line: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _sample(head: bytes, name: str) -> list[dict[str, Any]]:
    """Return the objects of the first lines; the last, perhaps cut off, may be missing.

    Raises:
        Problem: G206 when no line is an object.
    """
    check_text(head, name)
    found = [_object(line) for line in head.decode(errors="replace").splitlines()]
    objects = [row for row in found if row is not None]
    if not objects:
        raise Problem(
            "G206",
            f"{name} line 1 cannot be read.",
            where=f"{name}:1",
            why="Each line of JSON Lines is one object, such as {"
            '"time": "2026-01-01T00:00:00Z", "temperature": 21.5}.',
            tries=[f"head -1 {name}", f"jq -c '.[]' {name} > fixed.jsonl"],
        )
    return objects


def _is_numeric(values: list[Any]) -> bool:
    told = [value for value in values if value is not None]
    return sum(isinstance(value, (int, float)) for value in told) > len(told) / 2
