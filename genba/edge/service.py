"""The service of a device: readings in, answers out, and nothing lost in between.

For each reading: was it answered before? If not, it is put together with those before it and
answered; a controller is written to at once; then, in one transaction, the answer and what a
restart needs are put into the buffer; only then the reading is acknowledged. From the buffer, what
waits is sent until the other side has it. Killed at any point, nothing that was acknowledged is
gone, and what was not comes again and is answered as it would have been.
"""

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from genba.core.values import Manifest
from genba.edge.assembly import BESIDE, ROWS, Assembled, Assembly
from genba.edge.buffer import HIGH, LOW, NORMAL, PREDICTION, SAMPLE, Buffer, Entry
from genba.edge.buffer_choice import Choice
from genba.edge.clocks import Clock
from genba.edge.interface import Interface
from genba.edge.links import Link, Reading
from genba.edge.links.settings import Links, reads, writes
from genba.edge.safety import Answer, Sample
from genba.edge.service_bodies import answer_body, encoded, prediction_body, sample_body
from genba.edge.service_forward import KIND, Forward
from genba.edge.service_health import Counts, Health, notify
from genba.edge.service_model import micros

_ROOM: Final = 256  # readings between the links and the service
_BATCH: Final = 64  # readings that are made safe in one transaction
_IDLE_S, _BUSY_S = 0.2, 0.02
_HEALTH_S: Final = 2.0
_AGAIN_S: Final = 1.0  # before a link that failed is begun again
_HELD: Final = 256  # batches in memory while the disk takes nothing
_CURSOR, _CHOICE, _MODEL, _NUMBER = "cursor/", "choice", "model", "number"
_DIRECT: Final = frozenset({"opcua", "modbus"})  # controllers: now or never
_ROLES: Final = {"active": "stable"}  # as the factory calls it
_UNUSUAL: Final = "unusual"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a service is made of."""

    manifest: Manifest
    interface: Interface
    model: Any  # answers; see `service_model.Answers`
    links: Links  # fitted to the interface
    opened: Mapping[str, Link]
    buffer: Buffer
    clock: Clock
    health: Health
    factory: bool = False  # whether an agent takes predictions and samples to a factory


@dataclass(kw_only=True, slots=True)
class _Batch:
    """What belongs together on the disk."""

    entries: list[Entry]
    state: dict[str, bytes | None]
    readings: list[Reading]


class Service:
    """Serves until it is told to stop.

    Args:
        parts: What it is made of.
    """

    def __init__(self, parts: Parts) -> None:
        self.counts = Counts()
        self.stop = threading.Event()
        self._parts = parts
        self._assembly = Assembly(parts.manifest, parts.interface, parts.links)
        self._choice = Choice(parts.links.samples, parts.interface, parts.clock)
        self._arrived: queue.Queue[Reading] = queue.Queue(_ROOM)
        self._intake = threading.Event()  # set: no more readings
        self._threads: list[threading.Thread] = []
        self._held: deque[_Batch] = deque()
        self._held_keys: set[str] = set()
        self._number = 0
        outputs = [name for name, link in parts.links.links.items() if writes(link)]
        self._direct = [parts.opened[n] for n in outputs if parts.links.kinds[n] in _DIRECT]
        self._forward = [
            Forward(parts.opened[n], parts.buffer, parts.clock)
            for n in outputs
            if parts.links.kinds[n] not in _DIRECT
        ]
        self._told_s = 0.0
        self._lock = threading.Lock()  # the watchdog answers from a thread of its own

    def run(self, *, most: int | None = None, drain_s: float = 5.0) -> Counts:
        """Serve until `stop` is set.

        Args:
            most: Stop by itself after so many readings, for drills.
            drain_s: How long answers may still leave after the stop.
        """
        self._restore()
        self._start()
        notify("READY=1")
        while not self.stop.is_set() and (most is None or self.counts.readings < most):
            self._turn()
        notify("STOPPING=1")
        self._drain(drain_s)
        return self.counts

    def _turn(self) -> None:
        batch = self._gather()
        if batch:
            self._answer(batch)
        self._retry()
        for forward in self._forward:
            forward.turn()
        for link in self._direct:
            link.confirmed()
        if time.monotonic() - self._told_s > _HEALTH_S:
            self._tell()

    def _gather(self) -> list[Reading]:
        busy = any(forward.busy for forward in self._forward) or bool(self._held)
        found: list[Reading] = []
        try:
            found.append(self._arrived.get(timeout=_BUSY_S if busy else _IDLE_S))
            while len(found) < _BATCH:
                found.append(self._arrived.get_nowait())
        except queue.Empty:
            pass
        return found

    def _answer(self, readings: Sequence[Reading]) -> None:
        batch = _Batch(entries=[], state={}, readings=[])
        for reading in readings:
            self.counts.readings += 1
            batch.readings.append(reading)
            if reading.cursor:
                batch.state[f"{_CURSOR}{reading.source}"] = reading.cursor.encode()
            if self._is_known(reading.id) or any(e.key == reading.id for e in batch.entries):
                self.counts.duplicates += 1
                continue
            try:
                assembled = self._assembly.add(reading)
                batch.state.update(assembled.state)
                if assembled.sample is not None:
                    batch.entries += self._one(reading, assembled, assembled.sample)
            except Exception as error:  # noqa: BLE001  # one reading must not end the service again and again
                self.counts.failed += 1
                link = self._parts.opened[reading.source]
                link.standing.detail = f"{reading.id[:80]} failed: {type(error).__name__}: {error}"
        self._keep(batch)

    def _one(self, reading: Reading, assembled: Assembled, sample: Sample) -> list[Entry]:
        begun_ns = time.perf_counter_ns()
        told = self._parts.model.answer(sample, reading.entity or reading.id)
        self._number += 1
        facts = {
            "id": reading.id,
            "n": self._number,
            "line": self._parts.interface.line,
            "release": told.release,
            "package": told.package,
            "role": _ROLES.get(told.role, told.role),
            "answered_ms": self._parts.clock.now_ms(),
            "latency_us": micros(begun_ns),
        }
        body = answer_body(facts, sample, told.answer, self._parts.interface)
        self._write_now(body)
        entries = self._entries(reading.id, body, sample)
        why = self._why(reading, assembled, sample, told.answer)
        if why:
            entries.append(self._for_people(reading, sample, body, why))
        shadow = self._parts.model.beside(sample, told)
        if shadow is not None and self._parts.factory:
            entries.append(self._shadowed(reading.id, facts, sample, shadow))
        return entries

    def _shadowed(self, key: str, facts: Mapping[str, Any], sample: Sample, shadow: Any) -> Entry:
        """Return what a release on trial would have said, for the factory only."""
        self._number += 1
        who = {"release": shadow.release, "package": shadow.package, "role": "shadow"}
        told = {**facts, **who, "id": f"{key}/shadow", "n": self._number}
        body = answer_body(told, sample, shadow.answer, self._parts.interface)
        return Entry(
            kind=PREDICTION,
            key=f"{key}/shadow",
            body=encoded(prediction_body(body, sample, self._parts.interface)),
            priority=LOW,
            time_ms=sample.time_ms,
        )

    def _entries(self, key: str, body: Mapping[str, Any], sample: Sample) -> list[Entry]:
        """Return an answer as each of its receivers gets it."""
        self.counts.answers[body["action"]] = self.counts.answers.get(body["action"], 0) + 1
        kinds = [forward.kind for forward in self._forward]
        entries = [
            Entry(kind=k, key=key, body=encoded(body), priority=HIGH, time_ms=sample.time_ms)
            for k in kinds
        ]
        if self._parts.factory or not kinds:
            told = prediction_body(body, sample, self._parts.interface)
            entries.append(
                Entry(
                    kind=PREDICTION,
                    key=key,
                    body=encoded(told),
                    priority=LOW if kinds else HIGH,
                    time_ms=sample.time_ms,
                )
            )
        return entries

    def _why(self, reading: Reading, assembled: Assembled, sample: Sample, answer: Answer) -> str:
        unusual = any(trip.layer == _UNUSUAL for trip in answer.trips)
        outputs = answer.outputs if answer.outputs is not None else answer.suspect
        seen = (assembled.values, sample.tensors)
        return self._choice.why(reading.id, outputs, seen, unusual)

    def _for_people(
        self, reading: Reading, sample: Sample, body: Mapping[str, Any], why: str
    ) -> Entry:
        self.counts.samples += 1
        told = sample_body(body, sample, self._parts.interface, why, reading.image)
        return Entry(
            kind=SAMPLE,
            key=reading.id,
            body=encoded(told),
            priority=NORMAL,
            time_ms=sample.time_ms,
        )

    def _keep(self, batch: _Batch) -> None:
        batch.state[_NUMBER] = str(self._number).encode()
        if batch.entries:
            batch.state[_CHOICE] = self._choice.state()
            state: Any = getattr(self._parts.model, "state", dict)()
            if state:
                batch.state[_MODEL] = json.dumps(state).encode()  # it may hold NaN
        if self._held or not self._safe(batch):
            self._hold(batch)

    def _safe(self, batch: _Batch) -> bool:
        """Put a batch on the disk and acknowledge its readings; say whether that worked."""
        outcomes = self._parts.buffer.put_all(batch.entries, batch.state)
        refused = [e for e, o in zip(batch.entries, outcomes, strict=True) if o == "refused"]
        vital = [e for e in refused if e.kind != SAMPLE]
        if vital or (not batch.entries and self._parts.buffer.trouble):
            batch.entries[:] = vital or batch.entries
            return False
        for forward in self._forward:
            forward.more()
        for reading in batch.readings:
            self._parts.opened[reading.source].acknowledge(reading)
        return True

    def _hold(self, batch: _Batch) -> None:
        """Keep in memory what the disk does not take; its readings stay unacknowledged."""
        self._held.append(batch)
        self._held_keys.update(entry.key for entry in batch.entries)
        if len(self._held) > _HELD:
            gone = self._held.popleft()
            self.counts.lost += len({entry.key for entry in gone.entries})
            self._held_keys.difference_update(entry.key for entry in gone.entries)
        self.counts.refused = len(self._held_keys)

    def _retry(self) -> None:
        while self._held and self._safe(self._held[0]):
            done = self._held.popleft()
            self._held_keys.difference_update(entry.key for entry in done.entries)
        self.counts.refused = len(self._held_keys)

    def _is_known(self, key: str) -> bool:
        kind = self._forward[0].kind if self._forward else PREDICTION
        return key in self._held_keys or self._parts.buffer.knows(kind, key)

    def _write_now(self, body: Mapping[str, Any]) -> None:
        for link in self._direct:
            link.publish(int(body["n"]), body)

    def _overdue(self, answer: Answer) -> None:
        """Hand on an answer that the envelope gives because none came; from its own thread."""
        now_ms = self._parts.clock.now_ms()
        sample = Sample(tensors=None, time_ms=now_ms)
        key = f"overdue@{now_ms}"
        facts = {"id": key, "n": -1, "line": self._parts.interface.line, "answered_ms": now_ms}
        body = answer_body(facts, sample, answer, self._parts.interface)
        self._write_now(body)
        with self._lock:
            entries = self._entries(key, body, sample)
        self._parts.buffer.put_all([e for e in entries if e.kind.startswith(KIND)])

    def _restore(self) -> None:
        buffer = self._parts.buffer
        self.counts.rows_from_before = self._assembly.restore(buffer.recall(ROWS))
        self._assembly.restore_beside(buffer.recall(BESIDE))
        for name, cursor in buffer.recall(_CURSOR).items():
            link = self._parts.opened.get(name.removeprefix(_CURSOR))
            if link is not None:
                link.resume(cursor.decode())
        state = buffer.recall("")
        self._number = int(state.get(_NUMBER, b"0"))
        if _CHOICE in state:
            self._choice.restore(state[_CHOICE])
        if _MODEL in state and hasattr(self._parts.model, "restore"):
            self._parts.model.restore(json.loads(state[_MODEL]))

    def _start(self) -> None:
        for name, settings in self._parts.links.links.items():
            if reads(settings):
                thread = threading.Thread(
                    target=self._take_in, args=(self._parts.opened[name],), name=name, daemon=True
                )
                self._threads.append(thread)
                thread.start()
        watch = getattr(self._parts.model, "watch", None)
        if watch is not None:
            watch(self._overdue)

    def _take_in(self, link: Link) -> None:
        while not self._intake.is_set():
            try:
                for reading in link.readings(self._intake):
                    self._hand_over(reading)
            except Exception as error:  # noqa: BLE001  # one odd byte must not end a link for good
                link.standing.down(f"failed: {type(error).__name__}: {error}")
                self._intake.wait(_AGAIN_S)

    def _hand_over(self, reading: Reading) -> None:
        while not self._intake.is_set():
            try:
                self._arrived.put(reading, timeout=_IDLE_S)
                return
            except queue.Full:
                continue

    def _drain(self, most_s: float) -> None:
        """Answer what has come, send what waits while somebody takes it, and end."""
        self._intake.set()
        until_s = time.monotonic() + most_s
        while not self._arrived.empty() and time.monotonic() < until_s:
            self._answer(self._gather())
        self._retry()
        sending = True
        while sending and time.monotonic() < until_s:
            sending = bool(sum(forward.turn() for forward in self._forward)) or any(
                f.busy and f.link.standing.connected for f in self._forward
            )
            time.sleep(_BUSY_S)
        self._tell()
        self._parts.model.close()
        for link in self._parts.opened.values():
            link.close()
        for thread in self._threads:
            thread.join(timeout=most_s)

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        standings = {name: link.standing for name, link in self._parts.opened.items()}
        indicators: Any = getattr(self._parts.model, "indicators", dict)()
        more = {"time_ms": self._parts.clock.now_ms(), "safety": indicators}
        self._parts.health.tell(self.counts, standings, self._parts.buffer.watermark(), more)
