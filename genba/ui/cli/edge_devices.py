"""What `genba edge devices` shows: every device, what it runs, and what waits for a person."""

import time
from collections.abc import Mapping
from typing import Any, Final

from rich.console import RenderableType

from genba.core.codec import encode
from genba.serve.edge.devices import Device
from genba.stages.edge_fleet import devices_of
from genba.store.home import Store
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import moment, seconds

_LATE_S: Final = 3_600.0
_DAY_MS: Final = 86_400_000


def device_report(store: Store, which: str = "") -> Answer:
    """Return every device of a home, or one."""
    devices = [device for device in devices_of(store) if which in ("", device.name)]
    now_ms = time.time_ns() // 1_000_000
    rows = [_row(device, now_ms) for device in devices]
    head = ["device", "line", "runs", "on trial", "seen", "waited there"]
    blocks: list[RenderableType] = [heading("Devices")]
    nothing = "None yet; genba edge enrol DEVICE makes one."
    blocks.append(table(head, rows, whole=("device",)) if rows else facts([("", nothing)]))
    notes = [(device.name, note) for device in devices for note in _notes(device, now_ms)]
    if notes:
        blocks.append(facts(notes))
    waiting = [d.name for d in devices if _waits(d)]
    return Answer(
        data={"devices": [encode(device) for device in devices]},
        blocks=blocks,
        next=(
            *(f"genba edge confirm {name}" for name in waiting[:2]),
            "genba edge publish LINE",
        ),
    )


def _row(device: Device, now_ms: int) -> list[str]:
    report = device.report
    pending = sum(((report.get("buffer") or {}).get("pending") or {}).values())
    return [
        device.name,
        device.line,
        _release(report.get("active")),
        _trial(report),
        _seen(device, now_ms),
        f"{pending:,} records" if report else "",
    ]


def _release(install: Mapping[str, Any] | None) -> str:
    return "nothing" if not install else f"release {install['release']}"


def _trial(report: Mapping[str, Any]) -> str:
    candidate = report.get("candidate")
    if not candidate:
        return f"release {report['offer']}, fetching" if report.get("offer") else ""
    counts = (report.get("counts") or {}).get("candidate") or {}
    answers = (counts.get("tally") or {}).get("answers", 0)
    by = f", confirmed by {candidate['confirmed_by']}" if candidate.get("confirmed_by") else ""
    return f"release {candidate['release']}, {candidate['phase']}, {answers:,} answers{by}"


def _seen(device: Device, now_ms: int) -> str:
    if device.revoked_ms is not None:
        return f"revoked {moment(device.revoked_ms)[:10]}"
    if device.seen_ms is None:
        return "not yet"
    ago = (now_ms - device.seen_ms) / 1e3
    return f"{seconds(ago)} ago" if ago < _LATE_S else f"silent since {moment(device.seen_ms)}"


def _notes(device: Device, now_ms: int) -> list[str]:
    report, notes = device.report, []
    for release, reason in (report.get("refused") or {}).items():
        notes.append(f"refused release {release}: {reason}")
    if report.get("trouble"):
        notes.append(str(report["trouble"]))
    behind = int(report.get("clock_behind_ms") or 0)
    if behind > _DAY_MS:
        notes.append(f"its clock is {behind / _DAY_MS:,.0f} days behind")
    dropped = sum(((report.get("buffer") or {}).get("dropped") or {}).values())
    if dropped:
        notes.append(f"{dropped:,} records were dropped there, by its policy")
    ahead = int(report.get("time_ms") or 0) - (device.seen_ms or now_ms)
    if ahead > _DAY_MS:
        notes.append(f"its clock is {ahead / _DAY_MS:,.0f} days ahead")
    return notes


def _waits(device: Device) -> bool:
    candidate = device.report.get("candidate") or {}
    phase = candidate.get("phase")
    return phase in ("tested", "shadow") and not candidate.get("confirmed_by")
