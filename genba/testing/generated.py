"""Small generated datasets for checks: pumps that never existed, and the line that reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from genba.core.line import Budget, Check, Data, Limit, Line, Train
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.ingest import ingest
from genba.data.view import DatasetView
from genba.store import io
from genba.store.home import Store

PUMPS: Final = ("north", "south")
_STEP_S: Final = 600
_START: Final = np.datetime64("2024-01-01T00:00:00")
_COLUMNS: Final = "time,pump,flow,pressure,temperature,power"


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


LINES: Final = {"sensor.anomaly": pump_line}


@contextmanager
def generated_view(task: str, rows: int = 1_500) -> Iterator[tuple[Store, DatasetView]]:
    """Make a store in a temporary directory with a small dataset for a task.

    Args:
        task: Name of the task.
        rows: Per entity, of what Genba generates.

    Raises:
        Problem: G610 when Genba has no generated data for this task and it brings none of its own.
    """
    with TemporaryDirectory(prefix="genba-check-") as folder:
        line = _line(task, Path(folder), rows)
        with Store.open(Path(folder) / "home") as store:
            yield store, ingest_line(line, store)


def _line(task: str, folder: Path, rows: int) -> Line:
    """Return a line whose data are in the folder: the task's own example, or what is generated."""
    example = getattr(resolve("task", task), "example", None)
    if example is not None:
        line: Line = example(folder)
        return line
    if task not in LINES:
        raise Problem(
            "G610",
            f"There is no generated dataset for the task {task}.",
            why=f"It has no method `example`, and Genba has data for: {', '.join(LINES)}.",
            tries=["genba explain G610"],
        )
    path = folder / "generated.csv"
    io.write_durable(path, pump_rows(rows))
    return LINES[task](path)


def ingest_line(line: Line, store: Store) -> DatasetView:
    """Read the source of a line into a store and return the view of the dataset."""
    scheme, _, address = line.data.source.partition(":")
    version = ingest(resolve("source", scheme)(address, line.data), line, store)
    return DatasetView(store, version, line)
