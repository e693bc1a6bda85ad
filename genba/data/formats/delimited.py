"""CSV and its relatives: the delimiter, the decimal sign and the numeric columns are found out."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv

from genba.core.problem import Problem
from genba.data.formats.batch import DETAIL, LINE, MISSING, REASON, as_batch, schema, to_numbers
from genba.data.formats.blocks import BOM_8, Block, blocks, check_encoding, check_text
from genba.data.formats.blocks import HEAD_BYTES as HEAD_BYTES  # the sniffers read as much
from genba.data.formats.layout import Layout, Position, Wanted, require

_DELIMITERS: Final = (",", ";", "\t", "|")
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,\d+")
_NUMBER: Final = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
_RAGGED: Final = "wrong number of fields"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one file is written."""

    delimiter: str
    decimal: str
    header: tuple[str, ...]
    start: int  # offset of the first record


def dialect(head: bytes, name: str, wanted: Sequence[str]) -> Dialect:
    r"""Find out how a file is written from its first bytes.

    Args:
        head: The first bytes of the file.
        name: What to call it in an error.
        wanted: Columns the header should have; they tell the delimiter where it is in doubt.

    Raises:
        Problem: G202 or G203 when it is not text, G205 when its header cannot be used.

    Example:
        >>> dialect(b"t;x\n2024-01-01;1,5\n", "a.csv", ["t", "x"]).decimal
        ','
    """
    check_text(head, name)
    bom = len(BOM_8) if head.startswith(BOM_8) else 0
    line = head[bom:].split(b"\n", 1)[0]
    start = min(bom + len(line) + 1, len(head))
    check_encoding(line, name, 1)
    text = line.decode().rstrip("\r")
    headers = {
        d: tuple(c.strip() for c in next(csv.reader([text], delimiter=d))) for d in _DELIMITERS
    }
    known = {d: (len(set(wanted) & set(h)), len(h)) for d, h in headers.items()}
    delimiter = max(_DELIMITERS, key=lambda d: known[d])
    header = headers[delimiter]
    twice = [column for column, count in Counter(header).items() if count > 1 and column]
    if twice:
        raise Problem(
            "G205",
            f"{name} has more than one column {twice[0]!r}.",
            where=f"{name}:1",
            why="It would not be known which of them is meant.",
            tries=[f"give each column of {name} its own name", f"head -1 {name}"],
        )
    sample = _sample(head[start:], delimiter)
    comma = delimiter != "," and any(
        _DECIMAL_COMMA.fullmatch(cell) for row in sample for cell in row
    )
    return Dialect(delimiter=delimiter, decimal="," if comma else ".", header=header, start=start)


def layout(head: bytes, name: str, wanted: Wanted) -> Layout:
    """Return the columns to read, found from the first file of a source."""
    found = dialect(head, name, wanted.names)
    require(wanted.names, found.header, name)
    rest = [c for c in found.header if c and c not in wanted.names] if wanted.rest else []
    sample = _sample(head[found.start :], found.delimiter)
    numeric = [c for c in rest if _is_numeric(sample, found.header.index(c))]
    return Layout(texts=wanted.texts, numbers=wanted.numbers + tuple(numeric))


def read(
    file: BinaryIO, name: str, layout: Layout, position: Position | None = None
) -> Iterator[tuple[pa.RecordBatch, Position]]:
    """Yield the rows of a file as batches, each with the position behind it.

    A line with the wrong number of fields or a text where a number belongs is handed over with
    its reason; the rest of the block is not affected.

    Raises:
        Problem: G203 for bytes that are not UTF-8, G204 for a missing column, G206 for a quote
            that is never closed.
    """
    head = file.read(HEAD_BYTES)
    found = dialect(head, name, layout.names)
    require(layout.names, found.header, name, "Every file of a source must have the same columns.")
    start = position or Position(offset=found.start, line=2)
    for block in blocks(file, name, start=start.offset, line=start.line, quoted=True):
        behind = Position(offset=block.end, line=block.line + block.lines)
        yield _parse(block, name, found, layout), behind


