"""Watch what a package is given and what it answers, window by window.

A window is a fixed number of predictions of the stable package. Every input and output whose
calibration histogram is in the package is compared with it by the population stability index
(PSI). A window drifted where its PSI is above the line's threshold *and* above the quantile that
undisturbed windows of the same length showed (`null_q`), so the rate of false alarms per channel
and window is the one stated in the package. Missing values, errors, latency and energy come with
it, and what is known in hindsight (see hindsight.py). A watch that is interrupted goes on at the
start of the window it was in.

Where a line keeps a sample of its predictions, the rows of the sample stand for all of them; alarms
and errors that were kept beyond it are not looked at, since they would count too much. Where the
inputs were not kept, the window says so, and their drift is not known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.values import Event, Manifest, Measure
from genba.learn.drift import counts, psi
from genba.stages import hindsight
from genba.store.captures import ERROR, SCHEMA, inputs_kept, read_capture, record_of, sample_of
from genba.store.home import Store
from genba.targets.cost import bill

#: Smallest PSI that counts as drift where the line does not say.
DEFAULT_LIMIT: Final = 0.2
#: Predictions in a window of a package without a drift reference.
DEFAULT_WINDOW: Final = 500
#: A reference for windows of fewer predictions says nothing about drift and is not used.
FEWEST: Final = 50
#: More missing values than at calibration by this share of a window are a finding.
MISSING_MARGIN: Final = 0.05
#: Capture batches read in one call; the rest is read in the next.
MAX_BATCHES: Final = 1_000

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(kw_only=True, slots=True)
class OpenWindow:
    """A window that is being filled, and where it started.

    `seq` and `row` name its first prediction: a capture event and a row of the package in it.
    Whoever has lost the counts starts again from there.
    """

    package: str
    seq: int
    row: int
    number: int
    rows: int = 0
    errors: int = 0
    damaged: int = 0  # capture batches that could not be read
    unkept: int = 0  # rows whose inputs were not kept
    sample: float = 1.0  # smallest share of the predictions that the rows stand for
    from_ms: int = 0
    to_ms: int = 0
    cpu_seconds: float = 0.0
    counts: dict[str, Counts] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    latency_us: list[Counts] = field(default_factory=list)
    at: tuple[int, int] | None = None  # next capture event and row to read
    before: list[pa.Table] | None = None  # rows of the window before whose truth is still to come
    kept: list[pa.Table] = field(default_factory=list)  # for hindsight, of this window

    def position(self) -> tuple[int, int]:
        """Return the capture event and the row to read next."""
        return self.at or (self.seq, self.row)


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchReport:
    """What was completed, and what is still open."""

    windows: tuple[Mapping[str, Any], ...]
    rows: int
    open: OpenWindow


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """One column and what it looked like at calibration."""

    name: str
    kind: str  # input, output
    tensor: str  # captured column that holds it
    index: int  # in a row of that tensor, flattened; negative from the end
    edges: Floats
    p: Floats
    null_q: float
    missing: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What the package says about watching it."""

    window: int
    channels: tuple[Channel, ...]
    kept: int  # captured rows that are kept for hindsight
    latency_ms_p99: float
    error_rate: float
    limit: float


def start(package: str, seq: int) -> OpenWindow:
    """Return the first window of a package, from the event that made it stable."""
    return OpenWindow(package=package, seq=seq, row=0, number=0)


def watch(store: Store, line: Line, manifest: Manifest, opened: OpenWindow) -> WatchReport:
    """Read the captures written since, and append a `watch` event per completed window.

    Args:
        store: Where captures and ledger are.
        line: Whose thresholds hold.
        manifest: Of the package being watched; `settings["drift"]` is the reference.
        opened: The window to go on with; it is filled in place.

    Returns:
        The completed windows (the bodies of their events) and the open one.
    """
    reference = reference_of(line, manifest)
    if reference.kept and opened.before is None:
        before = _before(store, opened, manifest, reference.kept)
        opened.before = hindsight.pending(before, manifest)
    windows: list[Mapping[str, Any]] = []
    rows = 0
    for event in _captures(store, line.name, opened.position()[0]):
        table = _read(store, event, opened, _columns(reference))
        first = opened.position()[1] if event.seq == opened.position()[0] else 0
        for part, behind in _parts(table, opened, reference.window, first):
            rows += part.num_rows
            _fill(opened, part, event, reference)
            if reference.kept:
                opened.kept = hindsight.kept(opened.kept, part, manifest, reference.kept)
            opened.at = (event.seq, behind)
            if opened.rows == reference.window:
                windows.append(_close(store, line, manifest, opened, reference))
                opened = _next(opened, manifest)
        opened.at = (event.seq + 1, 0)
    return WatchReport(windows=tuple(windows), rows=rows, open=opened)


