"""`genba trace`: from a prediction, package or model back to the rows, code, machine and joules."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from genba.core.codec import encode
from genba.core.digest import digest_bytes
from genba.core.problem import Problem
from genba.core.values import Bill, Event
from genba.edge.texts import BYTES, as_text, messages_of, question_of
from genba.store.captures import DIGEST, TRACE, TRACES, find_prediction, inputs_kept, traced
from genba.store.feedback import FeedbackRow
from genba.store.home import Store
from genba.store.ledger import Record
from genba.store.lineage import ancestors
from genba.targets.cost import bill
from genba.ui.cli.answer import Answer
from genba.ui.cli.figures import short
from genba.ui.cli.lookup import LAST, find_record, newest_prediction, open_home
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.trace_report import blocks, next_commands
from genba.ui.cli.trace_rested import rested
from genba.ui.cli.trace_taught import taught
from genba.ui.cli.trace_why import why

_KINDS: Final = ("package", "model", "dataset", "run")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_WAIT_S: Final = 3.0  # a capture is written at least every second


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A piece of the training data and the rows it holds."""

    digest: str
    rows: int
    origin: str
    first_row: int | None
    last_row: int | None


def trace(
    thing: str,
    /,
    *,
    explain: bool = False,
    save_map: Path | None = None,
    options: Options = DEFAULT,
) -> Answer:
    """Walk from a prediction back to the rows that made it.

    Args:
        thing: Id of a prediction, package, model, dataset or run; "last" for the newest
            prediction; or a W3C trace id, for the first prediction that was asked for under it.
        explain: Also say what drove the prediction, and which known cases look like it.
        save_map: Write the heat map of an explained image to this PNG file.
        options: Common options.
    """
    with open_home(options) as store:
        thing = newest_prediction(store) if thing == LAST else _of_trace(store, thing)
        prediction = _prediction(store, thing)
        if prediction:
            capture, row = prediction
            start = _known(store, "package", str(row["package"]))
        else:
            start = find_record(store, _KINDS, thing, "prediction, package, model, dataset or run")
        found = _walk(store, start)
        if prediction:
            found = {**_prediction_facts(store, thing, *prediction), **found}
            if texts := _asked(found):
                found["taught"] = taught(store, found["datasets"], texts)
                values = found["prediction"]["values"]
                found["rested_on"] = rested(store, found["package"], values)
            if explain or save_map:
                found["explanation"] = why(store, prediction[1], save_map)
    return Answer(
        data={"thing": thing, **found},
        blocks=blocks(thing, found),
        next=next_commands(found),
    )


def _of_trace(store: Store, thing: str) -> str:
    """Return the first prediction of a W3C trace; anything else is what it is.

    Raises:
        Problem: G760 when no prediction of the trace is found.
    """
    if not _TRACE_ID.fullmatch(thing):
        return thing
    found = traced(store, thing)
    if found:
        return found[0]
    raise Problem(
        "G760",
        f"No prediction was asked for under the trace {thing}.",
        where=str(store.path),
        why=f"The newest {TRACES} captures of requests with a traceparent were looked through.",
        tries=["genba trace last", "genba explain G760"],
    )


def _prediction(store: Store, thing: str) -> tuple[Record, dict[str, Any]] | None:
    """Find a prediction; one that was answered a moment ago may not be written yet."""
    until = time.monotonic() + _WAIT_S
    while True:
        found = find_prediction(store, thing)
        if found or not _looks_fresh(store, thing) or time.monotonic() > until:
            return found
        time.sleep(0.2)


def _looks_fresh(store: Store, thing: str) -> bool:
    server, _, digits = thing.rpartition("-")
    return server.startswith("server-") and digits.isdigit() and not store.ledger.lookup(thing)


def _known(store: Store, kind: str, id_: str) -> Record:
    record = store.ledger.lookup(id_)
    if record and record.kind == kind:
        return record
    raise Problem(
        "G109",
        f"The {kind} {short(id_)} is not in this home.",
        where=str(store.path),
        tries=["genba doctor --verify", "genba models"],
    )


def _prediction_facts(
    store: Store, thing: str, capture: Record, row: Mapping[str, Any]
) -> dict[str, Any]:
    package = capture.body["packages"].get(row["package"], {})
    share = float(package.get("cpu_seconds") or 0.0) / max(int(package.get("n") or 1), 1)
    said: list[FeedbackRow] = store.feedback.by_prediction(thing)
    names = ("n", "received_ms", "package", "role", "entity", "time", "latency_us", "status", TRACE)
    digest: bytes | None = row.get(DIGEST)
    texts = _texts(store, str(row["package"]))
    return {
        "prediction": {
            "id": thing,
            "line": capture.line,
            **{name: row.get(name) for name in names},
            "values": {
                k: as_text(v) if k in texts else _plain(v)
                for k, v in row.items()
                if k not in (*names, DIGEST) and v is not None
            },
            "inputs": inputs_kept(capture.body),
            DIGEST: digest.hex() if digest else None,
            "capture": capture.id,
            "blob": capture.body["blob"],
            "bill": encode(bill(float(row["latency_us"]) / 1e6, share)),
        },
        "feedback": [encode(said_row) for said_row in said],
    }


def _asked(found: Mapping[str, Any]) -> str:
    """Return the question behind a prediction; "" where packages are not asked in words."""
    signature = (found.get("package") or {}).get("signature") or {}
    text = next((t["name"] for t in signature.get("inputs", ()) if t["role"] == "text"), None)
    given = found["prediction"]["values"].get(text)
    return question_of(messages_of(given)) if isinstance(given, str) else ""