def _parse(block: Block, name: str, found: Dialect, layout: Layout) -> pa.RecordBatch:
    try:
        table, ragged = _arrow(block, found, layout, typed=True)
        unread = None
    except pa.ArrowInvalid:
        check_encoding(block.data, name, block.line)
        table, ragged = _arrow(block, found, layout, typed=False)
        unread = to_numbers(_frame(table), layout.numbers, decimal_comma=found.decimal == ",")
    lines = _lines(block, found, table.num_rows + len(ragged))
    if unread is None and not ragged:
        own = [pa.array(lines), *(pa.nulls(table.num_rows, pa.string()) for _ in range(2))]
        columns = [*(table[c].combine_chunks() for c in layout.names), *own]
        return pa.record_batch(
            [c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns],
            schema=schema(layout),
        )
    frame = unread if unread is not None else _frame(table)
    return as_batch(_with_ragged(frame, ragged, lines, found), layout)


def _arrow(
    block: Block, found: Dialect, layout: Layout, *, typed: bool
) -> tuple[pa.Table, list[Any]]:
    """Parse a block; lines with another number of fields than the header come back apart."""
    ragged: list[Any] = []

    def keep(line: Any) -> str:
        ragged.append(line)
        return "skip"

    number = pa.float64() if typed else pa.string()
    types = dict.fromkeys(layout.texts, pa.string()) | dict.fromkeys(layout.numbers, number)
    table = pyarrow.csv.read_csv(
        io.BytesIO(block.data),
        # One thread: Arrow numbers the lines it refuses only then, and is no slower for it.
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False,
            column_names=[c or f"_empty{i}" for i, c in enumerate(found.header)],
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=found.delimiter,
            newlines_in_values=b'"' in block.data,
            invalid_row_handler=keep,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=list(layout.names),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            null_values=list(MISSING),
            decimal_point=found.decimal,
        ),
    )
    return table, ragged


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(table)
    empty = pl.lit(None, dtype=pl.String)
    return frame.with_columns(empty.alias(REASON), empty.alias(DETAIL))


def _with_ragged(
    frame: pl.DataFrame, ragged: list[Any], lines: npt.NDArray[np.int64], found: Dialect
) -> pl.DataFrame:
    """Put the refused lines back between the good ones, each with its reason."""
    refused = np.array([row.number - 1 for row in ragged], dtype=np.int64)
    good = np.delete(lines, refused)
    fields = len(found.header)
    bad = pl.DataFrame(
        {
            LINE: lines[refused],
            REASON: [_RAGGED] * len(ragged),
            DETAIL: [f"{r.actual_columns} instead of {fields}: {r.text[:200]}" for r in ragged],
        },
        schema={LINE: pl.Int64, REASON: pl.String, DETAIL: pl.String},
    )
    whole = pl.concat([frame.with_columns(pl.Series(LINE, good)), bad], how="diagonal")
    return whole.sort(LINE, maintain_order=True)


def _lines(block: Block, found: Dialect, records: int) -> npt.NDArray[np.int64]:
    """Return the line of the file each record begins on."""
    if block.lines == records:
        return np.arange(block.line, block.line + records, dtype=np.int64)
    # Blank lines or line feeds inside quotes: count as the csv module does, which is slower.
    reader = csv.reader(
        io.StringIO(block.data.decode(errors="replace"), newline=""), delimiter=found.delimiter
    )
    starts, before = [], 0
    for row in reader:
        if row:
            starts.append(block.line + before)
        before = reader.line_num
    if len(starts) != records:
        return np.linspace(block.line, block.line + block.lines - 1, records).astype(np.int64)
    return np.array(starts, dtype=np.int64)


def _sample(body: bytes, delimiter: str) -> list[list[str]]:
    """Return the cells of the first records, without one that the head has cut off."""
    text = body.decode(errors="replace")
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    cut_off = len(body) > HEAD_BYTES // 2 and not text.endswith("\n")
    return rows[:-1] if cut_off else rows


def _is_numeric(sample: list[list[str]], column: int) -> bool:
    """Say whether most of what a column holds are numbers."""
    cells = [row[column].strip() for row in sample if len(row) > column]
    told = [cell for cell in cells if cell not in MISSING]
    return bool(told) and sum(bool(_NUMBER.fullmatch(c)) for c in told) > len(told) / 2
