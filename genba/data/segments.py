"""Segments: immutable Parquet blobs of rows that have their split."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from genba.core.values import Segment
from genba.store.blobs import Blobs, BlobWriter

_ROW_GROUP: Final = 65_536
_ZSTD_LEVEL: Final = 1
_BUFFER_ROWS: Final = 16_384

REJECTS_SCHEMA: Final = {
    "row": pl.Int64,
    "file": pl.String,
    "line": pl.Int64,
    "reason": pl.String,
    "detail": pl.String,
    "values": pl.String,
}


def write(blobs: Blobs, frame: pl.DataFrame, *, origin: str, clock: bool) -> Segment:
    """Store a frame as a segment; the same rows give the same bytes.

    Args:
        blobs: Where to.
        frame: The columns of a segment, sorted by entity and time.
        origin: "source" or "live".
        clock: Whether `time` is a time; its range is recorded then.
    """
    buffer = io.BytesIO()
    # Every setting is pinned: the digest of the bytes is the identity of the data.
    frame.write_parquet(
        buffer,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        statistics=True,
        row_group_size=_ROW_GROUP,
    )
    time = frame["time"].to_numpy()
    return Segment(
        digest=blobs.put(buffer.getbuffer()),
        rows=frame.height,
        origin=origin,
        first_time_ms=int(time.min()) if clock else None,
        last_time_ms=int(time.max()) if clock else None,
    )


def read(blobs: Blobs, segment: Segment, columns: list[str]) -> pl.DataFrame:
    """Return columns of a segment, its bytes verified."""
    return pl.read_parquet(io.BytesIO(blobs.read(segment.digest)), columns=columns)


class Rejects:
    """Writes rejected rows to one Parquet blob, a buffer at a time; no rows, no blob.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with Rejects(Blobs(Path(tempfile.mkdtemp()))) as rejects:
        ...     pass
        >>> rejects.digest is None
        True
    """

    def __init__(self, blobs: Blobs) -> None:
        self.digest: str | None = None
        self.rows = 0
        self._blobs = blobs
        self._held: list[pl.DataFrame] = []
        self._held_rows = 0
        self._stack = ExitStack()
        self._blob: BlobWriter | None = None
        self._parquet: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._held_rows:
            self._flush()
        if self._parquet is not None:
            self._parquet.close()
        self._stack.__exit__(kind, error, trace)
        if error is None and self._blob is not None:
            self.digest = self._blob.digest

    def add(self, frame: pl.DataFrame) -> None:
        """Take rejected rows."""
        if not frame.height:
            return
        self._held.append(frame.select(pl.col(n).cast(t) for n, t in REJECTS_SCHEMA.items()))
        self._held_rows += frame.height
        self.rows += frame.height
        if self._held_rows >= _BUFFER_ROWS:
            self._flush()

    def _flush(self) -> None:
        table = pl.concat(self._held).to_arrow()
        self._held, self._held_rows = [], 0
        if self._parquet is None:
            self._blob = self._stack.enter_context(self._blobs.writer())
            self._parquet = pa.parquet.ParquetWriter(
                pa.PythonFile(self._blob, "w"),
                table.schema,
                compression="zstd",
                compression_level=_ZSTD_LEVEL,
            )
        self._parquet.write_table(table)


def read_rejects(blobs: Blobs, digest: str) -> Iterator[pl.DataFrame]:
    """Yield the rejected rows of a version in batches."""
    file = pa.parquet.ParquetFile(blobs.path(digest))
    for batch in file.iter_batches():
        yield pl.DataFrame(batch)
