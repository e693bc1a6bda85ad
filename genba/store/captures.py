"""Captured predictions: many rows, so they go to Parquet blobs, and the ledger keeps the batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genba.core.ids import new_id
from genba.core.protocols import Array
from genba.store.home import Store
from genba.store.ledger import Record

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


def read_capture(store: Store, record: Record) -> pa.Table:
    """Return the rows of a capture record.

    Raises:
        Problem: G302 when the blob is missing or was altered.
    """
    return pq.read_table(pa.BufferReader(store.blobs.read(record.body["blob"])))


def find_prediction(store: Store, id: str) -> tuple[Record, dict[str, Any]] | None:
    """Find a prediction by its id.

    Args:
        store: Where to look.
        id: As answered by the server, `<server>-<n>`.

    Returns:
        The capture record and the row, the one that was answered rather than a shadow's; None for
        an id that is unknown or not written yet.
    """
    server, _, number = id.rpartition("-")
    if not number.isascii() or not number.isdigit():
        return None
    found: tuple[Record, dict[str, Any]] | None = None
    for record in _covering(store, server, int(number)):
        table = read_capture(store, record)
        for row in table.filter(pc.equal(table["n"], int(number))).to_pylist():
            if row["role"] != "shadow":
                return record, row
            found = record, row
    return found


def _covering(store: Store, server: str, number: int) -> Iterator[Record]:
    for record in store.ledger.find("capture"):
        body = record.body
        if body["server"] == server and body["rows"] and body["first"] <= number <= body["last"]:
            yield record