def reference_of(line: Line, manifest: Manifest) -> Reference:
    """Read the drift reference of a package; one without it is watched for quality only."""
    drift: Mapping[str, Any] = manifest.settings.get("drift") or {}
    window = int(drift.get("window") or 0)
    usable = window >= FEWEST
    places = _places(manifest)
    channels = [
        Channel(
            name=name,
            kind=str(column.get("kind") or places[name][2]),
            tensor=str(column.get("tensor") or places[name][0]),
            index=int(column["index"] if "index" in column else places[name][1]),
            edges=np.asarray(column["edges"], dtype=np.float64),
            p=np.asarray(column["p"], dtype=np.float64),
            null_q=float(column.get("null_q") or 0.0),
            missing=float(column.get("missing") or 0.0),
        )
        for name, column in (drift.get("columns") or {}).items()
    ]
    return Reference(
        window=window if usable else DEFAULT_WINDOW,
        channels=tuple(channels) if usable else (),
        kept=hindsight.rows_kept(manifest),
        latency_ms_p99=line.rollout.roll_back_on.latency_ms_p99,
        error_rate=line.rollout.roll_back_on.error_rate,
        limit=line.retrain.when.get("drift", DEFAULT_LIMIT),
    )


def _places(manifest: Manifest) -> Mapping[str, tuple[str, int, str]]:
    """Return where a package from before references said so has its channels.

    Sensors are the newest row of its one window; everything else is an output of that name.
    """
    sensors = [str(s) for s in manifest.settings.get("sensors") or ()]
    features = [t.name for t in manifest.signature.inputs if t.role == "feature"]
    drift = manifest.settings.get("drift") or {}
    found = {str(name): (str(name), 0, "output") for name in drift.get("columns") or {}}
    for place, name in enumerate(sensors):
        if features:
            found[name] = (features[0], place - len(sensors), "input")
    return found


def _before(store: Store, opened: OpenWindow, manifest: Manifest, most: int) -> list[pa.Table]:
    """Read the rows of the window before again, as it was before the watch was interrupted."""
    kept: list[pa.Table] = []
    closed = store.ledger.events(line=manifest.line, kinds=("watch",))
    before = [
        e.body["start"]
        for e in closed
        if e.subject == opened.package and e.body.get("window") == opened.number - 1
    ]
    if not before:
        return kept
    seq, row = int(before[-1]["seq"]), int(before[-1]["row"])
    while seq <= opened.seq and (events := _captures(store, manifest.line, seq)):
        for event in events:
            if event.seq > opened.seq or (event.seq == opened.seq and not opened.row):
                return kept
            table = _read(store, event, OpenWindow(package=opened.package, seq=0, row=0, number=0))
            last = opened.row if event.seq == opened.seq else table.num_rows
            rows = table.slice(row, last - row)
            if rows.num_rows:
                kept = hindsight.kept(kept, rows, manifest, most)
            seq, row = event.seq + 1, 0
    return kept


def _captures(store: Store, line: str, seq: int) -> list[Event]:
    return store.ledger.events(
        after=seq - 1, line=line, kinds=("capture.created",), limit=MAX_BATCHES
    )


def _columns(reference: Reference) -> tuple[str, ...] | None:
    """Return the columns that a watch looks at; None for all of them."""
    if reference.kept:
        return None
    return (*SCHEMA.names, *(channel.tensor for channel in reference.channels))


def _read(
    store: Store, event: Event, opened: OpenWindow, columns: tuple[str, ...] | None = None
) -> pa.Table:
    """Return the rows of the package in a capture; a damaged capture is counted, not fatal."""
    if opened.package not in (event.body.get("packages") or {}):
        return pa.table({})
    record = record_of(event)
    try:
        table = sample_of(record, read_capture(store, record, images=False, columns=columns))
    except Problem:
        opened.damaged += 1
        return pa.table({})
    return table.filter(pc.equal(table["package"], opened.package))


def _parts(
    table: pa.Table, opened: OpenWindow, window: int, first: int
) -> Iterator[tuple[pa.Table, int]]:
    """Cut rows where windows end; yields (rows, index of the row behind them)."""
    room = window - opened.rows
    while first < table.num_rows:
        part = table.slice(first, room)
        first += part.num_rows
        yield part, first
        room = window


def _fill(opened: OpenWindow, part: pa.Table, event: Event, reference: Reference) -> None:
    received = part["received_ms"].to_numpy()
    opened.from_ms = int(min(opened.from_ms or received.min(), received.min()))
    opened.to_ms = int(max(opened.to_ms, received.max()))
    opened.rows += part.num_rows
    summary = event.body["packages"][opened.package]
    # Not every prediction that was paid for has its row here: some are not kept, some were dropped.
    predictions = max(int(summary.get("n") or 0), part.num_rows)
    opened.cpu_seconds += float(summary.get("cpu_seconds") or 0.0) * part.num_rows / predictions
    opened.sample = min(opened.sample, float(event.body.get("sample", 1.0)))
    opened.unkept += part.num_rows if inputs_kept(event.body) != "all" else 0
    opened.latency_us.append(part["latency_us"].to_numpy().astype(np.int64))
    answered = part.filter(pc.not_equal(part["status"], ERROR))
    opened.errors += part.num_rows - answered.num_rows
    if answered.num_rows:
        _count(opened, answered, reference)


