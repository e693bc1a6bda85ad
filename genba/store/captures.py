"""Captured predictions: many rows, so they go to Parquet blobs, and the ledger keeps the batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genba.core.ids import new_id
from genba.core.protocols import Array
from genba.core.values import Event
from genba.store.home import Store
from genba.store.ledger import Record

_CREATED: Final = ("capture.created",)
_NEIGHBOURS: Final = 64  # events on either side of the expected place
OK: Final = "ok"
ERROR: Final = "error"  # the model raised; there are no outputs
NOT_A_NUMBER: Final = "nan"  # an output was not finite

#: Columns of every capture; those of inputs and outputs follow.
SCHEMA: Final = pa.schema(
    [
        ("n", pa.int64()),
        ("received_ms", pa.int64()),
        ("package", pa.string()),
        ("role", pa.string()),
        ("entity", pa.string()),
        ("time", pa.int64()),
        ("latency_us", pa.int64()),
        ("status", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturedRows:
    """Predictions of one package; everything has one entry per row."""

    package: str
    n: Array  # int64: number of the prediction within its server
    received_ms: Array  # int64
    role: Sequence[str]
    entity: Sequence[str | None]
    time: Sequence[int | None]
    latency_us: Array  # int64
    status: Sequence[str]
    features: Mapping[str, Array]
    outputs: Mapping[str, Array] = field(default_factory=dict)  # empty where the model raised


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """What one line answered in one stretch of time."""

    from_ms: int
    to_ms: int
    packages: Mapping[str, Mapping[str, Any]]  # package -> role, n, errors, latencies, ...
    rows: Sequence[CapturedRows] = ()


class CaptureWriter:
    """Writes the captures of one line of one server.

    Args:
        store: Where to.
        line: Name of the line.
        server: Id of the server; a prediction's id is `<server>-<n>`.
    """

    def __init__(self, store: Store, line: str, server: str) -> None:
        self._store = store
        self._line = line
        self._server = server

    def write(self, interval: Interval) -> str:
        """Write one interval, durable on return: first the blob, then the record that names it.

        Returns:
            The id of the capture record.

        Raises:
            Problem: G303 when the disk is full, G304 when writing is not allowed.
        """
        table = as_table(interval.rows)
        sink = pa.BufferOutputStream()
        pq.write_table(
            table, sink, compression="zstd", use_dictionary=["package", "role", "status"]
        )
        blob = self._store.blobs.put(sink.getvalue())
        numbers = table["n"]
        body = {
            "blob": blob,
            "server": self._server,
            "first": pc.min(numbers).as_py() if len(numbers) else None,
            "last": pc.max(numbers).as_py() if len(numbers) else None,
            "rows": len(numbers),
            "from_ms": interval.from_ms,
            "to_ms": interval.to_ms,
            "packages": {name: dict(summary) for name, summary in interval.packages.items()},
        }
        record = new_id("capture")
        inputs = [("package", package) for package in interval.packages]
        self._store.ledger.record("capture", record, body, line=self._line, inputs=inputs)
        return record


def as_table(rows: Sequence[CapturedRows]) -> pa.Table:
    """Return captured rows as one table in the order of their numbers.

    What a package does not have is null in its rows.
    """
    tables = [_table(part) for part in rows]
    table = pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default")
    return table.sort_by("n")


def _table(rows: CapturedRows) -> pa.Table:
    columns: dict[str, Any] = {
        "n": pa.array(rows.n, pa.int64()),
        "received_ms": pa.array(rows.received_ms, pa.int64()),
        "package": pa.repeat(rows.package, len(rows.n)),
        "role": pa.array(rows.role, pa.string()),
        "entity": pa.array(rows.entity, pa.string()),
        "time": pa.array(rows.time, pa.int64()),
        "latency_us": pa.array(rows.latency_us, pa.int64()),
        "status": pa.array(rows.status, pa.string()),
    }
    for name, tensor in (*rows.features.items(), *rows.outputs.items()):
        columns.setdefault(name, _column(tensor))
    return pa.table(columns)


def _column(tensor: Array) -> pa.Array:
    """Return one value per row, or one flat list where a row has more than one."""
    values = pa.array(tensor.ravel(), pa.binary() if tensor.dtype == object else None)
    if tensor.ndim == 1:
        return values
    width = len(values) // len(tensor)  # a capture has no empty parts
    return pa.ListArray.from_arrays(np.arange(len(tensor) + 1, dtype=np.int32) * width, values)


def read_capture(store: Store, record: Record, *, images: bool = True) -> pa.Table:
    """Return the rows of a capture record.

    Args:
        store: Where it is.
        record: Of the capture.
        images: Whether columns of bytes, which may be large, are read too.

    Raises:
        Problem: G302 when the blob is missing or was altered.
    """
    file = pq.ParquetFile(pa.BufferReader(store.blobs.read(record.body["blob"])))
    if images:
        return file.read()
    return file.read(columns=[c.name for c in file.schema_arrow if not _is_bytes(c.type)])


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind))


def find_prediction(store: Store, id: str) -> tuple[Record, dict[str, Any]] | None:
    """Find a prediction by its id.

    The numbers of a server grow with time, so the place is looked up by halving; only what is not
    found there is looked for everywhere, newest first.

    Args:
        store: Where to look.
        id: As answered by the server, `<server>-<n>`.

    Returns:
        The capture record and the row, the one that was answered rather than a shadow's; None for
        an id that is unknown or not written yet.
    """
    server, _, text = id.rpartition("-")
    if not text.isascii() or not text.isdigit():
        return None
    number = int(text)
    found: tuple[Record, dict[str, Any]] | None = None
    seen: set[str] = set()
    for record in chain(_near(store, server, number), _everywhere(store)):
        if record.id in seen or not _covers(record, server, number):
            continue
        seen.add(record.id)
        table = read_capture(store, record)
        for row in table.filter(pc.equal(table["n"], number)).to_pylist():
            if row["role"] != "shadow":
                return record, row
            found = record, row
    return found


def _covers(record: Record, server: str, number: int) -> bool:
    body = record.body
    return bool(
        body["server"] == server and body["rows"] and body["first"] <= number <= body["last"]
    )


def _near(store: Store, server: str, number: int) -> Iterator[Record]:
    """Yield the captures around the place where a number should be.

    Ids of servers sort by time too. Where several lines or servers write at once the order is only
    nearly right, hence the neighbourhood.
    """
    low, high = 0, store.ledger.head()[0]
    while high - low > _NEIGHBOURS:
        middle = (low + high) // 2
        events = store.ledger.events(after=middle, kinds=_CREATED, limit=1)
        if events and _is_before(events[0], server, number):
            low = events[0].seq
        else:
            high = middle
    for event in store.ledger.events(
        after=max(0, low - _NEIGHBOURS), kinds=_CREATED, limit=3 * _NEIGHBOURS
    ):
        yield Record(
            id=event.subject,
            kind="capture",
            line=event.line,
            body=event.body,
            seq=event.seq,
            time_ms=event.time_ms,
        )


def _is_before(event: Event, server: str, number: int) -> bool:
    last = event.body["last"]
    return bool((event.body["server"], -1 if last is None else last) < (server, number))


def _everywhere(store: Store) -> Iterator[Record]:
    yield from store.ledger.find("capture")
