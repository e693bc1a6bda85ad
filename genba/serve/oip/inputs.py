"""What a package is asked, whatever protocol it came by, once it has passed every check."""

import math
import time
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.core.values import Tensor
from genba.serve.oip.images import Picture
from genba.serve.oip.schema import Schema, Wanted
from genba.serve.oip.tensors import bad

_LATEST_MS: Final = 10**14  # the year 5138: larger numbers are not milliseconds
#: May be sent to every package and are kept with the prediction.
ALWAYS: Final = {
    "time": Tensor(name="time", datatype="INT64", shape=(-1,), role="time"),
    "entity": Tensor(name="entity", datatype="BYTES", shape=(-1,), role="entity"),
}


class Inputs:
    """A request that has passed every check."""

    __slots__ = (
        "entity_names", "pictures", "rows", "said", "speech", "tensors", "time", "timeout_s",
        "urgent", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        tensors: dict[str, Array],
        rows: int,
        *,
        entity_names: Sequence[str] | None,
        time: Array | None,
        wanted: Wanted,
        pictures: Sequence[Picture] = (),
    ) -> None:
        self.tensors = tensors  # without parameters that were not sent
        self.rows = rows
        self.entity_names = entity_names  # as sent, when they were sent as text
        self.time = time
        self.wanted = wanted
        self.pictures = pictures  # of a package that takes images, one per row
        self.speech: Any = None  # what is wanted of a language model, see `lanes.speech`
        self.said = False  # whether the request itself says one of these:
        self.timeout_s = math.inf  # from the request on; afterwards nobody wants the answer
        self.urgent = True


class Bounds:
    """How much one request may hold, and which sizes pixels may have."""

    __slots__ = ("rows", "sizes")

    def __init__(self, rows: int, sizes: Collection[int] = ()) -> None:
        self.rows = rows
        self.sizes = sizes  # besides that of the package: those of the line's other packages


def checked(given: dict[str, Any], schema: Schema, bounds: Bounds, wanted: Wanted) -> Inputs:
    """Hold what was sent against what the package takes, and fill in what may be left out.

    Args:
        given: By name: arrays, and for images one picture per row. Changed in place.
        schema: What the package takes.
        bounds: Most rows that one request may have.
        wanted: Which outputs are asked for.

    Raises:
        Refusal: 400 with one sentence that says what is wrong.
    """
    for role, own in (("time", schema.time), ("entity", schema.entity)):
        if own is not None and role in given and role not in schema.inputs:
            given.setdefault(own, given.pop(role))  # every package understands the plain name
    rows = -1
    for name in schema.features:
        if name not in given:
            raise bad(f"Input {name!r} is missing.")
        if rows == -1:
            rows = len(given[name])
    for name, array in given.items():
        if len(array) != rows and not (len(array) == 1 and name in schema.parameters):
            raise bad(f"Input {name!r} has {len(array)} rows, others have {rows}.")
    if not 1 <= rows <= bounds.rows:
        raise bad(f"The request has {rows} rows; from 1 to {bounds.rows} are taken at a time.")
    pictures = given.pop(schema.image) if schema.image else ()
    time_ms = _time(given, schema, rows)
    names = _entities(given, schema, rows)
    _parameters(given, schema, rows)
    return Inputs(
        given, rows, entity_names=names, time=time_ms, wanted=wanted, pictures=tuple(pictures)
    )


def _time(given: dict[str, Any], schema: Schema, rows: int) -> Array | None:
    """Return the times of the rows; a package that needs them gets now where none were sent."""
    sent: Array | None = given.get(schema.time or "time")
    if sent is not None and not ((sent >= 0) & (sent < _LATEST_MS)).all():
        raise bad(f"Input {schema.time or 'time'!r} must be milliseconds since 1970.")
    if schema.time is None:
        given.pop("time", None)
        return sent
    if sent is None:
        sent = np.full(rows, time.time_ns() // 1_000_000, dtype=np.int64)
        given[schema.time] = sent
    return sent


def _parameters(given: dict[str, Any], schema: Schema, rows: int) -> None:
    for name in schema.parameters:
        if name not in given:
            continue
        if not np.isfinite(given[name]).all():
            raise bad(f"The parameter {name!r} must be a finite number.")
        if len(given[name]) != rows:
            given[name] = np.repeat(given[name], rows)


def _entities(given: dict[str, Any], schema: Schema, rows: int) -> Sequence[str] | None:
    """Turn entity names into indices; who sends none gets -1, the unknown entity."""
    name = schema.entity or "entity"
    sent: Array | None = given.get(name)
    if sent is None:
        if schema.entity is not None:
            given[name] = np.full(rows, -1, dtype=np.int64)
        return None
    if sent.dtype != object:
        given[name] = np.where((sent >= 0) & (sent < len(schema.entities)), sent, -1)
        return None
    try:
        names = [value.decode() for value in sent.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise bad(f"Input {name!r} is not UTF-8 text.") from error
    if schema.entity is None:
        del given[name]  # the graph does not need it; it is kept with the prediction
    else:
        given[name] = schema.indices(names)
    return names
