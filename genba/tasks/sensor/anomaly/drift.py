"""What watching compares new readings with: shares per bin, and how far chance moves them."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, View
from genba.learn.bootstrap import DAY_MS
from genba.learn.drift import null_quantile, reference
from genba.tasks.sensor.anomaly import schema

FALSE_ALARM_RATE: Final = 0.001
_WINDOW_DAYS: Final = 14  # of all entities; in a shorter window the weather outweighs any drift
_WINDOW: Final = 1_000  # rows where there is no clock
_FEWEST_WINDOWS: Final = 5  # that the reference rows must hold
_MOST_ROWS: Final = 200_000
_BLOCK_ROWS: Final = 64  # where there is no clock
_BLOCK_DAYS: Final = 3  # how long the weather remembers
_PLACE: Final = ("tensor", "index", "kind")

Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drift_reference(predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
    """Return the reference of every sensor and of the score: JSON, stored in the package.

    Sensors are referred to training and calibration rows, the score to calibration rows only:
    on the rows it was trained on, a model looks better than it is.

    Returns:
        {"window": rows, "false_alarm_rate": of one check, "columns": {name: {"tensor", "index":
        column of the flattened tensor, "kind", "edges": 9 numbers, "p": 10 shares, "null_q": PSI
        exceeded by chance at that rate, "missing": share}}}
    """
    stride = -(-(view.count("train") + view.count("calibrate")) // _MOST_ROWS) or 1
    sensors, scores = _sensors(view, settings, stride), _scores(predict, view, settings)
    wanted = _two_weeks(sensors[1]) if settings["has_clock"] else _WINDOW
    window = max(1, min(wanted, len(sensors[1]) // _FEWEST_WINDOWS))
    block = _BLOCK_DAYS * DAY_MS if settings["has_clock"] else _BLOCK_ROWS
    names = list(settings["sensors"])
    columns = {name: (sensors[0][:, i], sensors[1], window) for i, name in enumerate(names)}
    columns["score"] = (*scores, window * stride)  # of which no row was left out
    places = {name: ("window", i - len(names), "input") for i, name in enumerate(names)}
    places["score"] = ("score", 0, "output")
    return {
        "window": window * stride,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "columns": {
            name: {
                **dict(zip(_PLACE, places[name], strict=True)),
                **reference(values),
                "null_q": null_quantile(values, time, rows, FALSE_ALARM_RATE, block=block),
                "missing": float(np.mean(~np.isfinite(values))) if len(values) else 0.0,
            }
            for name, (values, time, rows) in columns.items()
        },
    }


def _two_weeks(time: npt.NDArray[np.int64]) -> int:
    """Return how many rows, of all entities, two weeks have."""
    days = max(1.0, (int(time.max()) - int(time.min())) / DAY_MS) if len(time) else 1.0
    return round(len(time) / days * _WINDOW_DAYS)


def _sensors(view: View, settings: JsonObject, stride: int) -> Rows:
    names = list(settings["sensors"])
    readings, time = [np.zeros((0, len(names)))], [np.zeros(0, dtype=np.int64)]
    for split in ("train", "calibrate"):
        for chunk in view.chunks(split):
            rows = slice(None, None, stride)
            readings.append(np.stack([chunk[n][rows] for n in names], axis=1).astype(np.float64))
            time.append(chunk["time"][rows])
    return np.concatenate(readings), np.concatenate(time)


def _scores(predict: Predict, view: View, settings: JsonObject) -> Rows:
    scores, time = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for samples in schema.read(view, "calibrate", settings):
        scores.append(np.asarray(predict(samples.tensors)["score"], dtype=np.float64))
        time.append(samples.time)
    return np.concatenate(scores), np.concatenate(time)
