"""A small generated dataset: two substations that never existed, and the line that reads them."""

from pathlib import Path
from typing import Final

import numpy as np

from genba.core import io
from genba.core.line import Budget, Data, Limit, Line, Train
from genba.core.protocols import Array, Tensors

STATIONS: Final = ("harbour", "hill")
_ROWS: Final = 1_400  # hours of each
_START: Final = np.datetime64("2024-01-01T00:00:00")
_WORN: Final = np.float32(1.5)  # the world after a drill: half as much again


def example(folder: Path) -> Line:
    """Write the load of two generated substations to the folder and return a line that reads it."""
    path = folder / "load.csv"
    io.write_durable(path, load_rows(_ROWS))
    return Line(
        name="generated-load",
        task="sensor.forecast",
        data=Data(
            source=f"files:{path}",
            time="time",
            entity="station",
            inputs=("temperature",),
            output="load",
            known=("temperature",),
        ),
        options={"horizon": 12, "window": 72},
        train=Train(budget=Budget(minutes=0.5, trials=2)),
        gates={"mase": Limit(max=1.0)},
    )


def load_rows(rows: int, seed: int = 0) -> bytes:
    """Return generated hourly load of two substations as CSV, one value in fifty missing.

    Load follows the hour, the day of the week and the temperature, with noise that lasts; nothing
    was measured anywhere.

    Args:
        rows: Per substation.
        seed: The same seed gives the same bytes.
    """
    chance = np.random.default_rng(seed)
    lines = ["time,station,temperature,load"]
    hours = np.arange(rows)
    for size, station in zip((20.0, 5.0), STATIONS, strict=True):
        temperature = 12 + 8 * np.sin((hours - 9) / 24 * 2 * np.pi) + _lasting(chance, rows, 2.0)
        working = (hours // 24) % 7 < 5
        shape = np.sin((hours - 8) / 24 * 2 * np.pi) + 0.5 * np.sin(hours / 12 * 2 * np.pi)
        load = 1.0 + 0.25 * shape * (1 + working) + 0.02 * np.maximum(0, 15 - temperature)
        load = size * (load + _lasting(chance, rows, 0.03))
        table = np.stack([temperature, load], axis=1)
        table[chance.random(table.shape) < 0.02] = np.nan
        times = _START + hours.astype("timedelta64[h]")
        for time, values in zip(times, table, strict=True):
            cells = ("" if np.isnan(v) else f"{v:.3f}" for v in values)
            lines.append(f"{time},{station},{','.join(cells)}")
    return ("\n".join(lines) + "\n").encode()


def disturbed(tensors: Tensors) -> dict[str, Array]:
    """Return windows in which everything reads half as much again."""
    window = np.array(tensors["window"], dtype=np.float32) * _WORN
    return {**tensors, "window": window}


def _lasting(chance: np.random.Generator, rows: int, size: float) -> Array:
    """Return noise of which nine tenths are still there an hour later."""
    made, last = np.empty(rows), 0.0
    for place, shock in enumerate(chance.normal(0, size, rows)):
        last = 0.9 * last + float(shock)
        made[place] = last
    return made
