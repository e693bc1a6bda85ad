"""Search, train and calibrate: from rows that are mostly normal to a model with thresholds."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import JsonObject, View
from genba.core.task import Model
from genba.learn.search import Space, plan, search
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.sensor.anomaly import absent, schema
from genba.tasks.sensor.anomaly.bodies import Training, build, unusual
from genba.tasks.sensor.anomaly.calibrate import calibrate
from genba.tasks.sensor.anomaly.faults import average_precision, disturbed
from genba.tasks.sensor.anomaly.model import fill

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_MOST_ROWS: Final = 60_000  # of training, taken at even distances: more change little here
_FEWEST_ROWS: Final = 50
_VALIDATION: Final = 0.2  # of train, held out for choosing settings
_JUDGED_SHARE: Final = 0.98  # of validation rows; the worst may be faults nobody labelled
_FEWEST_ANOMALIES: Final = 10

#: The first value is the default of a setting.
REGRESSION_SPACE: Final[Space] = {
    "ridge": {
        "knots": (16, 8, 32),
        "lagged": (True, False),
        "penalty": (1e-6, 1e-4),
        "trim": (0.02, 0.01, 0.04),
    },
    "boosting": {
        "iterations": (100, 60),
        "leaves": (15, 31, 8),
        "rate": (0.1, 0.05, 0.2),
        "min_rows": (100, 20, 400),
        "lagged": (True, False),
        "trim": (0.02, 0.01, 0.04),
    },
}
SENSORS_SPACE: Final[Space] = {
    "components": {"kept": (0.7, 0.5, 0.9), "transform": ("asinh", "identity"), "trim": (0.01,)},
    "ridge": {
        "knots": (12, 6),
        "penalty": (1e-4, 1e-2),
        "transform": ("asinh", "identity"),
        "joint": (True, False),
        "trim": (0.01, 0.02),
    },
    "boosting": {
        "iterations": (60, 30),
        "leaves": (15, 8),
        "rate": (0.15, 0.1),
        "min_rows": (20, 100),
        "transform": ("identity", "asinh"),
        "joint": (True, False),
        "trim": (0.01, 0.02),
    },
}


def fit(view: View, settings: JsonObject, effort: Effort) -> Model:
    """Search within the budget, train the best candidate on all of train, calibrate thresholds.

    Raises:
        Problem: G503 when there are too few rows to train or to calibrate on.
    """
    with one_thread():  # one order of additions, so the same bits on every run
        data = collect(view, settings)
        effort.progress.note(f"{int(data.usable.sum()):,} rows to train on")
        space = REGRESSION_SPACE if settings["mode"] == "regression" else SENSORS_SPACE
        space = {name: space[name] for name in settings["candidates"]}
        trials = plan(space, effort.budget.trials, effort.seed)
        best, tried = search(trials, lambda t, share: _loss(t, share, data, settings), effort)
        effort.progress.step(f"training {best['candidate']} on every row")
        rows = np.flatnonzero(data.usable)
        made, arrays = build(best, data, rows, settings)
        arrays |= absent.train(now_of(data, rows, settings), data.usual, settings)
        draft = Model(candidate=best["candidate"], settings=made, arrays=arrays, trials=tried)
        effort.progress.step("calibrating thresholds")
        return calibrate(draft, view)


def now_of(data: Training, rows: npt.NDArray[np.int64], settings: JsonObject) -> Floats:
    """Return the readings of now of some rows, all of them complete."""
    return data.filled[rows][:, -len(settings["sensors"]) :].astype(np.float64)


def collect(view: View, settings: JsonObject) -> Training:
    """Read the training split as windows, at most `_MOST_ROWS` of them."""
    stride = -(-view.count("train") // _MOST_ROWS) or 1
    parts = []
    for samples in schema.read(view, "train", settings):
        parts.append(schema.part(samples, slice(None, None, stride)))
    if not parts:
        raise _too_few(0)
    whole = schema.gather(parts)
    window = whole.tensors["window"]
    low, high = schema.limits(settings)
    plausible = (window >= low) & (window <= high)
    normal = whole.label != 1.0
    now = np.where(plausible[:, -1] & normal[:, None], window[:, -1], np.nan)
    usable = plausible[:, -1].all(axis=1) & normal
    if usable.sum() < _FEWEST_ROWS:
        raise _too_few(int(usable.sum()))
    usual = np.nanmedian(now[usable], axis=0).astype(np.float32)
    filled, _ = fill(window, low, high, usual)
    return Training(filled=filled, time=whole.time, label=whole.label, usable=usable, usual=usual)


def _loss(trial: Mapping[str, Any], share: float, data: Training, settings: JsonObject) -> float:
    """Train on most of train and judge on the rest: its newest part and, with a clock, its oldest.

    Both ends, because the years turn: settings that do well towards spring may not towards autumn.
    """
    first, last = np.quantile(data.time, [_VALIDATION, 1.0 - _VALIDATION])
    held = [data.time >= last, data.time <= first] if settings["has_clock"] else [data.time >= last]
    return float(np.mean([_held_out(trial, share, data, h, settings) for h in held]))


def _held_out(
    trial: Mapping[str, Any], share: float, data: Training, held: Bools, settings: JsonObject
) -> float:
    """Return the loss on rows held out.

    Without an output there is no error to compare candidates by: then anomalies, labelled ones
    if there are some, else simulated ones, must score higher than normal rows.
    """
    rows, judged = np.flatnonzero(data.usable & ~held), np.flatnonzero(data.usable & held)
    if len(rows) < _FEWEST_ROWS // 2 or len(judged) < 2:
        rows = judged = np.flatnonzero(data.usable)
    made, arrays = build(trial, data, rows[:: max(1, round(1 / share))], settings)
    statistic, residual = unusual(made, arrays, data.filled[judged])
    if settings["mode"] == "regression":
        error = np.abs(residual[:, 0]) * arrays["scale"][arrays["outputs"][0]]
        return float(np.sort(error)[: max(1, int(_JUDGED_SHARE * len(error)))].mean())
    strange = data.filled[(data.label == 1.0) & held]
    if len(strange) < _FEWEST_ANOMALIES:
        strange = disturbed(data.filled[judged], len(settings["sensors"]), arrays["scale"])
    return 1.0 - average_precision(statistic, unusual(made, arrays, strange)[0])


def _too_few(rows: int) -> Problem:
    return Problem(
        "G503",
        f"There are {rows} complete normal rows to train on; at least {_FEWEST_ROWS} are needed.",
        why="A row is used when no reading of it is missing or outside the line's checks.",
        tries=["genba check LINE", "genba explain G503"],
    )
