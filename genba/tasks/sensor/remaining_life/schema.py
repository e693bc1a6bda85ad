"""What a sample is: a window of a unit's readings up to now, its age, and settings left open."""

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.codec import nearest
from genba.core.line import Line
from genba.core.options import read_options
from genba.core.problem import Problem
from genba.core.protocols import Columns, JsonObject, Tensors, View
from genba.core.task import Option, Recovered, Samples
from genba.core.values import Signature, Tensor
from genba.learn.absent import sources
from genba.tasks.sensor.remaining_life.lives import INSPECTED, Lives

CANDIDATES: Final = ("boosting", "ridge")
OPTIONS: Final = {
    "cap": Option(
        about="cycles from which on more life is not told apart; 0 = learn the raw life",
        default=125,
        low=0,
    ),
    "window": Option(about="cycles a prediction looks back on", default=30, low=3, high=500),
    "lead": Option(about="cycles from the alarm to the stop that it asks for", default=10, low=0),
    "cost_missed": Option(
        about="cost of a unit that fails before it is stopped, in any unit of money",
        default=10.0,
        low=0.0,
    ),
    "cost_stop": Option(about="cost of a unit that is stopped in time", default=1.0, low=0.0),
    "coverage": Option(
        about="share of remaining lives that the interval should hold",
        default=0.9,
        low=0.5,
        high=0.99,
    ),
    "conditions": Option(
        about='columns that set the operating condition; ["auto"] = found in the data, ["none"]',
        default=["auto"],
    ),
}

#: Readings beyond this are taken for missing; its square still fits into float32.
_LARGEST: Final = 1e12
_ROWS: Final = 8_192  # in memory at a time, as windows
#: What people need to say; `label` knows other words for them.
WORDS: Final = ("failed", "healthy")
_FAILED: Final = frozenset({"failed", "failure", "broken", "dead", "breakdown", "end of life"})
_HEALTHY: Final = frozenset(
    {"healthy", "ok", "replaced", "needless stop", "needless", "good", "running", "false alarm"}
)
_CYCLES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(cycles?|steps?|left|cycles? left|steps? left)?")


def derive(line: Line, view: View) -> dict[str, Any]:
    """Derive every setting the line leaves open, as JSON that is printed and recorded.

    Raises:
        Problem: G242 when the line names no unit or no count of cycles, G102 or G103 for an
            option that is unknown or out of range, G243 for a condition that is no input.
    """
    _require_lives(line)
    options = read_options(OPTIONS, line.options)
    step = _step(view)
    checks = [line.data.checks.get(name) for name in view.sensors]
    return {
        **options,
        "conditions": _conditions(options["conditions"], view),
        "sensors": list(view.sensors),
        "lags": options["window"],
        "context": options["window"] - 1,
        "has_clock": view.has_clock,
        "step_ms": step,
        "merge": step,
        "low": [check.min if check else None for check in checks],
        "high": [check.max if check else None for check in checks],
        "candidates": _candidates(line),
        **sources(line),
    }


def signature(settings: JsonObject) -> Signature:
    """Return the inputs and outputs of a package with these settings."""
    window = (-1, int(settings["lags"]), len(settings["sensors"]))
    return Signature(
        inputs=(
            Tensor(name="window", datatype="FP32", shape=window, role="feature"),
            _cycles("age", "feature"),
            Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
            _cycles("alarm_at", "parameter", default=alarm_at(settings)),
        ),
        outputs=(
            _cycles("expected", "expected"),
            _cycles("low", "low"),
            _cycles("high", "high"),
            Tensor(name="score", datatype="FP32", shape=(-1,), role="score"),
            Tensor(name="alarm", datatype="BOOL", shape=(-1,), role="alarm"),
        ),
    )


def _cycles(name: str, role: str, default: float | None = None) -> Tensor:
    return Tensor(
        name=name, datatype="FP32", shape=(-1,), role=role, unit="cycles", default=default
    )


