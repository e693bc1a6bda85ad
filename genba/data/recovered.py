"""Rows of data found again in captured predictions, each moment once.

A package is often given more than one row: a window, a history. `Task.rows` finds them all, so a
moment is stated by many predictions. What counts is the prediction that was about the moment
itself, else the one soonest after it; of equals the newest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from genba.core.problem import Problem
from genba.core.task import Task
from genba.data.roles import ONLY_ENTITY, Roles
from genba.data.served import Packages, Served, served
from genba.store.captures import inputs_kept, read_capture
from genba.store.home import Store
from genba.store.ledger import Record

#: Of the prediction whose own row it is; a name that no sensor can have.
PREDICTION: Final = "_prediction"
_ROWS: Final = 100_000  # that may wait to be compared
#: Numbers given to a task at a time: 32 MiB.
_BLOCK: Final = 1 << 22
_FOUND: Final = {
    PREDICTION: pl.String,
    "entity": pl.String,
    "time": pl.Int64,
    "received_ms": pl.Int64,
    "n": pl.Int64,
    "back": pl.Int64,
}
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What captures held."""

    frame: pl.DataFrame  # sorted by entity and time; null for missing
    captured: int  # predictions
    damaged: int  # capture batches that could not be read
    step: int  # largest between rows, in the unit of time; 0 where there is none
    unkept: int = 0  # predictions whose inputs the line did not keep


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """What a line makes of a row."""

    roles: Roles
    counts: bool  # time is a count such as of cycles, which nobody but the asker can know

    @property
    def schema(self) -> dict[str, type[pl.DataType] | pl.DataType]:
        return {**_FOUND, **dict.fromkeys(self.roles.sensors, pl.Float64)}


def find_rows(
    store: Store, task: Task, roles: Roles, captures: Sequence[Record], *, counts: bool = False
) -> Found:
    """Return every row that captured predictions state, the best statement of each moment.

    Args:
        store: Where the captures are.
        task: Finds rows in what its packages were given.
        roles: What the columns mean.
        captures: Records of captured predictions.
        counts: Whether `time` is a count rather than ms since 1970.
    """
    wanted, packages = _Wanted(roles=roles, counts=counts), Packages(store)
    pile = _Pile(wanted)
    captured = damaged = step = unkept = 0
    for record in captures:
        if inputs_kept(record.body) != "all":
            unkept += int(record.body["rows"])
            continue
        try:
            table = read_capture(store, record, images=False)
        except Problem:
            damaged += 1  # it hides its own rows and no others
            continue
        for part in served(packages, table):
            captured += part.rows.num_rows
            stride = int(part.package.settings.get("step_ms") or 0) if roles.time else 0
            step = max(step, stride)
            for found in _rows(task, part, wanted, (str(record.body["server"]), stride)):
                pile.add(found, step)
    frame = _numbered(pile.settle(step), roles)
    return Found(frame=frame, captured=captured, damaged=damaged, step=step, unkept=unkept)


class _Pile:
    """Rows as they are found; what is stated again and again does not pile up."""

    def __init__(self, wanted: _Wanted) -> None:
        self._parts = [pl.DataFrame(schema=wanted.schema)]
        self._clock = wanted.roles.time is not None
        self._settled = 0

    def add(self, frame: pl.DataFrame, step: int) -> None:
        self._parts.append(settled(frame, step) if self._clock else frame)
        if sum(part.height for part in self._parts) > 2 * self._settled + _ROWS:
            self.settle(step)

    def settle(self, step: int) -> pl.DataFrame:
        whole = pl.concat(self._parts)
        self._parts = [settled(whole, step) if self._clock else whole]
        self._settled = self._parts[0].height
        return self._parts[0]


