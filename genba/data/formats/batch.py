"""What a reader hands over: Arrow batches with the wanted columns and three of its own.

`_line` is the line (or record) of the file a row came from, `_reason` says why a row could not be
read (null for a good row) in the same few words for every such row, and `_detail` adds what is
particular to this one. A source that is not a file need not have the three.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl
import pyarrow as pa

from genba.data.formats.layout import Layout

LINE: Final = "_line"
REASON: Final = "_reason"
DETAIL: Final = "_detail"
OWN: Final = (LINE, REASON, DETAIL)

#: Texts that say "no value" in the exports of common historians and spreadsheets.
MISSING: Final = ("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "null", "None", "#N/A", "-")


def schema(layout: Layout) -> pa.Schema:
    """Return the schema of a batch."""
    fields = [(n, pa.string()) for n in layout.texts] + [(n, pa.float64()) for n in layout.numbers]
    return pa.schema([*fields, (LINE, pa.int64()), (REASON, pa.string()), (DETAIL, pa.string())])


def to_numbers(
    frame: pl.DataFrame, names: Sequence[str], *, decimal_comma: bool = False
) -> pl.DataFrame:
    """Turn text columns into numbers; a row with other text gets a reason instead.

    Texts that mean "no value" become missing, `true` and `false` become 1 and 0.
    """
    texts = [name for name in names if frame.schema[name] == pl.String]
    if not texts:
        return frame
    numbers, reasons, details = [], [pl.col(REASON)], []
    for name in texts:
        text = pl.col(name).str.strip_chars()
        plain = text.str.replace(",", ".", literal=True) if decimal_comma else text
        number = (
            pl.when(text.is_in(MISSING))
            .then(None)
            .when(text.str.to_lowercase() == "true")
            .then(1.0)
            .when(text.str.to_lowercase() == "false")
            .then(0.0)
            .otherwise(plain.cast(pl.Float64, strict=False))
        )
        bad = number.is_null() & text.is_not_null() & ~text.is_in(MISSING)
        reasons.append(pl.when(bad).then(pl.lit(not_a_number(name))))
        details.append(pl.when(pl.col(REASON).is_null() & bad).then(text.str.slice(0, 80)))
        numbers.append(number.alias(name))
    # Flat, not one `when` inside the other: with each column that would double in size.
    reason, detail = pl.coalesce(reasons), pl.coalesce([*details, pl.col(DETAIL)])
    return frame.with_columns(*numbers, reason.alias(REASON), detail.alias(DETAIL))


def not_a_number(name: str) -> str:
    """Return the reason of a row whose value is some other text."""
    return f"{name} is not a number"


def as_batch(frame: pl.DataFrame, layout: Layout) -> pa.RecordBatch:
    """Return a frame as one Arrow batch of the layout's schema."""
    columns = schema(layout)
    table = frame.select(columns.names).to_arrow().cast(columns)
    return one_batch(table)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """Return a table as one batch, also when it has no rows."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
