"""What a device says of itself, and what it sends: a signed report, then what waits in its buffer.

A record leaves the buffer when the factory has said that it has it, or that it will never take it;
the second is counted and told. A request that was cut off is simply sent again.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from genba import __version__
from genba.core.codec import encode
from genba.edge.agent.clock import TrustedTime
from genba.edge.agent.enrolment import Enrolment, sign_report
from genba.edge.agent.factory import Factory
from genba.edge.agent.observed import read_counts
from genba.edge.agent.record import Recorded
from genba.edge.agent.values import Install
from genba.edge.buffer import NORMAL, Buffer, Record

PATH: Final = "/edge/telemetry"
#: What is sent to the factory; other kinds have other receivers.
KINDS: Final = ("prediction", "sample", "event", "feedback", "telemetry")
_RECORDS: Final = 500  # of one request
_BYTES: Final = 4 << 20
_ANSWER_BYTES: Final = 1 << 20
_EVENT: Final = "event"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What came of sending."""

    accepted: int = 0
    refused: tuple[str, ...] = ()  # why, for records that the factory will never take


def report_of(
    enrolment: Enrolment,
    recorded: Recorded,
    folder: Path,
    time: TrustedTime,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a device says of itself.

    Args:
        enrolment: Who it is.
        recorded: The agent's state.
        folder: Of the agent.
        time: What time it is.
        more: Other facts, such as how full its buffer is.
    """
    state = recorded.state
    return {
        "device": enrolment.device,
        "line": enrolment.line,
        "number": recorded.number,
        "time_ms": time.now_ms(),
        "clock_behind_ms": time.behind_ms(),
        "genba": __version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "active": _told(state.active),
        "previous": _told(state.previous),
        "candidate": _told(state.candidate),
        "offer": None if state.offer is None else state.offer.release,
        "refused": {str(r.release): r.reason for r in state.refused},
        "starts": state.starts,
        "counts": encode(read_counts(folder)),
        **more,
    }


def send(
    factory: Factory, enrolment: Enrolment, state: Path, report: Mapping[str, Any], buffer: Buffer
) -> Sent:
    """Send a report and everything that waits.

    Args:
        factory: Where to.
        enrolment: Who this device is.
        state: Its folder.
        report: As `report_of`.
        buffer: What waits.

    Raises:
        Problem: G680 when the factory cannot be reached, G689 when it does not believe this device;
            what was acknowledged until then is gone from the buffer, the rest waits.
    """
    try:
        return _send(factory, enrolment, sign_report(state, report), buffer)
    finally:
        factory.close()


def _send(factory: Factory, enrolment: Enrolment, report: dict[str, Any], buffer: Buffer) -> Sent:
    signed: dict[str, Any] | None = report
    accepted = 0
    refused: list[str] = []
    while True:
        records = buffer.pending(KINDS, limit=_RECORDS)
        batch = list(_batch(records))
        if not batch and signed is None:
            return Sent(accepted=accepted, refused=tuple(refused))
        records_sent = [plain for _, plain in batch]
        body: dict[str, Any] = {"device": enrolment.device, "records": records_sent}
        if signed is not None:
            body["report"], signed = signed, None
        told = factory.post(PATH, body, _ANSWER_BYTES)
        taken, never = set(told.get("accepted") or ()), dict(told.get("refused") or {})
        done = [record.id for record, plain in batch if plain["id"] in taken | never.keys()]
        broken = {record.id for record in records} - {r.id for r, _ in batch}
        broken &= {record.id for record in records if _plain(record) is None}
        buffer.acknowledge([*done, *broken])
        accepted += len(taken)
        refused += [str(why) for why in never.values()]
        if records and not done and not broken:  # a factory that takes nothing is asked later
            return Sent(accepted=accepted, refused=tuple(refused))


def note_changes(recorded: Recorded, buffer: Buffer) -> None:
    """Put what changed into the buffer, for the factory; what was put before is recognised."""
    for change in recorded.changes:
        body = json.dumps({"change": change.what, "event": change.event, "time_ms": change.time_ms})
        key = f"change-{change.number}-{change.time_ms}"
        buffer.put(_EVENT, NORMAL, key, body.encode(), time_ms=change.time_ms)


def _batch(records: Sequence[Record]) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Yield what is sent at once: as much as one request may hold, at least one record."""
    size = 0
    for record in records:
        size += len(record.body)
        if size > _BYTES and size > len(record.body):
            return
        plain = _plain(record)
        if plain is not None:
            yield record, plain


def _plain(record: Record) -> dict[str, Any] | None:
    """Return a record as it is sent; None for one that nobody can read."""
    try:
        body = json.loads(record.body)
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    return {"id": f"{record.kind}:{record.key}", "kind": record.kind, "body": _finite(body)}


def _finite(value: Any) -> Any:
    """Return plain data in which what is not a number is null, as JSON has it."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


def _told(install: Install | None) -> dict[str, Any] | None:
    if install is None:
        return None
    return {
        "release": install.release,
        "phase": install.phase,
        "since_ms": install.since_ms,
        "package": install.package,
        "root": install.root,
        "confirmed_by": install.confirmed_by,
    }