def _rows(
    task: Task, part: Served, wanted: _Wanted, origin: tuple[str, int]
) -> Iterator[pl.DataFrame]:
    """Yield the rows in what one package was given, a bounded number of predictions at a time."""
    if not part.tensors:
        return  # a package that states no signature
    width = max(int(np.prod(tensor.shape[1:])) for tensor in part.tensors.values())
    size = max(1, _BLOCK // max(width, 1))
    for start in range(0, part.rows.num_rows, size):
        tensors = {name: t[start : start + size] for name, t in part.tensors.items()}
        found = task.rows(tensors, part.package.settings)
        known = {n: found.columns[n] for n in wanted.roles.sensors if n in found.columns}
        if known:
            back = np.asarray(found.steps_back, dtype=np.int64)
            about = _about(part.rows.slice(start, size), wanted, origin)
            frame = about[np.asarray(found.of, dtype=np.int64)].with_columns(
                pl.Series("back", back),
                *(pl.Series(n, np.asarray(c, dtype=np.float64)) for n, c in known.items()),
                *(
                    pl.lit(None, dtype=pl.Float64).alias(n)
                    for n in wanted.roles.sensors
                    if n not in known
                ),
            )
            yield _placed(frame, wanted, origin[1])


def _about(rows: pa.Table, wanted: _Wanted, origin: tuple[str, int]) -> pl.DataFrame:
    frame = pl.DataFrame(rows.select(["n", "received_ms", "entity", "time"]))
    time = pl.col("time") if wanted.counts else pl.col("time").fill_null(pl.col("received_ms"))
    return frame.select(
        pl.format("{}-{}", pl.lit(origin[0]), pl.col("n")).alias(PREDICTION),
        pl.col("entity") if wanted.roles.entity else pl.lit(ONLY_ENTITY).alias("entity"),
        time.alias("time"),
        "received_ms",
        "n",
    )


def _placed(frame: pl.DataFrame, wanted: _Wanted, stride: int) -> pl.DataFrame:
    """Give each row its moment; what has none, or nothing to say, is left out."""
    sensors, own = wanted.roles.sensors, pl.col("back") == 0
    frame = frame.with_columns(pl.col(n).fill_nan(None) for n in sensors)
    says = pl.any_horizontal(pl.col(n).is_not_null() for n in sensors)
    keep = (own | says) if stride else own
    return frame.filter(keep & pl.col("time").is_not_null()).select(
        pl.when(own).then(pl.col(PREDICTION)).alias(PREDICTION),
        "entity",
        (pl.col("time") - pl.col("back") * stride).alias("time"),
        "received_ms",
        "n",
        "back",
        *sensors,
    )


def settled(frame: pl.DataFrame, step: int) -> pl.DataFrame:
    """Return the best statement of each moment, sorted by entity and time.

    A row that was found before a prediction's own lies there to within half a step, so where
    another is as near and better, it is the same row.

    Args:
        frame: Rows with `entity`, `time`, `back`, `received_ms` and `n`.
        step: Between rows, in the unit of time; 0 where it is not known.
    """
    order = frame.sort(
        "entity", "time", "back", "received_ms", "n", descending=[False] * 3 + [True] * 2
    )
    first = order.unique(["entity", "time"], keep="first", maintain_order=True)
    owner, time, back = first["entity"].rle_id(), first["time"].to_numpy(), first["back"].to_numpy()
    if len(time) < 2:
        return first
    same = np.diff(owner.to_numpy().astype(np.int64)) == 0
    near = same & (np.diff(time) <= step // 2)
    worse = np.zeros(len(time), dtype=np.bool_)
    worse[1:] |= near & (back[1:] > 0) & (back[1:] >= back[:-1])
    worse[:-1] |= near & (back[:-1] > back[1:])
    return first.filter(pl.Series(~worse))


def _numbered(frame: pl.DataFrame, roles: Roles) -> pl.DataFrame:
    """Without a clock every prediction is a moment of its own, in the order in which they came."""
    if roles.time is not None:
        return frame
    frame = frame.sort("received_ms", PREDICTION)
    return frame.with_columns(pl.col("received_ms").rank("ordinal").cast(pl.Int64).alias("time"))
