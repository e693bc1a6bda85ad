"""Finding the prediction that somebody talks about, newest captures first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from genba.core.problem import Problem
from genba.data.served import Package, Packages, answers
from genba.edge.images import inspect
from genba.store.captures import OK, SCHEMA, read_capture, record_of
from genba.store.home import Store
from genba.store.ledger import Record

#: Capture batches opened in search of an entity at a moment; the ids of older ones still work.
MAX_OPENED: Final = 10_000
_BLOCK: Final = 5_000  # events looked through at a time

Moment = tuple[str | None, int]  # entity, ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A prediction as it was captured."""

    prediction: str
    entity: str | None
    time_ms: int | None
    received_ms: int
    package: str
    role: str
    settings: Mapping[str, Any]  # of the package
    outputs: Mapping[str, Any]  # by name; empty where there is no good answer
    size: tuple[int, int] | None = None  # width and height of its image in pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search came to, by what was asked for."""

    by_id: Mapping[str, Seen]
    by_moment: Mapping[Moment, Seen]


def captures(store: Store, line: str) -> Iterator[Record]:
    """Yield the capture records of a line, newest first, without holding them all."""
    end, _ = store.ledger.head()
    while end > 0:
        start = max(0, end - _BLOCK)
        events = store.ledger.events(
            after=start, line=line, kinds=("capture.created",), limit=_BLOCK
        )
        yield from (record_of(e) for e in reversed(events) if e.seq <= end)
        end = start


def find_seen(
    store: Store,
    line: str,
    ids: Sequence[str],
    moments: Sequence[Moment],
    *,
    images: bool = False,
) -> Found:
    """Find predictions by id, or by entity and time.

    A time may be off by half a sampling step. Where several predictions match, the newest that was
    answered counts, then a shadow's.

    Args:
        store: Where to look.
        line: Name of the line.
        ids: Prediction ids, `<server>-<n>`.
        moments: Entities (None where the line has none) and times in ms.
        images: Whether the sizes of images are wanted.
    """
    slack_ms = step_ms(store, line) // 2 if moments else 0
    search = _Search(ids, moments, slack_ms, Packages(store))
    for record in captures(store, line):
        if not search.open:
            break
        if search.may_be_in(record.body):
            try:
                unread = search.inputs(record.body)
                table = read_capture(store, record, images=images, but=unread)
                search.look(record.body, table)
            except Problem:
                continue  # a damaged batch hides its own predictions and no others
    return Found(by_id=search.by_id, by_moment=search.by_moment)


def step_ms(store: Store, line: str) -> int:
    """Return the sampling step of the line's newest package that states one, else 0."""
    for record in store.ledger.find("package", line=line, limit=1):
        settings = record.body.get("settings") or {}
        return int(settings.get("step_ms") or 0)
    return 0


