"""Rows of one entity on an even grid of time, and the windows cut from it.

On a grid a window is a slice, so thousands of them cost no memory until they are used, and a gap
is simply missing values. Rows of all splits are kept together: the window of a test origin looks
back on whatever came before, as it will in service, while what is forecast lies wholly in one
split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Columns, JsonObject, Tensors, View

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Readings = npt.NDArray[np.float32]

SPLITS: Final = ("train", "purged", "calibrate", "test")
_ABSENT: Final = -1
#: Readings of an entity in memory (float32, so 256 MiB); older rows are left out.
MOST_READINGS: Final = 64 << 20
_PRESENT: Final = 0.8  # share of what is forecast that must be there for an origin to count
_KNOWN: Final = 0.5  # and of the window


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Readings of one entity, one row per step."""

    entity: int
    time: Ints  # [G] ms of each step
    values: Readings  # [G, sensors]; NaN where nothing plausible was read
    row: Ints  # [G] row of the dataset, -1 where there is none
    split: npt.NDArray[np.int8]  # [G] index into SPLITS, -1 where there is no row

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.time)


def read(view: View, settings: JsonObject, splits: Sequence[str] = SPLITS) -> Iterator[Series]:
    """Yield the rows of every entity as a series, all splits together in the order of time.

    Args:
        view: The dataset.
        settings: Of the task.
        splits: Which to read.
    """
    names = ("time", "row", "label", *settings["sensors"])
    found: dict[int, list[dict[str, Array]]] = {}
    for code, split in enumerate(SPLITS):
        if split not in splits:
            continue
        for chunk in view.chunks(split):
            if not len(chunk["time"]):
                continue
            part = {name: np.asarray(chunk[name]) for name in names}
            part["split"] = np.full(len(part["time"]), code, dtype=np.int8)
            found.setdefault(int(chunk["entity"][0]), []).append(part)
    for entity in sorted(found):
        parts = found.pop(entity)
        columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        yield on_grid(columns, settings, entity)


def on_grid(columns: Columns, settings: JsonObject, entity: int) -> Series:
    """Place rows on their steps; a row nearest to its step wins, and long gaps are shortened.

    A gap longer than a window and a horizon says nothing to anybody, so it becomes just that long.
    Where a row carries a label, that is the true value of the only output as a person said it.
    """
    time = np.asarray(columns["time"], dtype=np.int64)
    order = np.argsort(time, kind="stable")
    time, step = time[order], int(settings["step_ms"])
    longest = int(settings["lags"]) + int(settings["ahead"])
    jumps = np.rint(np.diff(time) / step).astype(np.int64)
    # Steps are counted from the first row of a stretch, so uneven times do not add up to a step.
    begins = np.concatenate([[True], jumps > longest])
    stretch = np.cumsum(begins) - 1
    anchor = time[begins][stretch]
    inside = np.rint((time - anchor) / step).astype(np.int64)
    last = np.array([inside[stretch == s].max() for s in range(int(stretch[-1]) + 1)])
    starts = np.concatenate([[0], np.cumsum(last + 1 + longest)])[:-1]
    place = starts[stretch] + inside
    count = int(place[-1]) + 1
    off = np.abs(time - anchor - inside * step)
    first = np.lexsort((off, place))
    first = first[np.concatenate([[True], np.diff(place[first]) > 0])]
    at, rows = place[first], order[first]
    values = np.full((count, len(settings["sensors"])), np.nan, dtype=np.float32)
    values[at] = _readings(columns, settings, rows)
    grid = _clock(count, starts, time[begins], step)
    grid[at] = time[first]
    series = Series(
        entity=entity,
        time=grid,
        values=values,
        row=_scattered(count, at, np.asarray(columns["row"])[rows], np.int64),
        split=_scattered(count, at, _split(columns, rows), np.int8),
    )
    return _newest(series)


def origins(series: Series, settings: JsonObject, split: str) -> Ints:
    """Return the steps from which a whole horizon of one split can be forecast and judged.

    Everything that is forecast lies in the split (so no target of one split is seen by another),
    enough of it is there, and so is enough of the window before it.
    """
    lags, ahead = int(settings["lags"]), int(settings["ahead"])
    count = len(series) - ahead
    if count <= 0:
        return np.zeros(0, dtype=np.int64)
    inside: Bools = np.asarray(series.split == SPLITS.index(split))
    outside: Bools = (series.split != _ABSENT) & ~inside
    targets = [list(settings["sensors"]).index(name) for name in settings["outputs"]]
    there: Bools = np.asarray(np.isfinite(series.values[:, targets]).any(axis=1))
    at = np.arange(count)
    after = (at + 1, at + 1 + ahead)
    before = (np.maximum(at - lags + 1, 0), at + 1)
    good = _sum(outside, *after) == 0
    good &= _sum(there & inside, *after) >= _PRESENT * ahead
    good &= _sum(there, *before) >= min(_KNOWN * lags, lags - 1)
    return np.flatnonzero(good)


