"""Segments of images: Parquet with the files' bytes inside, bounded by bytes; and their spill.

Parquet is written so that the same rows give the same bytes: every setting is pinned. Files of
images do not shrink any further, so their column is not compressed.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from genba.core.values import Segment
from genba.store.blobs import Blobs

MOST_BYTES: Final = 32 << 20
MOST_ROWS: Final = 2_000
_PREFIX: Final = "spill-"  # as `genba.data.spill` calls its own
_STALE_S: Final = 86_400.0

SCHEMA: Final = pa.schema(
    [
        ("entity", pa.string()),
        ("time", pa.int64()),
        ("label", pa.float64()),
        ("split", pa.string()),
        ("row", pa.int64()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("name", pa.string()),
        ("digest", pa.string()),  # sha256 of the file as it was found
        ("look", pa.binary()),  # see `alike`
    ]
)
COLUMNS: Final = tuple(SCHEMA.names)
_COMPRESSION: Final = {name: "NONE" if name in ("image", "look") else "ZSTD" for name in COLUMNS}


def write(blobs: Blobs, table: pa.Table, *, origin: str, clock: bool) -> Segment:
    """Store a table of `SCHEMA` as a segment; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.cast(SCHEMA).combine_chunks(),
        sink,
        compression=_COMPRESSION,
        compression_level={name: 1 for name, how in _COMPRESSION.items() if how == "ZSTD"},
        use_dictionary=["entity", "split"],
        write_statistics=False,  # they would repeat whole images
        store_schema=False,
        row_group_size=max(len(table), 1),
    )
    times = table["time"].to_numpy()
    return Segment(
        digest=blobs.put(sink.getvalue()),
        rows=len(table),
        origin=origin,
        first_time_ms=int(times.min()) if clock else None,
        last_time_ms=int(times.max()) if clock else None,
    )


def read(blobs: Blobs, segment: Segment, columns: list[str]) -> pa.Table:
    """Return columns of a segment, its bytes verified."""
    return pq.read_table(pa.BufferReader(blobs.read(segment.digest)), columns=columns)


def cut(size: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield where segments begin and end, given the bytes of each row.

    Example:
        >>> list(cut(np.array([20, 20, 5]) << 20))
        [(0, 1), (1, 3)]
    """
    start, held = 0, 0
    for at, bytes_ in enumerate(size.tolist()):
        if at > start and (held + bytes_ > MOST_BYTES or at - start >= MOST_ROWS):
            yield start, at
            start, held = at, 0
        held += bytes_
    if start < len(size):
        yield start, len(size)


class ImageSpill:
    """Images in the order they were read, on disk until their splits are known.

    Use it as a context manager; what it wrote below `directory` is removed at the end.
    """

    _SCHEMA: Final = pa.schema(
        [("image", pa.binary()), ("mask", pa.binary()), ("name", pa.string())]
    )

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._scratch: Path | None = None
        self._writer: Any = None
        self._starts: list[int] = []
        self.rows = 0

    def __enter__(self) -> Self:
        """Remove what processes that died left in the directory a day ago or longer."""
        before = time.time() - _STALE_S
        for left in self._directory.glob(f"{_PREFIX}*"):
            if left.stat().st_mtime < before:
                shutil.rmtree(left, ignore_errors=True)
        self._scratch = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._directory))
        self._writer = pa.ipc.new_file(str(self._scratch / "images.arrow"), self._SCHEMA)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def add(self, rows: list[tuple[bytes, bytes | None, str]]) -> None:
        """Take images, masks and names."""
        if not rows:
            return
        columns = [list(column) for column in zip(*rows, strict=True)]
        batch = pa.record_batch(columns, schema=self._SCHEMA)
        self._writer.write_batch(batch)
        self._starts.append(self.rows)
        self.rows += len(rows)

    def done(self) -> None:
        """Say that everything was taken; it can be read from now on."""
        self._writer.close()
        self._writer = None

    def read(self, chosen: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
        """Yield the chosen rows, in their order, as tables that would each make a segment.

        Args:
            chosen: Row numbers, rising.
        """
        assert self._scratch is not None
        held: list[pa.Table] = []
        with pa.memory_map(str(self._scratch / "images.arrow")) as file:
            opened = pa.ipc.open_file(file)
            for number, start in enumerate(self._starts):
                batch = opened.get_batch(number)
                begin, end = np.searchsorted(chosen, [start, start + len(batch)])
                if begin == end:
                    continue
                rows = pa.array(chosen[begin:end] - start)
                held.append(pa.Table.from_batches([batch]).take(rows))
                size = sum(table.nbytes for table in held)
                if size < MOST_BYTES and sum(map(len, held)) < MOST_ROWS:
                    continue
                *whole, rest = _segments(pa.concat_tables(held))
                yield from whole
                held = [rest]
            if held:
                yield from _segments(pa.concat_tables(held))


def _segments(table: pa.Table) -> Iterator[pa.Table]:
    size = np.array(
        [len(i) + len(m or b"") for i, m in zip(*_bytes(table), strict=True)], dtype=np.int64
    )
    for start, stop in cut(size):
        yield table.slice(start, stop - start)


def _bytes(table: pa.Table) -> tuple[list[bytes], list[bytes | None]]:
    return table["image"].to_pylist(), table["mask"].to_pylist()
