"""One joined source, sorted by time on disk, in pieces that each answer for their stretch of time.

Every piece begins with a row per machine that carries what was known before it: the newest value
of each column, when it was read, and the running sum and count. So a look-up needs one piece in
memory, however long the tolerance is; a mean is the difference of two look-ups.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.ipc

from genba.data.spill import Spill

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEVER: Final = -(2**62)
_HELD: Final = 2  # pieces in memory
_LARGEST: Final = 2**62


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was known at some moments; [n] and [n, columns]."""

    row: Ints  # time of the newest row of the machine, NEVER where there was none
    value: Floats  # newest value of each column
    seen: Ints  # when it was read, NEVER where there was none
    sum: Floats  # of all values so far, each less `middle` of its column
    count: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Rows of a piece, sorted by machine and time, with what is known at each."""

    code: Ints
    time: Ints
    value: Floats
    seen: Ints
    sum: Floats
    count: Floats


class Pieces:
    """Builds the pieces of a source and looks moments up in them.

    Args:
        folder: Where the pieces are written.
        columns: Of the source, in order.
    """

    def __init__(self, folder: Path, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.rows = 0
        self.duplicates = 0  # rows of a moment that was there already
        self.different = 0  # of them, those that said something else
        self.step_ms: int | None = None
        self.first: int | None = None
        self.last: Ints = np.empty(0, dtype=np.int64)  # newest row of each machine
        self.middle: Floats = np.zeros(len(columns))
        self._folder = folder
        self._firsts: list[int] = []
        self._held: OrderedDict[int, Known] = OrderedDict()

    def build(self, spill: Spill, machines: int, rows: int) -> None:
        """Write the pieces from rows with `time`, `code`, `row` and the columns."""
        carry = _nothing(machines, len(self.columns))
        self.last = np.full(machines, NEVER, dtype=np.int64)
        for frame in spill.pieces(rows=rows):
            piece = self._without_repeated(frame.sort("code", "time", "row"))
            values = piece.select(pl.col(self.columns).fill_null(float("nan"))).to_numpy()
            code, time = piece["code"].cast(pl.Int64).to_numpy(), piece["time"].to_numpy()
            if not self._firsts:
                self._look(values, code, time)
            known = _with_carry(carry, code, time, values - self.middle, values)
            self._firsts.append(int(time.min()))
            self.first = self._firsts[0]
            self._write(len(self._firsts) - 1, known)
            carry = _last_of(known)
            self.rows += len(time)
            np.maximum.at(self.last, code, time)

    def find(self, code: Ints, time: Ints) -> Found:
        """Return what was known of each machine at each moment; a code of -1 is known nowhere."""
        found = _unknown(len(time), len(self.columns))
        place = np.searchsorted(np.array(self._firsts, dtype=np.int64), time, side="right") - 1
        for piece in np.unique(place[place >= 0]):
            asked = np.flatnonzero((place == piece) & (code >= 0))
            known = self._read(int(piece))
            at = _rows_at(known, code[asked], time[asked])
            hit = at >= 0
            to, source = asked[hit], at[hit]
            found.row[to] = known.time[source]
            for name in ("value", "seen", "sum", "count"):
                getattr(found, name)[to] = getattr(known, name)[source]
        return found

    def _look(self, values: Floats, code: Ints, time: Ints) -> None:
        """Find, in the first piece, the usual step between rows and a value of each column."""
        steps = np.diff(time)[np.diff(code) == 0]
        self.step_ms = int(np.median(steps)) if len(steps) else None
        # The oldest value: sums stay small, and rows that are added later do not change it.
        oldest = np.argsort(time, kind="stable")
        finite = np.isfinite(values)[oldest]
        at = oldest[finite.argmax(axis=0)]
        self.middle = np.where(finite.any(axis=0), values[at, np.arange(values.shape[1])], 0.0)

    def _without_repeated(self, piece: pl.DataFrame) -> pl.DataFrame:
        """Keep the first row of a moment, as for the rows of the line itself."""
        code, time = piece["code"].to_numpy(), piece["time"].to_numpy()
        again = np.r_[False, (code[1:] == code[:-1]) & (time[1:] == time[:-1])]
        if not again.any():
            return piece
        at = np.flatnonzero(again)
        first = np.maximum.accumulate(np.where(again, 0, np.arange(len(again))))[at]
        same = pl.all_horizontal(
            piece[at][name].eq_missing(piece[first][name]) for name in self.columns
        )
        self.duplicates += len(at)
        self.different += len(at) - int(pl.select(same.sum()).item())
        return piece.filter(pl.Series(~again))

    def _write(self, number: int, known: Known) -> None:
        table = pa.table(
            {
                "code": known.code,
                "time": known.time,
                **{
                    f"{name}{i}": getattr(known, name)[:, i]
                    for name in ("value", "seen", "sum", "count")
                    for i in range(len(self.columns))
                },
            }
        )
        path = str(self._folder / f"{number}.arrow")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    def _read(self, number: int) -> Known:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        with pa.OSFile(str(self._folder / f"{number}.arrow"), "rb") as file:
            frame = pl.DataFrame(pa.ipc.open_file(file).read_all())
        wide: dict[str, Any] = {
            name: np.stack([frame[f"{name}{i}"].to_numpy() for i in range(len(self.columns))], 1)
            for name in ("value", "seen", "sum", "count")
        }
        known = Known(code=frame["code"].to_numpy(), time=frame["time"].to_numpy(), **wide)
        self._held[number] = known
        if len(self._held) > _HELD:
            self._held.popitem(last=False)
        return known


def _nothing(machines: int, columns: int) -> Known:
    shape = (machines, columns)
    return Known(
        code=np.arange(machines, dtype=np.int64),
        time=np.full(machines, NEVER, dtype=np.int64),
        value=np.full(shape, np.nan),
        seen=np.full(shape, NEVER, dtype=np.int64),
        sum=np.zeros(shape),
        count=np.zeros(shape),
    )


def _unknown(rows: int, columns: int) -> Found:
    empty = _nothing(rows, columns)
    return Found(
        row=empty.time, value=empty.value, seen=empty.seen, sum=empty.sum, count=empty.count
    )


def _with_carry(carry: Known, code: Ints, time: Ints, away: Floats, values: Floats) -> Known:
    """Put what was known before in front of each machine's rows, and carry it on through them."""
    order = np.lexsort((np.r_[np.full(len(carry.code), NEVER), time], np.r_[carry.code, code]))
    begins = order < len(carry.code)
    valid = np.isfinite(values)
    seen = np.where(valid, time[:, None], NEVER)
    joined = Known(
        code=np.r_[carry.code, code][order],
        time=np.r_[carry.time, time][order],
        value=np.r_[carry.value, values][order],
        seen=np.r_[carry.seen, seen][order],
        sum=np.r_[carry.sum, np.where(valid, away, 0.0)][order],
        count=np.r_[carry.count, valid.astype(np.float64)][order],
    )
    fresh = (joined.seen > NEVER) | begins[:, None]
    newest = np.maximum.accumulate(np.where(fresh, np.arange(len(order))[:, None], -1), axis=0)
    sections = np.flatnonzero(begins)
    return Known(
        code=joined.code,
        time=joined.time,
        value=np.take_along_axis(joined.value, newest, axis=0),
        seen=np.take_along_axis(joined.seen, newest, axis=0),
        sum=_running(joined.sum, sections),
        count=_running(joined.count, sections),
    )