def tensors(series: Series, at: Ints, settings: JsonObject) -> Tensors:
    """Return the inputs of a package at some steps; what does not exist is missing (NaN).

    Args:
        series: Of one entity.
        at: Steps (origins) whose newest row is the last of the window.
        settings: Of the task.
    """
    lags, ahead = int(settings["lags"]), int(settings["ahead"])
    sensors = list(settings["sensors"])
    made: dict[str, Array] = {
        "window": windows(series.values, at - lags + 1, lags),
        "time": series.time[at],
        "entity": np.full(len(at), series.entity, dtype=np.int64),
    }
    known = [sensors.index(name) for name in settings["known"]]
    if known:
        made["future"] = windows(series.values[:, known], at + 1, ahead)
    return made


def truth(series: Series, at: Ints, settings: JsonObject) -> Readings:
    """Return what came after each origin [N, ahead, outputs]; NaN where nothing was read."""
    sensors = list(settings["sensors"])
    targets = [sensors.index(name) for name in settings["outputs"]]
    return windows(series.values[:, targets], at + 1, int(settings["ahead"]))


def windows(values: Readings, start: Ints, length: int) -> Readings:
    """Return `length` rows from each start [N, length, columns], NaN beyond both ends.

    Example:
        >>> windows(np.array([[1.0], [2.0]], dtype=np.float32), np.array([-1, 1]), 2)[:, :, 0]
        array([[nan,  1.],
               [ 2., nan]], dtype=float32)
    """
    edge = np.full((length, values.shape[1]), np.nan, dtype=np.float32)
    padded = np.concatenate([edge, values, edge])
    cut = np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)
    found = cut[np.clip(start + length, 0, len(cut) - 1)]
    return np.ascontiguousarray(found.transpose(0, 2, 1))


def _readings(columns: Columns, settings: JsonObject, rows: Ints) -> Readings:
    found = np.stack(
        [np.asarray(columns[s], dtype=np.float64)[rows] for s in settings["sensors"]], axis=1
    )
    outputs = list(settings["outputs"])
    if len(outputs) == 1:
        said = np.asarray(columns["label"], dtype=np.float64)[rows]
        place = list(settings["sensors"]).index(outputs[0])
        found[:, place] = np.where(np.isfinite(said), said, found[:, place])
    low, high = limits(settings)
    return np.where((found >= low) & (found <= high), found, np.nan).astype(np.float32)


def limits(settings: JsonObject) -> tuple[Readings, Readings]:
    """Return the lowest and highest plausible reading of each sensor; beyond them it is missing."""
    largest = float(settings["largest"])
    low = [-largest if v is None else v for v in settings["low"]]
    high = [largest if v is None else v for v in settings["high"]]
    return np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)


def _split(columns: Columns, rows: Ints) -> npt.NDArray[np.int8]:
    if "split" not in columns:
        return np.zeros(len(rows), dtype=np.int8)
    return np.asarray(columns["split"])[rows].astype(np.int8)


def _clock(count: int, starts: Ints, begins: Ints, step: int) -> Ints:
    """Return the time of every step, also of those without a row."""
    place = np.arange(count)
    owner = np.searchsorted(starts, place, side="right") - 1
    return np.asarray(begins[owner] + (place - starts[owner]) * step, dtype=np.int64)


def _scattered(count: int, at: Ints, values: Array, kind: Any) -> Array:
    made: Array = np.full(count, _ABSENT, dtype=kind)
    made[at] = values
    return made


def _newest(series: Series) -> Series:
    """Return the newest rows that fit into memory."""
    keep = max(1, MOST_READINGS // max(1, series.values.shape[1]))
    if len(series) <= keep:
        return series
    return Series(
        entity=series.entity,
        **{name: getattr(series, name)[-keep:] for name in ("time", "values", "row", "split")},
    )


def _sum(flags: Bools, start: Ints, stop: Ints) -> Ints:
    total = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(total[stop] - total[start], dtype=np.int64)