class _Search:
    """What is still wanted, and what was found."""

    def __init__(
        self, ids: Sequence[str], moments: Sequence[Moment], slack_ms: int, packages: Packages
    ) -> None:
        self.by_id: dict[str, Seen] = {}
        self.by_moment: dict[Moment, Seen] = {}
        self._ids = {key: number for key in ids if (number := _split(key))}
        self._moments: dict[str | None, set[int]] = {}
        for entity, time_ms in moments:
            self._moments.setdefault(entity, set()).add(time_ms)
        self._slack_ms = slack_ms
        self._packages = packages
        self._opened = 0

    @property
    def open(self) -> bool:
        return bool(self._ids) or self._searching

    @property
    def _searching(self) -> bool:
        return bool(self._moments) and self._opened < MAX_OPENED

    def may_be_in(self, body: Mapping[str, Any]) -> bool:
        if not body.get("rows"):
            return False
        return self._searching or bool(self._wanted(body))

    def _wanted(self, body: Mapping[str, Any]) -> list[tuple[str, int]]:
        server, first, last = body["server"], body["first"], body["last"]
        return [(key, n) for key, (s, n) in self._ids.items() if s == server and first <= n <= last]

    def inputs(self, body: Mapping[str, Any]) -> set[str]:
        """Return the columns of what the packages of a capture were given, but for images."""
        packages = map(self._packages.get, body.get("packages") or {})
        inputs = (pair for package in packages for pair in package.inputs.items())
        return {name for name, tensor in inputs if tensor.get("role") != "image"} - set(
            SCHEMA.names
        )

    def look(self, body: Mapping[str, Any], table: pa.Table) -> None:
        self._opened += 1
        numbers = table["n"].to_numpy()
        for key, n in self._wanted(body):
            for row in np.flatnonzero(numbers == n).tolist():
                self._keep(self.by_id, key, self._seen(table, row, body))
            if key in self.by_id and self.by_id[key].role != "shadow":
                del self._ids[key]
        if self._moments:
            self._look_for_moments(body, table)

    def _look_for_moments(self, body: Mapping[str, Any], table: pa.Table) -> None:
        entities = np.array(table["entity"].to_pylist(), dtype=object)
        times = table["time"].to_numpy(zero_copy_only=False).astype(np.float64)
        for entity in set(entities.tolist()) & self._moments.keys():
            rows = np.flatnonzero(entities == entity)
            wanted = np.array(sorted(self._moments[entity]), dtype=np.float64)
            low = np.searchsorted(wanted, times[rows] - self._slack_ms, side="left")
            high = np.searchsorted(wanted, times[rows] + self._slack_ms, side="right")
            for k in np.flatnonzero(high > low)[::-1].tolist():  # the newest row first
                one = self._seen(table, int(rows[k]), body)
                for time_ms in wanted[low[k] : high[k]]:
                    self._keep_moment((entity, int(time_ms)), one)

    def _seen(self, table: pa.Table, row: int, body: Mapping[str, Any]) -> Seen:
        return seen(table, row, str(body["server"]), self._packages)

    def _keep_moment(self, moment: Moment, one: Seen) -> None:
        before = self.by_moment.get(moment)
        if before is None or _off(one, moment) < _off(before, moment):
            self.by_moment[moment] = one
        else:
            self._keep(self.by_moment, moment, one)
        best = self.by_moment[moment]
        if best.time_ms == moment[1] and best.role != "shadow":
            self._moments[moment[0]].discard(moment[1])
            if not self._moments[moment[0]]:
                del self._moments[moment[0]]

    @staticmethod
    def _keep(found: dict[Any, Seen], key: Any, one: Seen) -> None:
        before = found.get(key)
        if before is None or (before.role == "shadow" and one.role != "shadow"):
            found[key] = one


def _off(one: Seen, moment: Moment) -> int:
    return abs((one.time_ms or 0) - moment[1])


def _split(key: str) -> tuple[str, int] | None:
    server, _, number = key.rpartition("-")
    return (server, int(number)) if number.isascii() and number.isdigit() else None


def seen(table: pa.Table, row: int, server: str, packages: Packages) -> Seen:
    """Return one row of a capture table."""
    package = packages.get(table["package"][row].as_py())
    answered = table["status"][row].as_py() == OK
    return Seen(
        prediction=f"{server}-{table['n'][row].as_py()}",
        entity=table["entity"][row].as_py(),
        time_ms=table["time"][row].as_py(),
        received_ms=table["received_ms"][row].as_py(),
        package=package.id,
        role=table["role"][row].as_py(),
        settings=package.settings,
        outputs=answers(table, row, package) if answered else {},
        size=_size(table, row, package),
    )


def _size(table: pa.Table, row: int, package: Package) -> tuple[int, int] | None:
    """Return the width and height of the image that was sent, as people see it."""
    names = [name for name, t in package.inputs.items() if t.get("role") == "image"]
    images = (value(table, name, row) for name in names)
    for image in images:
        if isinstance(image, bytes):
            try:
                facts = inspect(image)
            except Problem:
                return None
            return facts.width, facts.height
    return None


def value(table: pa.Table, name: str, row: int) -> Any:
    """Return one cell, None where the column or the value is missing."""
    return table[name][row].as_py() if name in table.column_names else None