def alarm_at(settings: JsonObject) -> float:
    """Return the remaining life from which on to alarm; what is asked for until one is chosen."""
    return float(np.float32(settings.get("alarm_at", settings["lead"])))


def samples(columns: Columns, settings: JsonObject) -> Samples:
    """Turn consecutive rows of one unit into samples.

    The window of a row holds the rows whose time is 0, 1, ... steps before it, the oldest first;
    where such a row does not exist (a gap, before the unit began), its readings are missing (NaN).
    The age is the count of cycles; where the data has a clock instead, it is not known (NaN).
    """
    readings = np.stack([np.asarray(columns[s], dtype=np.float32) for s in settings["sensors"]], 1)
    time = np.asarray(columns["time"], dtype=np.int64)
    lags, step = int(settings["lags"]), int(settings["step_ms"])
    window = np.full((len(time), lags, readings.shape[1]), np.nan, dtype=np.float32)
    window[:, -1] = readings
    for back in range(1, lags):
        at, found = _rows_before(time, back * step, step)
        window[found, lags - 1 - back] = readings[at[found]]
    entity = np.asarray(columns["entity"])
    unknown = np.full(len(time), np.nan)
    return Samples(
        tensors={
            "window": window,
            "age": (unknown if settings["has_clock"] else time / step).astype(np.float32),
            "entity": entity.astype(np.int64),
            "alarm_at": np.full(len(time), alarm_at(settings), dtype=np.float32),
        },
        entity=entity.astype(np.int32),
        time=time,
        row=np.asarray(columns["row"], dtype=np.int64),
        label=np.asarray(columns["label"], dtype=np.float64),
        truth=np.asarray(columns.get("left", unknown), dtype=np.float64)[:, None],
    )


def read(
    view: View, split: str, settings: JsonObject, lives: Lives | None = None
) -> Iterator[Samples]:
    """Yield the samples of a split with their remaining life as `truth`, NaN where it is unknown.

    Args:
        view: The dataset.
        split: "train", "calibrate" or "test".
        settings: Of the task.
        lives: When units began and ended; read from the view if not given.
    """
    lives = lives or Lives.of(view, settings)
    keep = int(settings["lags"]) - 1
    tails: dict[int, dict[str, npt.NDArray[Any]]] = {}
    names = ("entity", "time", "row", "label", *settings["sensors"])
    for chunk in view.chunks(split, rows=_ROWS):
        here = {name: np.asarray(chunk[name]) for name in names}
        if not len(here["time"]):
            continue
        owner = int(here["entity"][0])
        known = len(tails[owner]["time"]) if owner in tails else 0
        if known:
            here = {n: np.concatenate([tails[owner][n], here[n]]) for n in names}
        tails[owner] = {n: c[max(0, len(c) - keep) :] for n, c in here.items()}
        left = lives.left(owner, here["time"])
        yield part(samples({**here, "left": left}, settings), slice(known, None))


def part(whole: Samples, rows: slice | npt.NDArray[Any]) -> Samples:
    """Return some of the samples."""
    return Samples(
        tensors={name: tensor[rows] for name, tensor in whole.tensors.items()},
        **{n: getattr(whole, n)[rows] for n in ("entity", "time", "row", "label", "truth")},
    )


def rows(tensors: Tensors, settings: JsonObject) -> Recovered:
    """Find the rows of data again in windows.

    The last row of a window is the prediction's own. One before it that has no reading at all is
    no row: there was a gap, or the unit had not begun.
    """
    window = np.asarray(tensors["window"], dtype=np.float64)
    count, lags, _ = window.shape
    back = np.tile(np.arange(lags - 1, -1, -1), count)
    flat = window.reshape(count * lags, -1)
    found = (back == 0) | np.isfinite(flat).any(axis=1)
    return Recovered(
        columns={name: flat[found, i] for i, name in enumerate(settings["sensors"])},
        of=np.repeat(np.arange(count), lags)[found],
        steps_back=back[found],
    )


