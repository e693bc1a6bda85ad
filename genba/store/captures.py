"""Captured predictions: many rows, so they go to Parquet blobs, and the ledger keeps the batch."""

from collections.abc import Collection, Iterator, Mapping, Sequence
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
from genba.store.capture_index import capture_id, captures_of, earlier_captures
from genba.store.home import Store
from genba.store.ledger import Record

OK: Final = "ok"
ERROR: Final = "error"  # the model raised; there are no outputs
NOT_A_NUMBER: Final = "nan"  # an output was not finite
DIGEST: Final = "inputs_sha256"  # column of lines that keep a digest in place of the inputs
TRACES: Final = 1_000  # captures looked through for a trace
TRACE: Final = "trace"  # column of batches in which a request said its W3C trace id

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
_WORDS: Final = ("package", "role", "entity", "status")  # few different ones
_COUNTS: Final = ("n", "received_ms", "time", "latency_us")  # near their neighbours
_GROUP_ROWS: Final = 4_096  # of a row group: the least that is read to find one prediction
_GROUP_BYTES: Final = 4 << 20
_LEVEL: Final = 1  # of zstd; on floats the third level took as long and saved nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class CapturedRows:
    """Predictions of one package; everything has one entry per row.

    Words and times may be Arrow arrays too, and so may features.
    """

    package: str
    n: Array  # int64: number of the prediction within its server
    received_ms: Array  # int64
    role: Sequence[str]
    entity: Sequence[str | None]
    time: Sequence[int | None]
    latency_us: Array  # int64
    status: Sequence[str]
    features: Mapping[str, Any]
    outputs: Mapping[str, Array] = field(default_factory=dict)  # empty where the model raised
    trace: Sequence[str | None] | None = None  # W3C trace ids; None where no request had one


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """What one line answered in one stretch of time."""

    from_ms: int
    to_ms: int
    packages: Mapping[str, Mapping[str, Any]]  # package -> role, n, errors, latencies, ...
    rows: Sequence[CapturedRows] = ()
    inputs: str = "all"  # what is kept of them: all, digest, none
    sample: float = 1.0  # share of the predictions whose rows are kept, by `in_sample`
    dropped: int = 0  # rows that should have been kept, but the disk was too slow


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
        self.nbytes = 0  # written so far

    def write(self, interval: Interval) -> str:
        """Write one interval, durable on return: first the blob, then the record that names it.

        Returns:
            The id of the capture record.

        Raises:
            Problem: G303 when the disk is full, G304 when writing is not allowed.
        """
        table = as_table(interval.rows)
        data = _encoded(table)
        blob = self._store.blobs.put(data)
        ends = pc.min_max(table["n"]).as_py()
        body = {
            "blob": blob,
            "server": self._server,
            "first": ends["min"],
            "last": ends["max"],
            "rows": len(table),
            "from_ms": interval.from_ms,
            "to_ms": interval.to_ms,
            "packages": {name: dict(summary) for name, summary in interval.packages.items()},
            **_unusual(interval, table),
        }
        record = (
            capture_id(self._server, ends["min"], ends["max"]) if len(table) else new_id("capture")
        )
        inputs = [("package", package) for package in interval.packages]
        self._store.ledger.record("capture", record, body, line=self._line, inputs=inputs)
        self.nbytes += len(data)
        return record


def _unusual(interval: Interval, table: pa.Table) -> dict[str, Any]:
    """Return what is said of a capture only where it is not as it is by default."""
    said: dict[str, Any] = {}
    if interval.inputs != "all":
        said["inputs"] = interval.inputs
    if interval.sample < 1:
        said["sample"] = interval.sample
    if interval.dropped:
        said["dropped"] = interval.dropped
    if TRACE in table.column_names:
        said["traced"] = len(table) - table[TRACE].null_count
    return said


