"""Segments of texts: Parquet of bounded size; and their spill.

Parquet is written so that the same rows give the same bytes: every setting is pinned.
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
import pyarrow.compute
import pyarrow.parquet as pq

from genba.core.values import Segment
from genba.store.blobs import Blobs

MOST_BYTES: Final = 16 << 20  # of a segment, before it is compressed
MOST_ROWS: Final = 50_000
_ROW_GROUP: Final = 8_192
_LEVEL: Final = 1  # of zstd
_PREFIX: Final = "spill-"  # as `genba.data.spill` calls its own
_STALE_S: Final = 86_400.0

SCHEMA: Final = pa.schema(
    [
        ("entity", pa.string()),
        ("time", pa.int64()),
        ("label", pa.float64()),
        ("split", pa.string()),
        ("row", pa.int64()),
        ("messages", pa.large_string()),  # JSON, up to the last message of the user
        ("text", pa.large_string()),  # that message
        ("answer", pa.large_string()),
        ("rejected", pa.large_string()),
        ("weight", pa.float64()),
        ("name", pa.string()),
        ("digest", pa.string()),  # of messages, answer and rejected answer, as they were found
    ]
)
COLUMNS: Final = tuple(SCHEMA.names)
#: What a chunk of a view has.
VIEWED: Final = tuple(name for name in COLUMNS if name not in ("split", "digest"))
TEXTS: Final = ("messages", "text", "answer", "rejected", "name")


def write(blobs: Blobs, table: pa.Table, *, origin: str, clock: bool) -> Segment:
    """Store a table of `SCHEMA` as a segment; the same rows give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.cast(SCHEMA).combine_chunks(),
        sink,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=["entity", "split", "messages", "text"],  # prefixes of conversations recur
        write_statistics=False,  # they would repeat whole texts
        store_schema=False,
        row_group_size=_ROW_GROUP,
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


class TextSpill:
    """Texts in the order they were read, on disk until their splits are known.

    Use it as a context manager; what it wrote below `directory` is removed at the end.
    """

    _SCHEMA: Final = pa.schema([SCHEMA.field(name) for name in TEXTS])

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
        self._writer = pa.ipc.new_file(str(self._scratch / "texts.arrow"), self._SCHEMA)
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

    def add(self, table: pa.Table) -> None:
        """Take rows with the columns `TEXTS`."""
        for batch in table.select(list(TEXTS)).cast(self._SCHEMA).to_batches():
            if len(batch):
                self._writer.write_batch(batch)
                self._starts.append(self.rows)
                self.rows += len(batch)

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
        with pa.memory_map(str(self._scratch / "texts.arrow")) as file:
            opened = pa.ipc.open_file(file)
            for number, start in enumerate(self._starts):
                batch = opened.get_batch(number)
                begin, end = np.searchsorted(chosen, [start, start + len(batch)])
                if begin == end:
                    continue
                held.append(
                    pa.Table.from_batches([batch]).take(pa.array(chosen[begin:end] - start))
                )
                if sum(t.nbytes for t in held) >= MOST_BYTES or sum(map(len, held)) >= MOST_ROWS:
                    *whole, rest = _cut(pa.concat_tables(held))
                    yield from whole
                    held = [rest]
            if held:
                yield from _cut(pa.concat_tables(held))


def _cut(table: pa.Table) -> list[pa.Table]:
    """Cut a table where segments end, by the bytes of its rows."""
    size = sum(_bytes(table[name]) for name in TEXTS)
    ends, start, held = [], 0, 0
    for at, bytes_ in enumerate(np.asarray(size).tolist()):
        if at > start and (held + bytes_ > MOST_BYTES or at - start >= MOST_ROWS):
            ends.append((start, at))
            start, held = at, 0
        held += bytes_
    ends.append((start, len(table)))
    return [table.slice(begin, end - begin) for begin, end in ends]


def _bytes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    lengths = pa.compute.fill_null(pa.compute.binary_length(column), 0)
    return np.asarray(lengths.to_numpy(), dtype=np.int64)
