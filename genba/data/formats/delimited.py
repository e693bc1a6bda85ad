"""CSV and its relatives: delimiter, decimal sign, header and numeric columns are found out.

A file without a header line, as run-to-failure sets often are, has the columns column_1, column_2
and so on. Where no delimiter is used, cells are told apart by runs of blanks.
"""

import csv
import io
import itertools
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
_BLANKS: Final = " "  # stands for any run of blanks and tabs
_UNNAMED: Final = "column_{}"
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,\d+")
_NUMBER: Final = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")
#: A cell that is data, not a name: a number, nothing, or something that begins like a date.
_DATE: Final = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?")
_RAGGED: Final = "wrong number of fields"
_LINES: Final = 50  # of which nearly all must have as many cells as the first, ...
_EVEN: Final = 0.9  # ... or the blanks in them are part of a cell
_TYPED_ROWS: Final = 20_000  # rows that decide the type of a column in `look`


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one file is written."""

    delimiter: str
    decimal: str
    header: tuple[str, ...]  # "" for a column that cannot be read by name
    start: int  # offset of the first record
    named: bool = True  # whether the file has a header line

    @property
    def line(self) -> int:
        """Number of the line on which the first record begins."""
        return 2 if self.named else 1

    @property
    def why(self) -> str:
        """Say where the names come from, if not from the file."""
        return "" if self.named else "The file has no header line, so columns are numbered."


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
        >>> dialect(b"1 1 0.5  \n1 2 0.4  \n", "units.txt", ()).header
        ('column_1', 'column_2', 'column_3')
    """
    check_text(head, name)
    bom = len(BOM_8) if head.startswith(BOM_8) else 0
    line = head[bom:].split(b"\n", 1)[0]
    check_encoding(line, name, 1)
    delimiter, first = _delimiter(head[bom:], line.decode().rstrip("\r"), wanted)
    named = not _is_data(first, wanted)
    start = min(bom + len(line) + 1, len(head)) if named else bom
    sample = _sample(head[start:], delimiter)
    comma = delimiter != "," and any(
        _DECIMAL_COMMA.fullmatch(cell) for row in sample for cell in row
    )
    header = first if named else _numbered(sample, len(first))
    twice = [column for column, count in Counter(header).items() if count > 1 and column]
    if twice:
        raise Problem(
            "G205",
            f"{name} has more than one column {twice[0]!r}.",
            where=f"{name}:1",
            why="It would not be known which of them is meant.",
            tries=[f"give each column of {name} its own name", f"head -1 {name}"],
        )
    return Dialect(
        delimiter=delimiter,
        decimal="," if comma else ".",
        header=header,
        start=start,
        named=named,
    )


def _delimiter(body: bytes, text: str, wanted: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the delimiter and the cells of the first line."""
    firsts = {
        d: tuple(c.strip() for c in next(csv.reader([text], delimiter=d))) for d in _DELIMITERS
    }
    known = {d: (len(set(wanted) & set(h)), len(h)) for d, h in firsts.items()}
    best = max(_DELIMITERS, key=lambda d: known[d])
    cells = tuple(text.split())
    halves = best == "," and all(_NUMBER.fullmatch(c) for c in cells)  # decimals with a comma
    if len(cells) > 1 and (len(firsts[best]) == 1 or halves):
        lines = body.decode(errors="replace").splitlines()[: _LINES + 1]
        counts = [len(line.split()) for line in lines[:_LINES] if line.strip()]
        if counts.count(len(cells)) >= _EVEN * len(counts):
            return _BLANKS, cells
    return best, firsts[best]


def _is_data(first: tuple[str, ...], wanted: Sequence[str]) -> bool:
    """Say whether the first line is a record already.

    Numbers from 0 in sequence are a header all the same: that is how tables are written whose
    columns never had names.

    Example:
        >>> _is_data(("1", "1", "-0.0007"), ()), _is_data(("0", "1", "2"), ())
        (True, False)
    """
    if set(first) & set(wanted):
        return False
    sequence = tuple(str(i) for i in range(len(first)))
    told = [cell for cell in first if cell not in MISSING]
    data = all(_NUMBER.fullmatch(c) or _DATE.fullmatch(c) for c in told)
    return bool(told) and data and (len(first) == 1 or first != sequence)


def _numbered(sample: list[list[str]], cells: int) -> tuple[str, ...]:
    """Return names for the columns; one that never holds anything ends a line, and gets none."""
    used = [any(len(row) > i and row[i].strip() for row in sample) for i in range(cells)]
    return tuple(_UNNAMED.format(i + 1) if used[i] else "" for i in range(cells))


def layout(head: bytes, name: str, wanted: Wanted) -> Layout:
    """Return the columns to read, found from the first file of a source."""
    found = dialect(head, name, wanted.names)
    require(wanted.names, found.header, name, found.why)
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
    why = f"Every file of a source must have the same columns. {found.why}".rstrip()
    require(layout.names, found.header, name, why)
    start = position or Position(offset=found.start, line=found.line)
    for block in blocks(file, name, start=start.offset, line=start.line, quoted=True):
        behind = Position(offset=block.end, line=block.line + block.lines)
        yield _parse(block._replace(data=_single(block.data, found)), name, found, layout), behind


def look(file: BinaryIO, name: str, rows: int) -> pl.DataFrame:
    """Return the first rows of a file with every column it has, types found out.

    Raises:
        Problem: G202, G203 or G205 as `dialect`.
    """
    head = file.read(HEAD_BYTES)
    found = dialect(head, name, ())
    file.seek(found.start)
    if found.delimiter == _BLANKS:
        text: Any = io.BytesIO(_single(b"".join(itertools.islice(file, rows)), found))
    else:
        text = file
    frame = pl.read_csv(
        text,
        separator=found.delimiter,
        has_header=False,
        new_columns=[c or f"_empty{i}" for i, c in enumerate(found.header)],
        decimal_comma=found.decimal == ",",
        null_values=list(MISSING),
        infer_schema_length=_TYPED_ROWS,
        n_rows=rows,
        ignore_errors=True,
        truncate_ragged_lines=True,
    )
    return frame.select(c for c in frame.columns if not c.startswith("_empty"))


def _single(data: bytes, found: Dialect) -> bytes:
    """Put one blank between the cells of every line where runs of blanks separate them."""
    if found.delimiter != _BLANKS:
        return data
    return b"\n".join(b" ".join(line.split()) for line in data.split(b"\n"))


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
    if delimiter == _BLANKS:
        rows = [line.split() for line in text.splitlines()]
    else:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    cut_off = len(body) > HEAD_BYTES // 2 and not text.endswith("\n")
    return rows[:-1] if cut_off else rows


def _is_numeric(sample: list[list[str]], column: int) -> bool:
    """Say whether most of what a column holds are numbers."""
    cells = [row[column].strip() for row in sample if len(row) > column]
    told = [cell for cell in cells if cell not in MISSING]
    return bool(told) and sum(bool(_NUMBER.fullmatch(c)) for c in told) > len(told) / 2
