"""What watching compares with: the newest day of every sensor, and what is forecast of it.

A forecast may be asked for at any time of day or only once a day, so the newest reading would
drift with the habits of whoever asks. The mean over the newest season and the share of it that was
missing (the output `look`) do not.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, View
from genba.learn.drift import null_quantile, reference
from genba.tasks.sensor.forecast import series
from genba.tasks.sensor.forecast.arrays import filled
from genba.tasks.sensor.forecast.batch import look_span
from genba.tasks.sensor.forecast.series import SPLITS, Series
from genba.tasks.sensor.forecast.steps import DAY_MS

FALSE_ALARM_RATE: Final = 0.001
_WINDOW_DAYS: Final = 14  # of all entities
_FEWEST_WINDOWS: Final = 5  # that the reference rows must hold
_BLOCK_DAYS: Final = 3  # how long the weather remembers
_ORIGINS: Final = 1_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def drift_reference(predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
    """Return the reference of every sensor and of the first forecast step.

    Returns:
        As every task: {"window", "false_alarm_rate", "columns": {name: {"tensor", "index", "kind",
        "edges", "p", "null_q", "missing"}}}; for each sensor two columns: its level and the share
        of it that was missing.
    """
    every = list(series.read(view, settings, SPLITS[:3]))
    looks, time = _looks(every, settings)
    names = [*settings["sensors"], *(f"{name} missing" for name in settings["sensors"])]
    days = max(1.0, float(np.ptp(time)) / DAY_MS) if len(time) else 1.0
    wanted = round(len(time) / days * _WINDOW_DAYS)
    window = max(1, min(wanted, len(time) // _FEWEST_WINDOWS))
    columns = {
        name: _column(("look", i, "input"), looks[:, i], time, window)
        for i, name in enumerate(names)
    }
    first, at = _first_steps(predict, every, settings)
    rows = max(1, round(window * len(at) / max(1, len(time))))
    for o, name in enumerate(settings["outputs"]):
        column = _column(("expected", o, "output"), first[:, o], at, rows)
        columns[f"{name} expected"] = column
    return {"window": window, "false_alarm_rate": FALSE_ALARM_RATE, "columns": columns}


def _column(place: tuple[str, int, str], values: Floats, time: Ints, window: int) -> dict[str, Any]:
    block = _BLOCK_DAYS * DAY_MS
    return {
        "tensor": place[0],
        "index": place[1],
        "kind": place[2],
        **reference(values),
        "null_q": null_quantile(values, time, window, FALSE_ALARM_RATE, block=block),
        "missing": 0.0,
    }


def _looks(every: list[Series], settings: JsonObject) -> tuple[Floats, Ints]:
    """Return what `look` would have been at every row, and the time of the rows."""
    span = look_span(settings)
    found, time = [np.zeros((0, 2 * len(settings["sensors"])))], [np.zeros(0, dtype=np.int64)]
    for one in every:
        values = one.values.astype(np.float64)
        full = filled(values, settings["fill"], 0, np.zeros(values.shape[1]))
        rows = np.concatenate([full, np.isnan(values)], axis=1)
        total = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
        means = (total[span:] - total[:-span]) / span
        there = np.flatnonzero(one.row[span - 1 :] >= 0)
        found.append(means[there])
        time.append(one.time[span - 1 :][there])
    return np.concatenate(found), np.concatenate(time)


def _first_steps(
    predict: Predict, every: list[Series], settings: JsonObject
) -> tuple[Floats, Ints]:
    """Return forecasts of the first step on calibration rows, and their times."""
    found, time = [np.zeros((0, len(settings["outputs"])))], [np.zeros(0, dtype=np.int64)]
    origins = [series.origins(one, settings, "calibrate") for one in every]
    stride = max(1, -(-sum(len(at) for at in origins) // _ORIGINS))
    for one, at in zip(every, origins, strict=True):
        at = at[::stride]
        if not len(at):
            continue
        width = np.ones(len(at), dtype=np.float32)
        made = predict({**series.tensors(one, at, settings), "width": width})
        found.append(np.asarray(made["expected"], dtype=np.float64)[:, 0])
        time.append(one.time[at])
    return np.concatenate(found), np.concatenate(time)