def _running(values: Floats, sections: Ints) -> Floats:
    """Return the running sum of each section on its own."""
    whole = np.empty_like(values)
    for begin, end in zip(sections, [*sections[1:], len(values)], strict=True):
        np.cumsum(values[begin:end], axis=0, out=whole[begin:end])
    return whole


def _last_of(known: Known) -> Known:
    last = np.flatnonzero(np.r_[known.code[1:] != known.code[:-1], True])
    return Known(**{name: getattr(known, name)[last] for name in Known.__slots__})


def _rows_at(known: Known, code: Ints, time: Ints) -> Ints:
    """Return the newest row of each machine that is not newer than the moment, -1 if there is none.

    Machine and time make one number, so that one binary search finds them all.
    """
    real = known.time > NEVER
    low = int(known.time[real].min()) - 1 if real.any() else 0
    high = int(known.time.max()) + 1
    span = high - low + 1
    if (int(known.code[-1]) + 2) * span > _LARGEST:  # a clock thousands of years off, many machines
        return _rows_one_by_one(known, code, time)

    def key(of: Ints, at: Ints) -> Ints:
        return of * span + (np.clip(at, low, high) - low)

    at = np.searchsorted(key(known.code, known.time), key(code, time), side="right") - 1
    found = np.where(at >= 0, at, 0)
    right = (at >= 0) & (known.code[found] == code) & (known.time[found] > NEVER)
    return np.where(right & (known.time[found] <= time), at, -1)


def _rows_one_by_one(known: Known, code: Ints, time: Ints) -> Ints:
    """Find the same machine by machine, where machine and time do not fit into one number."""
    at = np.full(len(code), -1, dtype=np.int64)
    for machine in np.unique(code):
        first, end = np.searchsorted(known.code, [machine, machine + 1])
        asked = np.flatnonzero(code == machine)
        place = first + np.searchsorted(known.time[first:end], time[asked], side="right") - 1
        good = (place >= first) & (known.time[np.maximum(place, 0)] > NEVER)
        at[asked] = np.where(good, place, -1)
    return at