def _texts(store: Store, package: str) -> frozenset[str]:
    """Return the inputs and outputs of a package that are texts."""
    signature = (store.ledger.get("package", package) or {}).get("signature") or {}
    tensors = [*signature.get("inputs", ()), *signature.get("outputs", ())]
    return frozenset(str(t["name"]) for t in tensors if t["datatype"] == BYTES)


def _plain(value: Any) -> Any:
    """Return a captured value as JSON takes it: a file is named, not printed."""
    if isinstance(value, bytes):
        return {"digest": digest_bytes(value), "bytes": len(value)}
    return value


def _walk(store: Store, start: Record) -> dict[str, Any]:
    lineage = ancestors(store.ledger, start.id)
    records = {r.id: r for r in (start, *lineage.records)}
    by_kind: dict[str, list[Record]] = {}
    for record in records.values():
        by_kind.setdefault(record.kind, []).append(record)
    found: dict[str, Any] = {"edges": [encode(edge) for edge in lineage.edges]}
    for package in by_kind.get("package", [])[:1]:
        found["package"] = _package(package)
    for model in by_kind.get("model", [])[:1]:
        found["model"] = {"id": model.id, "made_ms": model.time_ms, **model.body}
    found["datasets"] = [_dataset(store, r) for r in by_kind.get("dataset", [])]
    run = start if start.kind == "run" else _run_of(store, start, found)
    if run:
        found["run"] = _run(store, run)
    return found


def _run_of(store: Store, start: Record, found: Mapping[str, Any]) -> Record | None:
    """Return the run that made a thing: the one its package names, else the first that had it."""
    named = found.get("package", {}).get("run")
    if not named:
        runs = store.ledger.events(line=start.line, kinds=("run.finished",))
        made = (e.subject for e in runs if start.id in (e.body.get("model"), e.body.get("dataset")))
        named = next(made, None)
    return store.ledger.lookup(str(named)) if named else None


def _package(record: Record) -> dict[str, Any]:
    body = record.body
    kept = (
        *("model", "run", "dataset", "engine", "verdict", "files", "task", "entities"),
        *("signature", "settings", "classes"),
    )
    return {
        "id": record.id,
        "line": record.line,
        "made_ms": record.time_ms,
        **{name: body.get(name) for name in kept},
    }


def _dataset(store: Store, record: Record) -> dict[str, Any]:
    body = record.body
    return {
        "id": record.id,
        "rows": body.get("rows"),
        "rejected": body.get("rejected", {}),
        "source": body.get("source", {}),
        "sheet": body.get("sheet"),
        "rejects": body.get("rejects"),
        "parent": body.get("parent"),
        "segments": [encode(_segment(store, s)) for s in body.get("segments", [])],
    }


def _segment(store: Store, body: Mapping[str, Any]) -> Segment:
    """Read which rows a segment holds from the statistics in its footer; no row is read."""
    first: int | None = None
    last: int | None = None
    with pq.ParquetFile(store.blobs.path(str(body["digest"]))) as file:
        meta = file.metadata
        index = file.schema_arrow.get_field_index("row")
        groups = [meta.row_group(g).column(index) for g in range(meta.num_row_groups)]
        if index >= 0 and groups and all(c.is_stats_set for c in groups):
            first = min(c.statistics.min for c in groups)
            last = max(c.statistics.max for c in groups)
    return Segment(
        digest=str(body["digest"]),
        rows=int(body["rows"]),
        origin=str(body.get("origin", "source")),
        first_row=first,
        last_row=last,
    )


def _run(store: Store, record: Record) -> dict[str, Any]:
    events = store.ledger.events(line=record.line, kinds=("stage.finished", "run.finished"))
    mine = [e for e in events if e.body.get("run") == record.id]
    stages = [_stage(store, e) for e in mine if e.kind == "stage.finished"]
    finished = next((e.body for e in mine if e.kind == "run.finished"), {})
    line = store.ledger.get("line", str(record.body.get("line_digest", ""))) or {}
    return {
        "id": record.id,
        "line": record.line,
        "reason": record.body.get("reason"),
        "started_ms": record.time_ms,
        "outcome": finished.get("outcome"),
        "stages": stages,
        "seed": line.get("train", {}).get("seed"),
        "checks": line.get("data", {}).get("checks", {}),
        "budget": line.get("train", {}).get("budget"),
        "machine": _machine(store, stages),
        "code": record.body.get("code"),
        "bill": encode(_spent(stages)),
    }


def _machine(store: Store, stages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the machine on which the engine was chosen."""
    for stage in stages:
        if stage["stage"] == "optimize":
            result = store.attempts.result(str(stage["key"])) or {}
            machine: dict[str, Any] | None = result.get("machine")
            return machine
    return None


def _stage(store: Store, event: Event) -> dict[str, Any]:
    """A stage of the run; one that was reused carries what it took when it was done."""
    body = dict(event.body)
    names = ("stage", "key", "reused", "seconds", "cpu_seconds")
    if body.get("reused"):
        for other in store.ledger.events(kinds=("stage.finished",)):
            if other.body.get("key") == body.get("key") and not other.body.get("reused"):
                body |= {"seconds": other.body["seconds"], "cpu_seconds": other.body["cpu_seconds"]}
                body["done_in"] = other.body.get("run")
    return {name: body[name] for name in (*names, "done_in") if name in body}


def _spent(stages: list[dict[str, Any]]) -> Bill:
    return bill(
        sum(float(s.get("seconds") or 0.0) for s in stages),
        sum(float(s.get("cpu_seconds") or 0.0) for s in stages),
    )