def in_sample(n: Array, share: float) -> Array:
    """Return which predictions are in a sample: a mask that only their numbers decide.

    A hash of the number (Fibonacci hashing, Knuth, TAOCP 3, 6.4) spreads the sample evenly, whoever
    asks gets the same one, and a shadow's row is in it whenever the answered one is.

    Args:
        n: Numbers of predictions, int64.
        share: Of all predictions, from 0 to 1.

    Example:
        >>> int(in_sample(np.arange(1_000), 0.25).sum())
        251
    """
    places = n.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)
    chosen: Array = places < share * 2.0**53
    return chosen


def sample_of(record: Record, table: pa.Table) -> pa.Table:
    """Return the rows that stand for all predictions of a capture.

    Of a line that keeps a sample, alarms and errors are always there; those beyond the sample are
    left out, so that a share among what is returned is the share among all.
    """
    share = float(record.body.get("sample", 1.0))
    return table if share >= 1 else table.filter(pa.array(in_sample(table["n"].to_numpy(), share)))


def as_table(rows: Sequence[CapturedRows]) -> pa.Table:
    """Return captured rows as one table in the order of their numbers.

    What a package does not have is null in its rows.
    """
    tables = [_table(part) for part in rows]
    table = pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default")
    numbers = table["n"].to_numpy()
    return table if bool(np.all(numbers[1:] >= numbers[:-1])) else table.sort_by("n")


def _table(rows: CapturedRows) -> pa.Table:
    columns: dict[str, Any] = {
        "n": pa.array(rows.n, pa.int64()),
        "received_ms": pa.array(rows.received_ms, pa.int64()),
        "package": pa.repeat(rows.package, len(rows.n)),
        "role": _typed(rows.role, pa.string()),
        "entity": _typed(rows.entity, pa.string()),
        "time": _typed(rows.time, pa.int64()),
        "latency_us": pa.array(rows.latency_us, pa.int64()),
        "status": _typed(rows.status, pa.string()),
    }
    if rows.trace is not None:
        columns[TRACE] = _typed(rows.trace, pa.string())
    for name, tensor in (*rows.features.items(), *rows.outputs.items()):
        columns.setdefault(name, _column(tensor))
    return pa.table(columns)


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, kind)


def _column(tensor: Any) -> pa.Array:
    """Return one value per row, or one flat list where a row has more than one."""
    if isinstance(tensor, pa.Array):
        return tensor
    values = pa.array(tensor.ravel(), pa.binary() if tensor.dtype == object else None)
    if tensor.ndim == 1:
        return values
    width = len(values) // len(tensor)  # a capture has no empty parts
    return pa.ListArray.from_arrays(np.arange(len(tensor) + 1, dtype=np.int32) * width, values)


def _encoded(table: pa.Table) -> pa.Buffer:
    """Return a table as Parquet; other threads run meanwhile."""
    encodings = {name: "DELTA_BINARY_PACKED" for name in _COUNTS}
    for column in table.schema:
        inner = column.type.value_type if pa.types.is_list(column.type) else column.type
        if pa.types.is_float32(inner) or pa.types.is_float64(inner):
            path = column.name if inner is column.type else f"{column.name}.list.element"
            encodings[path] = "BYTE_STREAM_SPLIT"  # the same bytes of floats are alike
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, min(_GROUP_ROWS, _GROUP_BYTES * len(table) // (table.nbytes + 1))),
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=list(_WORDS),
        column_encoding=encodings,
        write_statistics=SCHEMA.names,
    )
    return sink.getvalue()


def read_capture(
    store: Store,
    record: Record,
    *,
    images: bool = True,
    columns: Collection[str] | None = None,
    but: Collection[str] = (),
) -> pa.Table:
    """Return the rows of a capture record.

    Args:
        store: Where it is.
        record: Of the capture.
        images: Whether columns of bytes, which may be large, are read too.
        columns: The only ones that are wanted; those that the capture has not are left out.
        but: Columns that are not wanted.

    Raises:
        Problem: G302 when the blob is missing or was altered.
    """
    file = _opened(store, record)
    wanted = [
        column.name
        for column in file.schema_arrow
        if (images or not pa.types.is_binary(column.type))
        and (columns is None or column.name in columns)
        and column.name not in but
    ]
    return file.read(columns=wanted)


