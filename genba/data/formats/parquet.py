"""Parquet: read row group by row group."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from genba.core.problem import Problem
from genba.data.formats.batch import LINE
from genba.data.formats.layout import Layout, Position, Wanted, require

_BATCH_ROWS: Final = 131_072
_SUFFIX: Final = "Every file of a source must have the same columns."


def layout(path: Path, wanted: Wanted) -> Layout:
    """Return the columns to read, found from the first file of a source."""
    schema = _open(path).schema_arrow
    require(wanted.names, schema.names, path.name)
    rest = [n for n in schema.names if n not in wanted.names] if wanted.rest else []
    numeric = tuple(n for n in rest if _is_numeric(schema.field(n).type))
    return Layout(texts=wanted.texts, numbers=wanted.numbers + numeric)


def read(
    path: Path, layout: Layout, position: Position | None = None
) -> Iterator[tuple[pa.RecordBatch, Position]]:
    """Yield the rows of a file as batches, each with the position (rows read) behind it.

    Columns keep the types the file gives them; `_line` is the row number, counted from 1.

    Raises:
        Problem: G203 when the file is damaged, G204 for a missing column.
    """
    file = _open(path)
    require(layout.names, file.schema_arrow.names, path.name, _SUFFIX)
    skip, done = position.offset if position else 0, 0
    try:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(layout.names)):
            done += batch.num_rows
            if done <= skip:
                continue
            kept = batch.slice(max(0, skip - (done - batch.num_rows)))
            first = done - kept.num_rows + 1
            lines = pa.array(np.arange(first, done + 1, dtype=np.int64))
            yield kept.append_column(LINE, lines), Position(offset=done, line=done + 1)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, f"After row {done}: {error}") from error


def _open(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        # Read ahead, every row group that was read would stay in memory until the last.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> Problem:
    return Problem(
        "G203",
        f"{path.name} is not a Parquet file that can be read.",
        where=str(path),
        why=why.splitlines()[0][:200],
        tries=[f"ls -l {path}", "copy or export the file again"],
    )


def _is_numeric(kind: pa.DataType) -> bool:
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(test(kind) for test in numeric)
