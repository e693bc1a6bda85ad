"""A small generated dataset: pumps that never existed, and the line that reads them."""

from pathlib import Path
from typing import Final

import numpy as np

from genba.core import io
from genba.core.line import Budget, Check, Data, Limit, Line, Train
from genba.core.protocols import Array, Tensors

PUMPS: Final = ("north", "south")
_ROWS: Final = 1_500
_STEP_S: Final = 600
_START: Final = np.datetime64("2024-01-01T00:00:00")
_COLUMNS: Final = "time,pump,flow,pressure,temperature,power"
_WORN: Final = np.float32(1.5)  # a gauge that has come loose reads half as much again


def example(folder: Path) -> Line:
    """Write readings of two generated pumps to the folder and return a line that reads them."""
    path = folder / "pumps.csv"
    io.write_durable(path, pump_rows(_ROWS))
    return pump_line(path)


def pump_rows(rows: int, seed: int = 0) -> bytes:
    """Return generated readings of two pumps as CSV, about one value in fifty missing.

    Power follows flow and pressure, with noise; nothing was measured anywhere.

    Args:
        rows: Per pump, one every ten minutes.
        seed: The same seed gives the same bytes.
    """
    chance = np.random.default_rng(seed)
    lines = [_COLUMNS]
    for pump in PUMPS:
        day = np.arange(rows) * _STEP_S / 86_400 * 2 * np.pi
        flow = 10 + 3 * np.sin(day) + chance.normal(0, 0.5, rows)
        pressure = 4 + 0.2 * flow + chance.normal(0, 0.1, rows)
        temperature = 20 + 5 * np.sin(day / 7) + chance.normal(0, 0.5, rows)
        power = 1.5 * flow * pressure + chance.normal(0, 1.0, rows)
        table = np.stack([flow, pressure, temperature, power], axis=1)
        table[chance.random(table.shape) < 0.02] = np.nan
        times = _START + np.arange(rows) * np.timedelta64(_STEP_S, "s")
        for time, values in zip(times, table, strict=True):
            cells = ("" if np.isnan(v) else f"{v:.3f}" for v in values)
            lines.append(f"{time},{pump},{','.join(cells)}")
    return ("\n".join(lines) + "\n").encode()


def pump_line(path: Path) -> Line:
    """Return a line that learns the power of the generated pumps from a CSV file."""
    return Line(
        name="generated-pumps",
        task="sensor.anomaly",
        data=Data(
            source=f"files:{path}",
            time="time",
            entity="pump",
            inputs=("flow", "pressure", "temperature"),
            output="power",
            checks={"flow": Check(min=0, max=100)},
        ),
        train=Train(budget=Budget(minutes=0.5, trials=2)),
        gates={"r2": Limit(min=0.5)},
    )


def disturbed(tensors: Tensors) -> dict[str, Array]:
    """Return windows in which one sensor, the second where there is one, reads too high."""
    window = np.array(tensors["window"], dtype=np.float32)
    window[:, :, min(1, window.shape[2] - 1)] *= _WORN
    return {**tensors, "window": window}
