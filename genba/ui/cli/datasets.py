"""`genba data`: dataset versions, their sheets, and the rows that were rejected."""

import json
from typing import Any

from rich.console import RenderableType

from genba.data.segments import read_rejects
from genba.store.home import Store
from genba.store.ledger import Record
from genba.ui.cli.answer import Answer, heading, table
from genba.ui.cli.figures import moment, number, short
from genba.ui.cli.lookup import find_record, open_home
from genba.ui.cli.options import DEFAULT, Options
from genba.ui.cli.sheet_report import blocks


def data(name: str = "", /, *, rejects: int = 0, options: Options = DEFAULT) -> Answer:
    """List dataset versions, or show the sheet of one.

    Args:
        name: A line to list the versions of, or the id of a version to show its sheet.
        rejects: Show so many of the rows that were rejected from a version, with their reasons.
        options: Common options.
    """
    with open_home(options) as store:
        versions = store.ledger.find("dataset", line=name or None)
        if name and not versions and not store.ledger.find("line", line=name, limit=1):
            record = find_record(store, ("dataset",), name, "line or dataset")
            return _rejects(store, record, rejects) if rejects > 0 else _sheet(store, record)
        if rejects > 0 and versions:
            return _rejects(store, versions[0], rejects)
    rows = [
        [
            moment(r.time_ms),
            r.line,
            short(r.id),
            number(r.body.get("rows", 0)),
            number(sum((r.body.get("rejected") or {}).values())),
            str(len(r.body.get("segments", []))),
            short(str(r.body.get("parent") or "-")),
        ]
        for r in versions
    ]
    columns = ["made", "line", "dataset", "rows", "rejected", "segments", "made from"]
    grid = table(columns, rows, right=("rows", "rejected", "segments"))
    return Answer(
        data={"datasets": [{"dataset": r.id, "made_ms": r.time_ms, **r.body} for r in versions]},
        blocks=[grid if rows else heading("No data was read here yet")],
        next=(f"genba data {short(versions[0].id)}",) if versions else ("genba run LINE",),
    )


def _sheet(store: Store, record: Record) -> Answer:
    sheet = json.loads(store.blobs.read(record.body["sheet"]))
    more = (f"genba data {short(record.id)} --rejects 20",) if record.body.get("rejects") else ()
    return Answer(
        data={"dataset": record.id, "line": record.line, "sheet": sheet},
        blocks=[heading(f"Dataset {short(record.id)} of {record.line}"), *blocks(sheet)],
        next=(f"genba trace {short(record.id)}", *more),
    )


def _rejects(store: Store, record: Record, limit: int) -> Answer:
    """Show rejected rows as they were kept."""
    total = sum((record.body.get("rejected") or {}).values())
    found: list[dict[str, Any]] = []
    if record.body.get("rejects"):
        for frame in read_rejects(store.blobs, record.body["rejects"]):
            found += frame.head(limit - len(found)).to_dicts()
            if len(found) >= limit:
                break
    title = f"{number(len(found))} of {number(total)} rows rejected from {short(record.id)}"
    shown: list[RenderableType] = [heading(f"{title}, of {record.line}")]
    if found:
        rows = [[_place(r), str(r["reason"]), _held(r["values"])] for r in found]
        shown.append(table(["where", "reason", "what the row held"], rows))
    return Answer(
        data={"dataset": record.id, "line": record.line, "rejected": total, "rows": found},
        blocks=shown,
        next=(f"genba data {short(record.id)}",),
    )


def _place(row: dict[str, Any]) -> str:
    file, line = row.get("file"), row.get("line")
    if file and line is not None:
        return f"{file}:{line}"
    return str(file or f"row {row['row']}")


def _held(values: str) -> str:
    """Write a row's values as people do.

    Example:
        >>> _held('{"speed": 5.449999809265137, "state": "on", "power": null}')
        'speed 5.45, state on, power missing'
    """
    held = json.loads(values)
    told = {
        name: "missing" if v is None else number(v) if isinstance(v, int | float) else str(v)
        for name, v in held.items()
    }
    return ", ".join(f"{name} {value}" for name, value in told.items())
