"""What watching compares new readings with: shares per bin, and how far chance moves them."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, View
from genba.learn.drift import null_quantile, reference
from genba.tasks.sensor.remaining_life import schema

FALSE_ALARM_RATE: Final = 0.001
_WINDOW: Final = 1_000  # predictions
_FEWEST_WINDOWS: Final = 5  # that the reference rows must hold
_MOST_ROWS: Final = 200_000
_STRETCH: Final = 20  # cycles that one unit of a fleet adds to a window at a stretch

Rows = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drift_reference(predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
    """Return the reference of every sensor and of the predicted life: JSON, for the package.

    Sensors are referred to training and calibration rows, predictions to calibration rows only.
    A window of a fleet holds units of all ages, some cycles of each in a row: so that is how the
    windows without drift are drawn, instead of by the calendar, in which all would be of one age.

    Returns:
        {"window": rows, "false_alarm_rate": of one check, "columns": {name: {"tensor", "index":
        column of the flattened tensor, "kind", "edges", "p", "null_q": PSI exceeded by chance at
        that rate, "missing": share}}}
    """
    stride = -(-(view.count("train") + view.count("calibrate")) // _MOST_ROWS) or 1
    readings, order = _sensors(view, settings, stride)
    lives, lived = _lives(predict, view, settings)
    names = list(settings["sensors"])
    window = max(1, min(_WINDOW, len(order) // _FEWEST_WINDOWS))
    columns = {
        name: _column(readings[:, i], order, window, ("window", i - len(names), "input"))
        for i, name in enumerate(names)
    }
    expected = min(window, max(1, len(lived) // _FEWEST_WINDOWS))
    columns["expected"] = _column(lives, lived, expected, ("expected", 0, "output"))
    return {"window": window * stride, "false_alarm_rate": FALSE_ALARM_RATE, "columns": columns}


def _column(
    values: npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
    window: int,
    place: tuple[str, int, str],
) -> dict[str, Any]:
    tensor, index, kind = place
    return {
        "tensor": tensor,
        "index": index,
        "kind": kind,
        **reference(values),
        "null_q": null_quantile(values, order, window, FALSE_ALARM_RATE, block=_STRETCH),
        "missing": float(np.mean(~np.isfinite(values))) if len(values) else 0.0,
    }


def _sensors(view: View, settings: JsonObject, stride: int) -> Rows:
    names = list(settings["sensors"])
    readings = [np.zeros((0, len(names)))]
    for split in ("train", "calibrate"):
        for chunk in view.chunks(split):
            rows = slice(None, None, stride)
            readings.append(np.stack([chunk[n][rows] for n in names], axis=1).astype(np.float64))
    joined = np.concatenate(readings)
    return joined, np.arange(len(joined), dtype=np.int64)  # unit after unit, cycle after cycle


def _lives(predict: Predict, view: View, settings: JsonObject) -> Rows:
    found = [np.zeros(0)]
    for samples in schema.read(view, "calibrate", settings):
        found.append(np.asarray(predict(samples.tensors)["expected"], dtype=np.float64))
    joined = np.concatenate(found)
    return joined, np.arange(len(joined), dtype=np.int64)
