"""A small generated dataset in the layout run-to-failure sets usually have, and its line."""

from pathlib import Path
from typing import Final

import numpy as np

from genba.core import io
from genba.core.line import Budget, Data, Limit, Line, Split, Train
from genba.core.protocols import Array, Tensors

UNITS: Final = 45
SENSORS: Final = 5
_SHORTEST: Final = 40  # cycles
_LONGEST: Final = 90
_OFF: Final = np.float32(1.3)  # a gauge that has come loose reads a third too much


def example(folder: Path) -> Line:
    """Write generated histories to the folder and return a line that reads them."""
    path = folder / "train.txt"
    io.write_durable(path, histories(UNITS))
    return Line(
        name="generated-units",
        task="sensor.remaining_life",
        data=Data(
            source=f"files:{path}",
            entity="column_1",
            time="column_2",
            inputs=tuple(f"column_{i}" for i in range(3, 5 + SENSORS)),
            split=Split(by="entity", test=0.25, calibrate=0.25),
        ),
        options={"cap": 40, "window": 15, "lead": 3},
        train=Train(budget=Budget(minutes=0.5, trials=2)),
        gates={"rmse": Limit(max=12.0), "coverage": Limit(min=0.8)},
    )


def histories(units: int, seed: int = 0) -> bytes:
    """Return generated histories as text without a header: unit, cycle, two settings, sensors.

    Each unit wears from 0 to 1 along a power of its age, at one of two settings; sensors follow
    setting and wear with noise, one in a hundred readings is missing ("NaN"), the last sensor says
    nothing. Cells are parted by one or two blanks, lines end in two. Nothing was measured.

    Args:
        units: That run to failure.
        seed: The same seed gives the same bytes.
    """
    chance = np.random.default_rng(seed)
    lines = []
    for unit in range(1, units + 1):
        end = int(chance.integers(_SHORTEST, _LONGEST))
        wear = (np.arange(1, end + 1) / end) ** chance.uniform(1.5, 3.0)
        heavy = chance.random(end) < 0.5
        setting = np.where(heavy, 42.0, 20.0) + chance.normal(0, 0.002, end)
        base = np.array([520.0, 640.0, 1_580.0, 47.0, 100.0])
        slope = np.array([6.0, -9.0, 25.0, 1.5, 0.0])
        table = base + np.outer(wear, slope) + np.outer(heavy, base * 0.1)
        table += chance.normal(0, 0.08, table.shape) * np.maximum(np.abs(slope), 1e-9)
        table[chance.random(table.shape) < 0.01] = np.nan
        for cycle in range(end):
            cells = [f"{setting[cycle]:.4f}", f"{0.84 * heavy[cycle]:.2f}"]
            cells += ["NaN" if np.isnan(v) else f"{v:.2f}" for v in table[cycle]]
            lines.append(f"{unit} {cycle + 1}  {' '.join(cells)}  ")
    return ("\n".join(lines) + "\n").encode()


def disturbed(tensors: Tensors) -> dict[str, Array]:
    """Return windows in which every sensor reads too high, as after a change of gauges."""
    window = np.array(tensors["window"], dtype=np.float32)
    window *= _OFF
    return {**tensors, "window": window}
