"""Corrections and rows from production: how the true value of a moment becomes data.

A correction says what the output really was at the moment of a prediction, the newest row of its
window: "12.5", or "OT = 12.5" where there are several outputs. It does not judge the forecast
itself, which is about later moments; those are judged by what is read then (see `hindsight`).
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import Array, Columns, JsonObject, Tensors
from genba.core.task import Lesson, Recovered, at_row
from genba.tasks.sensor.forecast.arrays import filled
from genba.tasks.sensor.forecast.batch import Places

_NAMED: Final = re.compile(r"^\s*(?P<name>[^=]+?)\s*=\s*(?P<number>[^=]+)$")
_POINTS: Final = 24  # that the shape of a window is reduced to

Floats = npt.NDArray[np.float64]


def label(correction: str) -> float:
    """Turn what a person said into the true value.

    Raises:
        Problem: G801 when it is not a number.

    Example:
        >>> label("12,5"), label("OT = -3"), label("1.5e3")
        (12.5, -3.0, 1500.0)
    """
    named = _NAMED.match(correction)
    text = (named["number"] if named else correction).strip().replace(" ", "")
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise Problem(
            "G801",
            f"{correction!r} is no number.",
            why="A correction is the true value of the output at that moment.",
            tries=["12.5", "COLUMN = 12.5"],
        )
    return float(value)


def teach(columns: Columns, lessons: Sequence[Lesson]) -> Columns:
    """Put true values where they belong: in the column that is named, else in the row's label.

    The label of a row is the true value of the only output wherever rows are read again, so the
    reading itself stays in the data as it came.
    """
    changed = {name: np.array(columns[name], dtype=np.float64) for name in ("label",)}
    for lesson in lessons:
        named = _NAMED.match(lesson.value)
        name = named["name"] if named and named["name"] in columns else "label"
        if name not in changed:
            changed[name] = np.array(columns[name], dtype=np.float64)
        changed[name][at_row(columns, lesson)] = lesson.label
    return {**columns, **changed}


def rows(tensors: Tensors, settings: JsonObject) -> Recovered:
    """Return every row of the windows that were served.

    So retraining works where forecasts are asked for once a day. Where a window is the one before
    it moved on by a row, as when they are asked for at every step, only its newest row is new.
    """
    window = np.asarray(tensors["window"], dtype=np.float64)
    lags = window.shape[1]
    moved = np.zeros(len(window), dtype=bool)
    if lags > 1:
        old, new = window[:-1, 1:], window[1:, :-1]
        moved[1:] = ((old == new) | (np.isnan(old) & np.isnan(new))).all(axis=(1, 2))
    wanted = np.ones(window.shape[:2], dtype=bool)
    wanted[moved, :-1] = False
    of, place = np.nonzero(wanted)
    found = window[of, place]
    return Recovered(
        columns={name: found[:, i] for i, name in enumerate(settings["sensors"])},
        of=of.astype(np.int64),
        steps_back=(lags - 1 - place).astype(np.int64),
    )


def uncertainty(outputs: Tensors, settings: JsonObject) -> Array:
    """Return how wide intervals are against the usual width: 0.5 is usual, 1 is boundless."""
    width = np.asarray(outputs["high"], dtype=np.float64) - np.asarray(outputs["low"])
    usual = float(settings["typical"]) * np.asarray(settings["scales"], dtype=np.float64)[-1]
    relative = (width.reshape(len(width), -1, len(usual)) / usual).mean(axis=(1, 2))
    relative = np.where(np.isfinite(relative), np.maximum(relative, 0.0), np.inf)
    return np.asarray(1.0 - 1.0 / (1.0 + relative))


def embed(tensors: Tensors, settings: JsonObject) -> Array:
    """Return the shape of each window, whatever its level and spread: 24 points for each output."""
    window = np.asarray(tensors["window"], dtype=np.float64)
    y = window[:, :, Places.of(settings).outputs]
    y = filled(y, settings["fill"], 1, np.zeros(y.shape[2]))
    span = max([int(s) for s in settings["seasons"]] or [y.shape[1]])
    y = y[:, -span:]
    spread = y.std(axis=1, keepdims=True)
    shape = (y - y.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    cuts = np.array_split(np.arange(y.shape[1]), min(_POINTS, y.shape[1]))
    points = [shape[:, at].mean(axis=1) for at in cuts]
    return np.concatenate(points, axis=1)
