"""From readings to the tensors of a package: windows with gaps, sources side by side, pixels.

A window holds the rows whose time is 0, 1, 2, ... steps before the newest, the oldest first; where
there is no row within half a step, its numbers are missing (NaN), as where the model was trained.
The readings of one link, the leader, ask for answers. Of the others, the newest value stands
beside them for as long as the link file says (`hold_ms`), and then it is missing.
"""

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.core.values import Manifest
from genba.edge.interface import Interface, Port
from genba.edge.links import Reading
from genba.edge.links.settings import Links
from genba.edge.package import encode_entities
from genba.edge.safety import Sample

ROWS: Final = "rows/"  # how the rows of an entity are called in the buffer's state
BESIDE: Final = "beside/"  # and the newest values of the other links
_SPARE: Final = 16  # rows beyond a window, for those that come late or twice
_BESIDE: Final = 4_096  # values of another link that are kept for each column
_SAVED: Final = 64  # of them, for a restart
_MOST_ENTITIES: Final = 10_000
_LAST, _MEAN = ":last", ":mean"  # of joined columns: the newest, or the mean within the tolerance
_IMAGE: Final = "image"
_TYPES: Final = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "INT32": np.int32}

Row = Mapping[str, float | None]


@dataclass(slots=True)
class _Entity:
    """What is known of one entity."""

    times: list[int] = field(default_factory=list)  # sorted
    rows: dict[int, Row] = field(default_factory=dict)
    order: deque[tuple[int, int]] = field(default_factory=deque)  # time and number, as they came
    beside: dict[str, dict[str, deque[tuple[int, float]]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembled:
    """A sample, what of it must be remembered, and the numbers as they were read."""

    sample: Sample | None  # None where the reading asks for no answer
    values: Row
    state: Mapping[str, bytes | None]


class Assembly:
    """Puts readings together for one package.

    Args:
        manifest: Of the package.
        interface: Of the release.
        links: The link file, fitted to the interface.

    Raises:
        Problem: G692 when the package takes something that no reading gives.
    """

    def __init__(self, manifest: Manifest, interface: Interface, links: Links) -> None:
        self._manifest = manifest
        self._ports = [p for p in interface.inputs if p.role not in ("parameter", "given")]
        self._windows = [port for port in self._ports if port.steps]
        self._step_ms = int(interface.step_ms or manifest.settings.get("step_ms") or 1)
        self._has_clock = interface.step_ms is not None
        stated = links.tolerance_ms if links.tolerance_ms is not None else interface.tolerance_ms
        self._off_ms = self._step_ms // 2 if stated is None else min(stated, self._step_ms // 2)
        self._fields = [one.name for one in interface.fields]
        self._leader = links.leader
        hold_ms = interface.tolerance_ms or self._step_ms
        self._hold_ms = {
            name: hold_ms if link.hold_ms is None else link.hold_ms
            for name, link in links.links.items()
        }
        self._keep = 2 * max((p.steps for p in self._windows), default=1) + _SPARE
        self._entities: dict[str, _Entity] = {}
        self._index = {name: at for at, name in enumerate(manifest.entities)}
        for port in self._ports:
            self._check(port)

    def add(self, reading: Reading) -> Assembled:
        """Take a reading; one of the leader becomes a sample.

        Args:
            reading: From any link; None of its values need to be there.
        """
        known = self._of(reading.entity)
        if reading.source != self._leader:
            columns = known.beside.setdefault(reading.source, {})
            for name, value in reading.values.items():
                if value is not None:
                    newest = columns.setdefault(name, deque(maxlen=_BESIDE))
                    newest.append((reading.time_ms, value))
            return Assembled(
                sample=None, values=reading.values, state=self._state(reading, columns)
            )
        row = self._row(known, reading)
        state = self._remember(known, reading.entity, reading.time_ms, row)
        return Assembled(sample=self._sample(known, reading), values=row, state=state)

    def restore(self, state: Mapping[str, bytes]) -> int:
        """Remember the rows from before a restart; return how many there were."""
        count = 0
        for body in state.values():
            try:
                time_ms, order, entity, row = json.loads(body)
                known = self._of(str(entity))
                _insert(known, int(time_ms), {str(k): v for k, v in row.items()}, int(order))
                count += 1
            except (ValueError, TypeError, AttributeError):
                continue  # what cannot be read is a gap, and says so as NaN
        for known in self._entities.values():
            known.order = deque(sorted(known.order, key=lambda one: one[1]))
        return count

    def restore_beside(self, state: Mapping[str, bytes]) -> None:
        """Remember what stood beside the leader's readings before a restart."""
        for body in state.values():
            try:
                source, entity, columns = json.loads(body)
                found = {
                    str(name): deque(((int(t), float(v)) for t, v in points), maxlen=_BESIDE)
                    for name, points in columns.items()
                }
            except (ValueError, TypeError, AttributeError):
                continue
            self._of(str(entity)).beside[str(source)] = found

    def _state(
        self, reading: Reading, columns: Mapping[str, deque[tuple[int, float]]]
    ) -> dict[str, bytes | None]:
        oldest_ms = reading.time_ms - self._hold_ms.get(reading.source, 0)
        kept = {
            name: [point for point in list(points)[-_SAVED:] if point[0] >= oldest_ms]
            for name, points in columns.items()
        }
        body = json.dumps([reading.source, reading.entity, kept], allow_nan=False).encode()
        return {f"{BESIDE}{reading.source}/{reading.entity}": body}

    def _of(self, entity: str) -> _Entity:
        if entity not in self._entities:
            if len(self._entities) >= _MOST_ENTITIES:
                del self._entities[next(iter(self._entities))]
            self._entities[entity] = _Entity()
        return self._entities[entity]

    def _row(self, known: _Entity, reading: Reading) -> dict[str, float | None]:
        """Return the numbers of one moment: the leader's own, then what stands beside them."""
        row: dict[str, float | None] = {**known.rows.get(reading.time_ms, {}), **reading.values}
        everybody = self._entities.get("", known)
        for name in self._fields:
            for owner in (known, everybody):
                for source, columns in owner.beside.items():
                    if row.get(name) is None:
                        oldest_ms = reading.time_ms - self._hold_ms.get(source, 0)
                        row[name] = _beside(columns, name, oldest_ms, reading.time_ms)
        return {name: row.get(name) for name in self._fields}

    def _remember(
        self, known: _Entity, entity: str, time_ms: int, row: Row
    ) -> dict[str, bytes | None]:
        """Keep a row; return what of it a restart needs, and what it needs no more."""
        if not self._windows:
            return {}
        order = known.order[-1][1] + 1 if known.order else 0
        _insert(known, time_ms, row, order)
        name = f"{ROWS}{entity}/{time_ms}"
        state: dict[str, bytes | None] = {
            name: json.dumps([time_ms, order, entity, row], allow_nan=False).encode()
        }
        while len(known.order) > self._keep:
            old_ms = known.order.popleft()[0]
            if any(old_ms == other for other, _ in known.order):
                continue  # it came again since
            del known.rows[old_ms]
            known.times.remove(old_ms)
            state[f"{ROWS}{entity}/{old_ms}"] = None
        return state

    def _sample(self, known: _Entity, reading: Reading) -> Sample:
        tensors: dict[str, Array] = {}
        size = None
        try:
            for port in self._ports:
                if port.role == _IMAGE:
                    size, tensors[port.name] = _pixels(reading, port)
                else:
                    tensors[port.name] = self._tensor(port, known, reading)
        except Problem as problem:
            fault = f"{problem.code} {problem.what}"
            return Sample(
                tensors=None, time_ms=reading.time_ms, entity=reading.entity, size=size, fault=fault
            )
        return Sample(tensors=tensors, time_ms=reading.time_ms, entity=reading.entity, size=size)

    def _tensor(self, port: Port, known: _Entity, reading: Reading) -> Array:
        kind = _TYPES.get(port.datatype, np.float32)
        if port.role == "entity":
            return encode_entities([reading.entity], self._index)
        if port.role == "time":
            return np.array([reading.time_ms], dtype=np.int64)
        if port.steps:
            return self._window(port, known, reading.time_ms)[None].astype(kind)
        if port.fields:
            row = known.rows.get(reading.time_ms, reading.values)
            return _numbers(row, port.fields)[None].astype(kind)
        # What is left is an age: the count of steps, where the data counts and has no clock.
        age = np.nan if self._has_clock else reading.time_ms / self._step_ms
        return np.array([age], dtype=kind)

    def _window(self, port: Port, known: _Entity, time_ms: int) -> Array:
        ahead = port is not self._windows[0]
        window = np.full((port.steps, len(port.fields)), np.nan, dtype=np.float64)
        for at in range(port.steps):
            back = -(at + 1) if ahead else port.steps - 1 - at
            found = self._near(known, time_ms - back * self._step_ms)
            if back == 0:
                found = time_ms
            if found is not None and found in known.rows:
                window[at] = _numbers(known.rows[found], port.fields)
        return window

    def _near(self, known: _Entity, wanted_ms: int) -> int | None:
        """Return the first row within the tolerance of a moment, as the tasks look it up."""
        at = bisect_left(known.times, wanted_ms - self._off_ms)
        if at < len(known.times) and known.times[at] <= wanted_ms + self._off_ms:
            return known.times[at]
        return None

    def _check(self, port: Port) -> None:
        plain = len(port.shape) == 1
        if port.role in ("entity", "time", _IMAGE) or port.fields:
            return
        if plain and port.role == "feature" and port.datatype in _TYPES:
            return
        raise Problem(
            "G692",
            f"The package takes {port.name!r} ({port.role}), which no reading has.",
            where=port.name,
            why="Readings are numbers with a time and an entity, or images.",
            tries=["genba-edge predict FOLDER --help", "genba explain G692"],
        )


def _insert(known: _Entity, time_ms: int, row: Row, order: int) -> None:
    if time_ms not in known.rows:
        known.times.insert(bisect_left(known.times, time_ms), time_ms)
    known.rows[time_ms] = row
    known.order.append((time_ms, order))


def _beside(
    columns: Mapping[str, Sequence[tuple[int, float]]], name: str, oldest_ms: int, newest_ms: int
) -> float | None:
    """Return what another link says of a column at a moment; never what it says later.

    Example:
        >>> columns = {"plc.speed": [(0, 1.0), (5, 3.0), (9, 8.0)]}
        >>> _beside(columns, "plc.speed", 0, 6), _beside(columns, "plc.speed:mean", 0, 6)
        (3.0, 2.0)
        >>> _beside(columns, "plc.speed", 6, 8) is None
        True
    """
    whole = name not in columns and name.endswith(_MEAN)
    base = name if name in columns else name.removesuffix(_MEAN).removesuffix(_LAST)
    found = [one for one in columns.get(base, ()) if oldest_ms <= one[0] <= newest_ms]
    if not found:
        return None
    if whole:
        return sum(value for _, value in found) / len(found)
    return max(found, key=lambda one: one[0])[1]


def _numbers(row: Row, names: Sequence[str]) -> Array:
    values = (row.get(name) for name in names)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _pixels(reading: Reading, port: Port) -> tuple[tuple[int, int], Array]:
    if reading.image is None:
        raise Problem(
            "G692",
            "The reading has no image.",
            where=reading.id,
            tries=['payload = "image"', "genba explain G692"],
        )
    facts: Any = resolve("decoder", "image-facts")(reading.image)
    pixels: Array = resolve("decoder", _IMAGE)(reading.image, int(port.shape[1]))
    return (facts.width, facts.height), pixels[None]