def _count(opened: OpenWindow, rows: pa.Table, reference: Reference) -> None:
    matrices: dict[str, Floats] = {}
    for channel in reference.channels:
        if channel.tensor not in matrices:
            known = channel.tensor in rows.column_names
            matrices[channel.tensor] = _matrix(rows[channel.tensor]) if known else np.empty((0, 0))
        matrix = matrices[channel.tensor]
        values = matrix[:, channel.index] if matrix.size else np.empty(0)
        found = counts(channel.edges, values)
        opened.counts[channel.name] = opened.counts.get(channel.name, 0) + found
        lost = len(values) - int(found.sum())
        opened.missing[channel.name] = opened.missing.get(channel.name, 0) + lost


def _matrix(column: pa.ChunkedArray) -> Floats:
    values = column.combine_chunks()
    flat = values.flatten() if pa.types.is_list(values.type) else values
    numbers: Floats = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers.reshape(len(values), -1)


def _close(
    store: Store, line: Line, manifest: Manifest, opened: OpenWindow, reference: Reference
) -> Mapping[str, Any]:
    """Append what the window showed; parameters are set first, as what is recorded is done."""
    seq, row = opened.position()
    key = f"{line.name}/{opened.package}/{opened.seq}/{opened.row}"
    known: Mapping[str, Measure] = {}
    if reference.kept:
        task = hindsight.task_of(manifest)
        known = hindsight.measured(task, manifest, [*(opened.before or ()), *opened.kept])
        hindsight.retune(store, task, manifest, opened.package, known, key)
    body = {
        "package": opened.package,
        "window": opened.number,
        "rows": opened.rows,
        "from_ms": opened.from_ms,
        "to_ms": opened.to_ms,
        "findings": [
            *_drift(opened, reference),
            *_quality(opened, reference),
            *hindsight.findings(known, line),
        ],
        "start": {"seq": opened.seq, "row": opened.row},
        "cursor": {"seq": seq, "row": row},
    }
    store.ledger.append("watch", body, line=line.name, subject=opened.package, key=f"watch/{key}")
    return body


def _drift(opened: OpenWindow, reference: Reference) -> Iterator[dict[str, Any]]:
    for channel in reference.channels:
        seen = opened.counts.get(channel.name)
        if seen is None or not seen.sum():
            continue
        statistic = psi(channel.p, seen)
        yield _finding(
            channel.name,
            channel.kind,
            statistic,
            reference.limit,
            null_q=channel.null_q,
            exceeded=statistic > max(reference.limit, channel.null_q),
        )


def _quality(opened: OpenWindow, reference: Reference) -> Iterator[dict[str, Any]]:
    answered = max(1, opened.rows - opened.errors)
    for channel in reference.channels:
        share = opened.missing.get(channel.name, 0) / answered
        if share > 0.0:
            yield _finding(channel.name, "missing", share, channel.missing + MISSING_MARGIN)
    latency_ms = float(np.quantile(np.concatenate(opened.latency_us), 0.99)) / 1e3
    yield _finding("latency_ms_p99", "latency", latency_ms, reference.latency_ms_p99)
    yield _finding("error_rate", "errors", opened.errors / opened.rows, reference.error_rate)
    joules = bill(opened.cpu_seconds, opened.cpu_seconds).joules.value
    yield _finding("energy_mj", "energy", joules * 1e3 / opened.rows, None)
    if opened.sample < 1:
        yield _finding("sample", "kept", opened.sample, None)
    if opened.unkept:
        yield _finding("inputs_not_kept", "kept", opened.unkept / opened.rows, None)
    if opened.damaged:
        yield _finding("damaged_captures", "damaged", float(opened.damaged), 0.0)


def _finding(
    name: str,
    kind: str,
    statistic: float,
    limit: float | None,
    *,
    null_q: float | None = None,
    exceeded: bool | None = None,
) -> dict[str, Any]:
    drifted = exceeded if exceeded is not None else limit is not None and statistic > limit
    return {
        "name": name,
        "kind": kind,
        "statistic": round(statistic, 6),
        "limit": limit,
        "null_q": null_q,
        "drifted": drifted,
    }


def _next(opened: OpenWindow, manifest: Manifest) -> OpenWindow:
    seq, row = opened.position()
    return OpenWindow(
        package=opened.package,
        seq=seq,
        row=row,
        number=opened.number + 1,
        before=hindsight.pending(opened.kept, manifest) if opened.before is not None else None,
    )