def limits(settings: JsonObject) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the lowest and highest plausible reading of each sensor; beyond them it is missing."""
    low = [-_LARGEST if v is None else v for v in settings["low"]]
    high = [_LARGEST if v is None else v for v in settings["high"]]
    return np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)


def label(correction: str) -> float:
    """Turn what a person said into the label of a sample.

    1 is a failure at that moment, 0 a unit that was stopped or found healthy then, and from 2 on
    what an inspection found: 2 + n for n cycles left.

    Raises:
        Problem: G801 when it is not understood.

    Example:
        >>> label("Failed"), label("needless stop"), label("40 cycles")
        (1.0, 0.0, 42.0)
    """
    word = " ".join(correction.strip().lower().replace("_", " ").split())
    if word in _FAILED:
        return 1.0
    if word in _HEALTHY:
        return 0.0
    number = _CYCLES.fullmatch(word)
    if number and (number[2] or float(number[1]) > 1):
        cycles = float(number[1])
        return INSPECTED + cycles if cycles else 1.0
    why = f"Failed: {', '.join(sorted(_FAILED))}. Healthy: {', '.join(sorted(_HEALTHY))}."
    if number:
        why = f"{word} may mean so many cycles left, or a failure (1) and none (0). {why}"
    near = nearest(word, WORDS)
    raise Problem(
        "G801",
        f"{correction!r} says neither failed nor healthy nor how many cycles are left"
        + (f"; did you mean {near}?" if near else "."),
        why=why,
        tries=[*WORDS, "40 cycles"],
    )


def _rows_before(
    time: npt.NDArray[np.int64], distance: int, step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    wanted = time - distance
    at = np.searchsorted(time, wanted - step // 2)
    at = np.minimum(at, len(time) - 1)
    return at, np.abs(time[at] - wanted) <= step // 2


def _step(view: View) -> int:
    """Return the usual distance between two rows of a unit: in cycles, or in ms with a clock."""
    for chunk in view.chunks("train"):
        gaps = np.diff(np.asarray(chunk["time"], dtype=np.int64))
        gaps = gaps[gaps > 0]
        if len(gaps):
            return int(np.median(gaps))
    return 1


def _require_lives(line: Line) -> None:
    missing = [name for name in ("entity", "time") if getattr(line.data, name) is None]
    if missing:
        raise Problem(
            "G242",
            f"The line does not say which column is the {_MEANS[missing[0]]}.",
            where=f"data.{missing[0]}",
            why="A remaining life is that of one unit, counted from one row to its failure.",
            tries=[f'{missing[0]} = "COLUMN" under [data]', "genba explain G242"],
        )


_MEANS: Final = {"entity": "unit", "time": "cycle (or the time)"}


def _conditions(given: list[str], view: View) -> list[str]:
    """Return the columns that set the condition; ["auto"] stays, and the data decides later."""
    if given in (["auto"], ["none"]):
        return given
    for name in given:
        if name not in view.sensors:
            near = nearest(name, list(view.sensors))
            raise Problem(
                "G243",
                f"The condition {name!r} is not an input"
                + (f"; did you mean {near!r}?" if near else "."),
                where="options.conditions",
                why=f"Inputs: {', '.join(view.sensors)}.",
                tries=[f'conditions = ["{near or view.sensors[0]}"]', 'conditions = ["auto"]'],
            )
    return given


def _candidates(line: Line) -> list[str]:
    for name in line.train.candidates:
        if name not in CANDIDATES:
            near = nearest(name, CANDIDATES)
            raise Problem(
                "G105",
                f"There is no candidate {name!r}" + (f"; did you mean {near}?" if near else "."),
                where="train.candidates",
                why=f"There are: {', '.join(CANDIDATES)}.",
                tries=[f'candidates = ["{near or CANDIDATES[0]}"]'],
            )
    return list(line.train.candidates or CANDIDATES)
