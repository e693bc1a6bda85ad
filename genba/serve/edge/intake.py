"""What devices send: predictions and samples become captures of their line, each exactly once.

A record counts as taken when the ledger has it, and the answer says so only then. A device that did
not hear the answer sends again; what the ledger has is recognised by its number and not kept twice.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from genba.core.problem import Problem
from genba.data.feedback import Sender, receive
from genba.serve.edge.devices import Device, Devices, not_believed, seen
from genba.serve.edge.rows import Row, as_interval, read_row
from genba.serve.http.responses import Refusal
from genba.store.capture_index import captures_between
from genba.store.captures import CaptureWriter, read_capture
from genba.store.home import Store

_MOST: Final = 2_000  # records of one request
_ROWS: Final = ("prediction", "sample")
_FEEDBACK: Final = "feedback"


@dataclass(kw_only=True)
class _Sorted:
    """What became of the records of a request."""

    rows: dict[int, tuple[str, Row]] = field(default_factory=dict)  # by number
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    feedback: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


class Intake:
    """Takes in what devices of one home send.

    Args:
        store: Of the home.
        now_ms: ms since 1970 UTC.
    """

    def __init__(
        self, store: Store, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._store = store
        self._devices = Devices(store.path)
        self._now_ms = now_ms

    def take(self, body: bytes | bytearray, caller: str) -> dict[str, Any]:
        """Take in one request; everything that is accepted is durable on return.

        Args:
            body: JSON: `device`, `report`, `records`.
            caller: Id of the API key it came with.

        Returns:
            `accepted`, the ids of records that were taken now or before, and `refused`, why others
            will never be.

        Raises:
            Refusal: 400 for what is no such request.
            Problem: G689 when it is not from the device that it names; of the store.
        """
        name, report, records = _read(body)
        with self._devices.alone(name):
            device = self._known(name, caller)
            if report is not None:
                self._report(device, report)
            sorted_ = self._sort(device, records)
            self._capture(device, sorted_)
            self._events(device, sorted_)
            self._feedback(device, sorted_)
        return {"accepted": sorted_.accepted, "refused": sorted_.refused, "time_ms": self._now_ms()}

    def _known(self, name: str, caller: str) -> Device:
        device = self._devices.get(name)
        if device is None or device.revoked_ms is not None:
            raise not_believed(name, "It was not enrolled here, or its enrolment was revoked.")
        if caller != device.key:
            raise not_believed(name, "It came with the key of another device.")
        return device

    def _report(self, device: Device, signed: Mapping[str, Any]) -> None:
        known = seen(device, signed, self._now_ms())
        self._devices.save(known)
        before, now = (_standing(d.report) for d in (device, known))
        if before != now:  # what changed is worth remembering; that it is alive is not
            body = {"device": device.name, **now}
            self._store.ledger.append("edge.report", body, line=device.line, subject=device.name)

    def _sort(self, device: Device, records: Sequence[Mapping[str, Any]]) -> _Sorted:
        found = _Sorted()
        packages: dict[str, Mapping[str, Any] | None] = {}
        for record in records:
            id, kind, body = _record(record)
            if kind in _ROWS:
                try:
                    row = read_row(body, self._package(device, body, packages), kind)
                except Problem as problem:
                    found.refused[id] = problem.what
                    continue
                known = found.rows.get(row.n)
                if known is None or kind == "sample":  # a sample says more about the same answer
                    found.rows[row.n] = (id, row)
                if known is not None:
                    found.accepted.append(known[0] if kind == "sample" else id)
            elif kind == _FEEDBACK:
                found.feedback.append((id, body))
            else:
                found.events.append((id, body))
        return found

    def _package(
        self,
        device: Device,
        body: Mapping[str, Any],
        known: dict[str, Mapping[str, Any] | None],
    ) -> Mapping[str, Any] | None:
        id = str(body.get("package", ""))
        if id not in known:
            manifest = self._store.ledger.get("package", id)
            known[id] = manifest if manifest and manifest.get("line") == device.line else None
        return known[id]

    def _capture(self, device: Device, found: _Sorted) -> None:
        if not found.rows:
            return
        server = server_of(device.name)
        taken = self._taken(server, found.rows)
        rows = [row for _, (_, row) in sorted(found.rows.items())]
        new = [row for row in rows if row.n not in taken]
        # What was asked may follow what was answered: an image that somebody shall look at.
        late = [row for row in rows if row.n in taken and row.asked > taken[row.n]]
        for part, counted in ((new, True), (late, False)):
            if part:
                interval = as_interval(part, counted=counted)
                CaptureWriter(self._store, device.line, server).write(interval)
        found.accepted += [id for id, _ in found.rows.values()]

    def _taken(self, server: str, rows: Mapping[int, tuple[str, Row]]) -> dict[int, int]:
        """Return the predictions that are captured already, and how many inputs each has."""
        inputs = {name for _, row in rows.values() for name in row.features}
        taken: dict[int, int] = {}
        for id in captures_between(self._store.database, server, min(rows), max(rows)):
            record = self._store.ledger.lookup(id)
            if record is None:
                continue
            table = read_capture(self._store, record, columns=("n", *inputs))
            for row in table.to_pylist():
                n = row.pop("n")
                asked = sum(value is not None for value in row.values())
                taken[n] = max(asked, taken.get(n, 0))
        return taken

    def _events(self, device: Device, found: _Sorted) -> None:
        for id, body in found.events:
            self._store.ledger.append(
                "edge.event",
                {"device": device.name, **body},
                line=device.line,
                subject=device.name,
                key=f"edge.event:{device.name}:{id}",
            )
            found.accepted.append(id)

    def _feedback(self, device: Device, found: _Sorted) -> None:
        """Pass on what people at the device said; the feedback intake knows what it heard."""
        for id, body in found.feedback:
            row = {**body, "author": body.get("author") or device.name}
            if isinstance(row.get("n"), int):
                row["prediction"] = f"{server_of(device.name)}-{row.pop('n')}"
            try:
                sender = Sender(source="api", caller=device.key)
                rejected = receive(self._store, device.line, [row], source=sender).rejected
            except Problem as problem:
                found.refused[id] = problem.what
                continue
            if rejected:
                found.refused[id] = rejected[0].reason
            else:
                found.accepted.append(id)


def server_of(device: str) -> str:
    """Return the name under which a device's predictions are captured.

    Example:
        >>> server_of("press-7")
        'device-press-7'
    """
    return f"device-{device}"


def _read(
    body: bytes | bytearray,
) -> tuple[str, Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]:
    try:
        given: Any = json.loads(bytes(body))
        name, report, records = given["device"], given.get("report"), given.get("records", [])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(f"Telemetry is JSON with a device: {type(error).__name__}.") from error
    if not isinstance(name, str) or not isinstance(records, list):
        raise _bad("Telemetry names a device and has a list of records.")
    if not all(isinstance(record, dict) for record in records):
        raise _bad("A record is a JSON object.")
    if report is not None and not isinstance(report, dict):
        raise _bad("A report is a JSON object.")
    if len(records) > _MOST:
        raise _bad(f"{len(records)} records; up to {_MOST} are taken at a time.")
    return name, report, records


def _record(record: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    id, kind, body = record.get("id"), record.get("kind"), record.get("body")
    if not isinstance(id, str) or not isinstance(kind, str) or not isinstance(body, dict):
        raise _bad("A record has an id, a kind and a body.")
    return id, kind, body


def _bad(what: str) -> Refusal:
    return Refusal(400, "G704", what)


def _standing(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a report that is kept in the ledger whenever it changes."""
    return {name: report.get(name) for name in ("active", "previous", "candidate", "refused")}
