"""Simulated faults: what a model would have missed, where nobody has labelled real ones.

Real rows are disturbed in the ways sensors and machines fail. What is chosen and how depends on
the rows only, never on a model, so two models are tested with the very same faults.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.task import Samples
from genba.tasks.sensor.anomaly import schema

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: A loss of power, a sensor that reads low, one that has got stuck.
OUTPUT_FAULTS: Final = ("low_10", "low_20", "low_30", "half", "stuck")
SENSOR_FAULTS: Final = ("shift_up", "shift_down", "stuck")
_FACTORS: Final = {"low_10": 0.9, "low_20": 0.8, "low_30": 0.7, "half": 0.5}
_STEPS: Final = 36  # a fault lasts so many rows where there is a clock (six hours of 10 minutes)
_PER_CHUNK: Final = 12  # of each kind
_GAPS: Final = 0.2  # share of a stretch that may be missing
_SHIFT: Final = 3.0  # standard deviations of the sensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Injected:
    """Faults in a chunk of samples; `tensors` holds their windows, fault after fault."""

    kind: Ints  # [M] position in the kinds of the mode
    row: Ints  # [M] row of the onset
    time: Ints  # [M]
    steps: int  # rows per fault
    tensors: Tensors  # [M * steps, ...]


def kinds(settings: JsonObject) -> tuple[str, ...]:
    """Return the faults that make sense: nothing is stuck where rows have no order.

    Example:
        >>> kinds({"mode": "sensors", "has_clock": False})
        ('shift_up', 'shift_down')
    """
    if settings["mode"] == "regression":
        return OUTPUT_FAULTS if settings["has_clock"] else OUTPUT_FAULTS[:-1]
    return SENSOR_FAULTS if settings["has_clock"] else SENSOR_FAULTS[:-1]


def inject(samples: Samples, settings: JsonObject) -> Injected:
    """Disturb copies of some windows of a chunk of consecutive samples of one entity."""
    steps = _STEPS if settings["has_clock"] else 1
    names, window = kinds(settings), np.asarray(samples.tensors["window"])
    starts = _onsets(samples, settings, steps, _PER_CHUNK * len(names))
    kind = np.arange(len(starts)) % len(names)
    finite = np.where(np.isfinite(window[:, -1]), window[:, -1], 0.0).astype(np.float64)
    spread = finite.std(axis=0) if len(starts) else np.zeros(window.shape[2])
    parts = []
    for turn, (start, which) in enumerate(zip(starts, kind, strict=True)):
        sensor = _sensor(settings, turn // len(names))
        piece = window[start : start + steps].copy()
        false = _false_readings(names[which], piece[:, -1, sensor], float(spread[sensor]))
        parts.append(_overwrite(piece, sensor, false))
    empty = np.zeros((0, *window.shape[1:]), dtype=np.float32)
    entity = np.asarray(samples.tensors["entity"])
    return Injected(
        kind=kind.astype(np.int64),
        row=samples.row[starts],
        time=samples.time[starts],
        steps=steps,
        tensors={
            "window": np.concatenate([empty, *parts]),
            "entity": np.repeat(entity[starts], steps),
        },
    )


def disturbed(filled: Array, sensors: int, scale: Floats) -> npt.NDArray[np.float32]:
    """Return flat windows with one sensor's reading of now shifted, each sensor in turn."""
    made = np.array(filled, dtype=np.float32)
    rows = np.arange(len(made))
    sensor = rows % sensors
    sign = np.where((rows // sensors) % 2 == 0, 1.0, -1.0)
    made[rows, made.shape[1] - sensors + sensor] += (_SHIFT * sign * scale[sensor]).astype(
        np.float32
    )
    return made


def average_precision(normal: Floats, strange: Floats) -> float:
    """Return the area under precision over recall when anomalies should score higher.

    Example:
        >>> average_precision(np.array([1.0, 2.0]), np.array([3.0]))
        1.0
    """
    scores = np.concatenate([normal, strange])
    truth = np.concatenate([np.zeros(len(normal)), np.ones(len(strange))])
    truth = truth[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    return float((precision * truth).sum() / max(1, len(strange)))


def _onsets(samples: Samples, settings: JsonObject, steps: int, wanted: int) -> Ints:
    """Choose evenly spaced rows that begin a stretch without gaps, where a fault would matter."""
    low, high = schema.limits(settings)
    now = np.asarray(samples.tensors["window"])[:, -1]
    good = ((now >= low) & (now <= high)).all(axis=1) & (samples.label != 1.0)
    count = len(good) - steps + 1
    if count <= 0 or not good.any():
        return np.zeros(0, dtype=np.int64)
    bad_before = np.concatenate([[0], np.cumsum(~good)])
    whole = good[:count] & (bad_before[steps:] - bad_before[:count] <= _GAPS * steps)
    if settings["has_clock"]:
        lasts = samples.time[steps - 1 :] - samples.time[:count]
        whole &= lasts == (steps - 1) * int(settings["step_ms"])
    if settings["mode"] == "regression":  # a percentage of nothing is no fault
        output = samples.truth[:, 0]
        whole &= output[:count] > np.median(output[good])
    at = np.flatnonzero(whole)
    if len(at) <= wanted:
        return at
    return at[np.linspace(0, len(at) - 1, wanted).astype(np.int64)]


def _sensor(settings: JsonObject, turn: int) -> int:
    sensors = list(settings["sensors"])
    if settings["mode"] == "regression":
        return sensors.index(settings["outputs"][0])
    return turn % len(sensors)


def _false_readings(kind: str, true: Array, spread: float) -> Array:
    if kind in _FACTORS:
        return true * np.float32(_FACTORS[kind])
    if kind == "stuck":
        return np.full_like(true, true[0])
    return true + np.float32(_SHIFT * spread * (1.0 if kind == "shift_up" else -1.0))


def _overwrite(piece: npt.NDArray[np.float32], sensor: int, false: Array) -> Array:
    """Put false readings into the rows since the onset, and into the memory of later rows."""
    lags = piece.shape[1]
    for back in range(min(lags, len(piece))):
        piece[back:, lags - 1 - back, sensor] = false[: len(false) - back]
    return piece
