"""Small generated datasets for checks: pumps that never existed, and the line that reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from genba.core import io
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.sources import source_of
from genba.data.view import DatasetView
from genba.runs.progress import SilentProgress
from genba.store.home import Store
from genba.tasks.sensor.anomaly.example import PUMPS, pump_line, pump_rows

__all__ = ["PUMPS", "generated_view", "ingest_line", "pump_line", "pump_rows"]


@contextmanager
def generated_view(task: str, rows: int | None = None) -> Iterator[tuple[Store, DatasetView]]:
    """Make a store in a temporary directory with a small dataset for a task: its own example.

    Args:
        task: Name of the task.
        rows: Take so many rows of each of two generated pumps instead of the example.

    Raises:
        Problem: G610 when the task brings no example.
    """
    with TemporaryDirectory(prefix="genba-check-") as folder:
        line = _example(task, Path(folder)) if rows is None else _pumps(task, Path(folder), rows)
        with Store.open(Path(folder) / "home") as store:
            yield store, ingest_line(line, store)


def _example(task: str, folder: Path) -> Line:
    """Return a line whose data are in the folder, as the task wrote them."""
    example = getattr(resolve("task", task), "example", None)
    line: Line | None = example(folder) if example is not None else None
    if line is None:  # the protocol's own, which a subclass has not replaced
        raise Problem(
            "G610",
            f"There is no generated dataset for the task {task}.",
            why="It has no method `example` that writes one.",
            tries=["genba explain G610"],
        )
    return line


def _pumps(task: str, folder: Path, rows: int) -> Line:
    path = folder / "generated.csv"
    io.write_durable(path, pump_rows(rows))
    return replace(pump_line(path), task=task)


def ingest_line(line: Line, store: Store) -> DatasetView:
    """Read the source of a line into a store and return the view of the dataset."""
    task = resolve("task", line.task)
    version = resolve("modality", task.modality).ingest(
        source_of(line), line, store, SilentProgress(), parent=None, split_by=task.split_by
    )
    return DatasetView(store, version, line)
