"""Units that never existed, as rows in memory: for the tests of `sensor.remaining_life`."""

from dataclasses import replace
from typing import Any

import numpy as np

from genba.core.line import Data, Line
from genba.learn.rows import RowsView

SENSORS = ("load", "heat", "noise", "still")


def unit_rows(end: int, seed: int, *, cycles: int | None = None) -> dict[str, np.ndarray]:
    """Return a unit that fails after `end` cycles, of which `cycles` are seen."""
    chance = np.random.default_rng(seed)
    count = cycles or end
    age = np.arange(1, count + 1)
    wear = (age / end) ** 2
    load = chance.choice([1.0, 3.0], count)
    return {
        "time": age.astype(np.int64),
        "load": load,
        "heat": 20 + 10 * load + 8 * wear + chance.normal(0, 0.3, count),
        "noise": chance.normal(0, 1, count),
        "still": np.full(count, 4.0),
    }


def life_line(**options: Any) -> Line:
    data = Data(source="files:x", entity="unit", time="cycle", inputs=SENSORS)
    given = {"cap": 30, "window": 8, "lead": 3, **options}
    return Line(name="units", task="sensor.remaining_life", data=data, options=given)


def life_view(
    units: int = 36, *, label: bool = False, clock_ms: int = 0, **options: Any
) -> RowsView:
    """Return units that ran to failure; a third each to train, to calibrate and to test.

    Args:
        units: How many.
        label: Whether a column says when they failed.
        clock_ms: Length of a cycle where the data has a clock instead of a count.
        options: Of the line.
    """
    chance = np.random.default_rng(5)
    parts: list[dict[str, np.ndarray]] = []
    for unit in range(units):
        rows = unit_rows(int(chance.integers(35, 60)), unit)
        count = len(rows["time"])
        split = ("train", "calibrate", "test", "train")[unit % 4]
        said = np.where(np.arange(count) == count - 1, 1.0, 0.0)
        rows["label"] = said if label else np.full(count, np.nan)
        rows["split"] = np.full(count, split)
        rows["entity"] = np.full(count, unit)
        if clock_ms:
            rows["time"] = 1_700_000_000_000 + unit * 86_400_000 + rows["time"] * clock_ms
        parts.append(rows)
    columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    names = tuple(f"u{n}" for n in range(units))
    return RowsView(life_line(**options), columns, names, has_clock=bool(clock_ms))


def with_unit(view: RowsView, rows: dict[str, np.ndarray], split: str, label: Any) -> RowsView:
    """Return the view with one more unit."""
    held = {n: c for n, c in view._columns.items() if n != "row"}
    count = len(rows["time"])
    more = {
        **rows,
        "label": np.asarray(label, dtype=np.float64),
        "split": np.full(count, split),
        "entity": np.full(count, len(view.entities), dtype=np.int32),
    }
    columns = {n: np.concatenate([held[n], more[n]]) for n in held}
    names = (*view.entities, "one more")
    return RowsView(replace(view.line), columns, names, has_clock=view.has_clock)
