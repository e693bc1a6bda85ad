"""The months after the training data, as the live samples they were."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from genba.core.line import Check, Data, Line
from genba.core.protocols import Array, JsonObject
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.data.intake import Intake

#: The farm's own books, which the model never sees: energy lost to downtime or curtailment.
LOSS = "loss_kwh"


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Samples in the order of time, and what the farm's books say of each moment."""

    window: Array  # float32 [N, lags, sensors]
    entity: tuple[str, ...]  # [N]
    time: Array  # int64 [N], ms since 1970 UTC
    loss: Array  # bool [N]: a loss was booked for the farm at this time

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.time)


def load_traffic(line: Line, settings: JsonObject, since: str, until: str) -> Traffic:
    """Read what every turbine reported in a period, sensor faults and all.

    Args:
        line: The line that was trained; its own period and choice of turbines do not count here.
        settings: Settings of its package, which say how rows become samples.
        since: First moment, ISO 8601.
        until: First moment that is not read.
    """
    raw = replace(line.data, since=since, until=until, entities=(), checks={LOSS: Check()})
    task = resolve("task", line.task)()
    parts = [_samples(task, settings, name, rows) for name, rows in _by_entity(raw)]
    order = np.lexsort(
        (np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts]))
    )
    return Traffic(
        window=np.concatenate([p[0] for p in parts])[order],
        entity=tuple(np.concatenate([p[1] for p in parts])[order].tolist()),
        time=np.concatenate([p[2] for p in parts])[order],
        loss=np.concatenate([p[3] for p in parts])[order],
    )


def _by_entity(data: Data) -> Iterator[tuple[str, pl.DataFrame]]:
    kind, _, address = data.source.partition(":")
    source, intake = resolve("source", kind)(address, data), Intake(data)
    frame = pl.concat([intake.take(batch)[0] for batch, _ in source.batches()])
    for code, name in enumerate(intake.entities):
        rows = frame.filter(pl.col("code") == code).unique("time", keep="first").sort("time")
        yield name, rows


def _samples(
    task: Task, settings: JsonObject, name: str, rows: pl.DataFrame
) -> tuple[Array, Array, Array, Array]:
    columns = {
        c: rows[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in settings["sensors"]
    }
    count = len(rows)
    columns |= {
        "entity": np.full(count, -1, dtype=np.int32),
        "time": rows["time"].to_numpy(),
        "row": np.arange(count, dtype=np.int64),
        "label": np.full(count, np.nan),
    }
    samples = task.samples(columns, settings)
    loss = rows[LOSS].fill_null(0.0).to_numpy()[samples.row] > 0
    return samples.tensors["window"], np.full(len(samples.time), name), samples.time, loss