def _opened(store: Store, record: Record) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(store.blobs.read(record.body["blob"])))


def inputs_kept(body: Mapping[str, Any]) -> str:
    """Say what a capture kept of the inputs, from its record: all, digest or none.

    Example:
        >>> inputs_kept({"rows": 4}), inputs_kept({"rows": 4, "inputs": "digest"})
        ('all', 'digest')
    """
    return str(body.get("inputs", "all"))


def find_prediction(store: Store, id: str) -> tuple[Record, dict[str, Any]] | None:
    """Find a prediction by its id.

    Only the captures that may hold it are opened, and of those one row group is decoded.

    Args:
        store: Where to look.
        id: As answered by the server, `<server>-<n>`.

    Returns:
        The capture record and the row, the one that was answered rather than a shadow's; None for
        an id that is unknown, not written yet, or not kept.
    """
    server, _, text = id.rpartition("-")
    if not text.isascii() or not text.isdigit():
        return None
    number = int(text)
    found: tuple[Record, dict[str, Any]] | None = None
    for record in chain(_written(store, server, number), _written_earlier(store, server, number)):
        for row in _rows(store, record, number):
            if row["role"] != "shadow":
                return record, row
            found = record, row
    return found


def _written(store: Store, server: str, number: int) -> Iterator[Record]:
    for id in captures_of(store.database, server, number):
        record = store.ledger.lookup(id)
        if record is not None and record.kind == "capture":
            yield record


def _written_earlier(store: Store, server: str, number: int) -> Iterator[Record]:
    """Yield the captures of a Genba whose ids did not say what they hold."""
    for id in earlier_captures(store.database):
        record = store.ledger.lookup(id)
        if record is not None and _covers(record.body, server, number):
            yield record


def _covers(body: Mapping[str, Any], server: str, number: int) -> bool:
    return bool(
        body["server"] == server and body["rows"] and body["first"] <= number <= body["last"]
    )


def _rows(store: Store, record: Record, number: int) -> list[dict[str, Any]]:
    """Return the rows of a number, from the row groups that may have it."""
    file = _opened(store, record)
    place = file.schema_arrow.get_field_index("n")
    groups = []
    for group in range(file.num_row_groups):
        bounds = file.metadata.row_group(group).column(place).statistics
        if bounds is None or bounds.min <= number <= bounds.max:
            groups.append(group)
    table = file.read_row_groups(groups)
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["n"], number)).to_pylist()
    return rows


def traced(store: Store, trace: str) -> list[str]:
    """Return the ids of the predictions that were asked for under a W3C trace id, oldest first.

    They are looked for in the newest captures of requests that said one.

    Args:
        store: Where to look.
        trace: 32 hexadecimal digits.
    """
    end, _ = store.ledger.head()
    looked = 0
    while end > 0 and looked < TRACES:
        start = max(0, end - TRACES)
        events = store.ledger.events(after=start, kinds=("capture.created",), limit=TRACES)
        for event in reversed([e for e in events if e.seq <= end and e.body.get("traced")]):
            looked += 1
            table = read_capture(store, record_of(event), columns=("n", "role", TRACE))
            mine = pc.and_(pc.equal(table[TRACE], trace), pc.not_equal(table["role"], "shadow"))
            if numbers := table.filter(mine)["n"].to_pylist():
                return [f"{event.body['server']}-{n}" for n in numbers]
        end = start
    return []


def record_of(event: Event) -> Record:
    """Return the record that a `capture.created` event made."""
    return Record(
        id=event.subject,
        kind="capture",
        line=event.line,
        body=event.body,
        seq=event.seq,
        time_ms=event.time_ms,
    )
