"""Generated series for the tests of forecasts."""

from typing import Any
from unittest.mock import patch

import numpy as np

from genba.core.line import Data, Line, Train
from genba.learn.rows import RowsView
from genba.runs.effort import Effort
from genba.tasks.sensor.forecast import SensorForecast, fit

_SPACE = fit.space
HOUR = 3_600_000
START = 1_704_067_200_000  # Monday, 1 January 2024


def split_of(count: int, train: float = 0.6, calibrate: float = 0.8) -> np.ndarray:
    at = np.arange(count) / count
    return np.select([at < train, at < calibrate], ["train", "calibrate"], "test")


def view(
    *,
    rows: int = 1_000,
    entities: int = 1,
    outputs: int = 1,
    seed: int = 0,
    missing: float = 0.0,
    known: bool = True,
    beside: bool = False,
    options: dict[str, Any] | None = None,
    candidates: tuple[str, ...] = (),
    **data: Any,
) -> RowsView:
    """Return hourly rows: a day's wave, a working week, a response to temperature, noise."""
    chance = np.random.default_rng(seed)
    hours = np.arange(rows)
    columns: dict[str, list[np.ndarray]] = {}
    for entity in range(entities):
        warm = (
            12 + 8 * np.sin((hours - 9) / 24 * 2 * np.pi) + chance.normal(0, 1, rows).cumsum() / 9
        )
        made = {
            "entity": np.full(rows, entity),
            "time": START + hours * HOUR,
            "label": np.full(rows, np.nan),
            "split": split_of(rows),
            "warm": warm,
            "work": ((hours // 24) % 7 < 5).astype(float),
            "wind": chance.normal(0, 1, rows),
        }
        for output in range(outputs):
            wave = np.sin((hours - 8 - output) / 24 * 2 * np.pi)
            y = 10 + 3 * wave * (1 + made["work"]) + 0.2 * np.maximum(0, 15 - warm)
            y = (1 + entity) * (y + chance.normal(0, 0.3, rows))
            y[chance.random(rows) < missing] = np.nan
            made[f"y{output}"] = y
        for name, column in made.items():
            columns.setdefault(name, []).append(column)
    inputs = (*(("warm", "work") if known else ()), *(("wind",) if beside else ()))
    single = outputs == 1
    if not single:
        inputs = (*inputs, *(f"y{o}" for o in range(outputs)))
    line = Line(
        name="load",
        task="sensor.forecast",
        data=Data(
            **{
                "source": "files:load.csv",
                "time": "time",
                "inputs": inputs,
                "output": "y0" if single else None,
                "known": ("warm", "work") if known else (),
                **data,
            }
        ),
        options={"horizon": 6, "window": 48, **(options or {})},
        train=Train(candidates=candidates),
    )
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    return RowsView(line, table, tuple(f"site {e}" for e in range(entities)))


def fitted(made: RowsView, trials: int = 1, seed: int = 0) -> tuple[SensorForecast, Any]:
    """Fit with few and small trees, which is all these tests need."""
    task = SensorForecast()
    settings = task.derive(made.line, made)
    with patch.object(fit, "space", _small):
        effort = Effort.simple(seed=seed, minutes=5, trials=trials)
        return task, task.fit(made, settings, effort)


def _small(settings: Any) -> dict[str, Any]:
    found = {name: dict(values) for name, values in _SPACE(settings).items()}
    for values in found.values():
        if "iterations" in values:
            values |= {"iterations": (15,), "leaves": (8,), "rows": (4_000,), "rate": (0.2,)}
    return found
