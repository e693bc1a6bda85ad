"""What a forecast is asked with and answers, and the settings that a line leaves open."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from genba.core.codec import nearest
from genba.core.line import Line
from genba.core.options import read_options
from genba.core.problem import Problem
from genba.core.protocols import Array, Columns, JsonObject, View
from genba.core.task import Option, Samples
from genba.core.values import Signature, Tensor
from genba.learn.absent import sources
from genba.tasks.sensor.forecast import series, steps
from genba.tasks.sensor.forecast.arrays import mean_known
from genba.tasks.sensor.forecast.zones import offsets

CANDIDATES: Final = ("ridge", "blend", "boosting", "seasonal")
OPTIONS: Final = {
    "horizon": Option(about="steps to look ahead, 0 = a day", default=0, low=0, high=2_000),
    "report": Option(
        about="horizons in steps that are measured one by one, 0 = the whole one",
        default=[0],
        low=0,
        high=2_000,
    ),
    "window": Option(about="rows to look back on, 0 = weeks or so", default=0, low=0, high=4_096),
    "coverage": Option(
        about="share of true values that an interval is to hold", default=0.9, low=0.5, high=0.99
    ),
    "season": Option(about="steps of the season, 0 = found in the data", default=0, low=0),
    "timezone": Option(about="whose clocks people live by, such as Europe/Paris", default="UTC"),
}

_LARGEST: Final = 1e12  # of a reading without a check; its square still fits into float32
_CLEAR: Final = 0.1  # autocorrelation from which a season is believed
_SHORT_GAP: Final = 3  # steps that the last reading stands in for


def derive(line: Line, view: View) -> dict[str, Any]:
    """Derive every setting the line leaves open, as JSON that is printed and recorded.

    Raises:
        Problem: G540 without a clock, G541 where a label column is named, G542 where window and
            horizon do not fit the data, G543 for an unknown time zone, G544 where nothing is left
            to forecast.
    """
    options = read_options(OPTIONS, line.options)
    outputs, known = _meaning(line, view)
    step = steps.nominal(_step_ms(view))
    ahead = int(options["horizon"]) or steps.horizon(step)
    lags = int(options["window"]) or steps.window(step)
    checks = [line.data.checks.get(name) for name in view.sensors]
    settings = {
        "sensors": list(view.sensors),
        "outputs": outputs,
        "known": known,
        "beside": [n for n in view.sensors if n not in outputs and n not in known],
        "lags": lags,
        "context": lags - 1,
        "ahead": ahead,
        "horizons": _horizons(options["report"], ahead),
        "coverage": float(options["coverage"]),
        "has_clock": True,
        "step_ms": step,
        "merge": ahead * step,
        "timezone": options["timezone"],
        "zone": offsets(str(options["timezone"])),
        "calendar": steps.calendar(step),
        "low": [check.min if check else None for check in checks],
        "high": [check.max if check else None for check in checks],
        "largest": _LARGEST,
        "entities": list(view.entities),
        "candidates": _candidates(line),
    }
    settings |= _seasons(view, settings, int(options["season"]))
    settings["fill"] = fill_shifts(lags, settings["seasons"])
    return settings | sources(line)


def signature(settings: JsonObject) -> Signature:
    """Return the inputs and outputs of a package with these settings."""
    sensors, known = len(settings["sensors"]), len(settings["known"])
    lags, ahead = int(settings["lags"]), int(settings["ahead"])
    answer = (-1, ahead, len(settings["outputs"]))
    inputs = [Tensor(name="window", datatype="FP32", shape=(-1, lags, sensors), role="feature")]
    if known:
        inputs.append(
            Tensor(name="future", datatype="FP32", shape=(-1, ahead, known), role="feature")
        )
    inputs += [
        Tensor(name="time", datatype="INT64", shape=(-1,), role="time", unit="ms"),
        Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity"),
        Tensor(name="width", datatype="FP32", shape=(-1,), role="parameter", default=1.0),
    ]
    return Signature(
        inputs=tuple(inputs),
        outputs=(
            *(
                Tensor(name=name, datatype="FP32", shape=answer, role=name)
                for name in ("expected", "low", "high")
            ),
            Tensor(name="look", datatype="FP32", shape=(-1, 2 * sensors), role="look"),
        ),
    )


def samples(columns: Columns, settings: JsonObject) -> Samples:
    """Turn consecutive rows of one entity into samples: one for each row, its window ending there.

    The window holds the rows whose time is 0, 1, ... steps before, the newest last; `future` holds
    what is known in advance of the steps after it. Rows that are not there are missing (NaN). The
    truth is what was read at the steps after the row, one column for each step and output.
    """
    entity = int(np.asarray(columns["entity"])[0]) if len(columns["entity"]) else 0
    if not len(columns["time"]):
        return _no_samples(settings)
    placed = series.on_grid(columns, settings, entity)
    at = np.flatnonzero(placed.row >= 0)
    after = series.truth(placed, at, settings).astype(np.float64)
    return Samples(
        tensors={**series.tensors(placed, at, settings), "width": _ones(len(at))},
        entity=np.full(len(at), entity, dtype=np.int32),
        time=placed.time[at],
        row=placed.row[at],
        label=np.full(len(at), np.nan),  # a correction is a value, not a class of the sample
        truth=after.reshape(len(at), -1),
    )


def fill_shifts(lags: int, seasons: Sequence[int]) -> list[int]:
    """Return how far back to look, one after the other, for a reading that is missing.

    First the last reading, for gaps of a few steps; then the same time a season before; then
    whatever was read last. Each step doubles what the one before reaches.

    Example:
        >>> fill_shifts(64, [24])
        [1, 2, 24, 48, 1, 2, 4, 8, 16, 32]
    """
    short = [1, 2][: max(1, _SHORT_GAP - 1)]
    seasonal = [k * s for s in seasons[:1] for k in (1, 2) if k * s < lags]
    long = [1 << k for k in range(max(1, (lags - 1).bit_length()))]
    return [*short, *seasonal, *long]


def _meaning(line: Line, view: View) -> tuple[list[str], list[str]]:
    """Return what is forecast and what is known in advance."""
    data = line.data
    if not view.has_clock:
        raise Problem(
            "G540",
            "A forecast needs a clock: the line names no time column.",
            where="data.time",
            why="Without it nobody can tell which row comes next, or how far ahead a step is.",
            tries=['time = "the column with the times"', "genba explain G540"],
        )
    if data.label:
        raise Problem(
            "G541",
            "A forecast takes no label column: what people say about a row is its true value.",
            where="data.label",
            why=f"{data.label!r} would be read as readings of the output.",
            tries=["remove label from [data]", "genba explain G541"],
        )
    known = [name for name in view.sensors if name in data.known]
    outputs = [data.output] if data.output else [n for n in view.sensors if n not in known]
    if not outputs or set(outputs) & set(known):
        raise Problem(
            "G544",
            "Nothing is left to forecast: every column is said to be known in advance.",
            where="data.known",
            why=f"known = {list(data.known)}, and the columns are {list(view.sensors)}.",
            tries=['output = "the column to forecast"', "genba explain G544"],
        )
    return outputs, known


def _horizons(asked: Sequence[int], ahead: int) -> list[int]:
    """Return the horizons that are reported, the whole one last."""
    for steps_ahead in asked:
        if steps_ahead > ahead:
            raise Problem(
                "G542",
                f"A horizon of {steps_ahead} steps is to be reported, but only {ahead} are made.",
                where="options.report",
                tries=[f"--set options.horizon={steps_ahead}", "genba explain G542"],
            )
    return sorted({*(int(n) for n in asked if n), ahead})


def _step_ms(view: View) -> int:
    gaps: list[Array] = []
    for chunk in view.chunks("train"):
        found = np.diff(np.asarray(chunk["time"], dtype=np.int64))
        gaps.append(found[found > 0])
    every = np.concatenate([np.zeros(0, dtype=np.int64), *gaps])
    return int(np.median(every)) if len(every) else 1


def _seasons(view: View, settings: JsonObject, asked: int) -> dict[str, Any]:
    """Return the seasons to try and the one that naive forecasts repeat.

    A season is believed from an autocorrelation of 0.1 on; of those, the one whose repetition errs
    least is the naive forecast. Without any, the last value is.
    """
    lags = int(settings["lags"])
    if asked:
        return {"seasons": [min(asked, lags)], "season": min(asked, lags)}
    tried = steps.seasons(int(settings["step_ms"]), lags)
    found = _repetition(view, settings, tried)
    believed = [(error, s) for s, (r, error) in zip(tried, found, strict=True) if r > _CLEAR]
    return {"seasons": sorted(s for _, s in believed), "season": min(believed, default=(0.0, 1))[1]}


def _repetition(
    view: View, settings: JsonObject, tried: Sequence[int]
) -> list[tuple[float, float]]:
    """Return autocorrelation and mean absolute change (in spreads) at some lags."""
    targets = [list(settings["sensors"]).index(name) for name in settings["outputs"]]
    found: list[list[tuple[float, float]]] = []
    for one in series.read(view, settings, ("train",)):
        z = one.values[:, targets].astype(np.float64)
        z = z - mean_known(z, 0)
        power = float(mean_known(z * z, 0).max(initial=0.0))
        if power > 0.0:
            z = z / np.sqrt(np.maximum(mean_known(z * z, 0), 1e-12))
            found.append([_at_lag(z, lag) for lag in tried])
    if not found:
        return [(0.0, 0.0)] * len(tried)
    return [(float(r), float(error)) for r, error in np.mean(found, axis=0)]


def _at_lag(z: Array, lag: int) -> tuple[float, float]:
    pairs = z[lag:], z[:-lag]
    product = mean_known((pairs[0] * pairs[1]).ravel(), 0)
    change = mean_known(np.abs(pairs[0] - pairs[1]).ravel(), 0)
    return float(np.nan_to_num(product)), float(np.nan_to_num(change))


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


def _ones(count: int) -> Array:
    return np.ones(count, dtype=np.float32)


def _no_samples(settings: JsonObject) -> Samples:
    signature_of = signature(settings)
    kinds = {"FP32": np.float32, "INT64": np.int64}
    tensors = {t.name: np.zeros((0, *t.shape[1:]), kinds[t.datatype]) for t in signature_of.inputs}
    none = np.zeros(0, dtype=np.int64)
    outputs = int(settings["ahead"]) * len(settings["outputs"])
    return Samples(
        tensors=tensors,
        entity=none.astype(np.int32),
        time=none,
        row=none,
        label=np.zeros(0),
        truth=np.zeros((0, outputs)),
    )
