"""The front of the graph: gaps filled, outputs scaled per entity, clocks. Mirrors `batch`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from genba.core.protocols import Array, JsonObject
from genba.learn.graph import Graph
from genba.tasks.sensor.forecast import series, steps
from genba.tasks.sensor.forecast.batch import Arrays, Places, look_span, recent_spans

_FLOAT: Final = TensorProto.FLOAT
_INT64: Final = TensorProto.INT64
_END: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Names of tensors of the graph, as `batch.Batch`."""

    z: str  # [N, L, O]
    known: str  # [N, L + H, K], "" without known covariates
    beside: str  # [N, 3 * P], "" without covariates of the past
    local: str  # [N, L + H] INT64
    ahead: str  # [N, H] INT64, the end of `local`
    center: str  # [N, O]
    scale: str  # [N, O]


def prepare(graph: Graph, settings: JsonObject, arrays: Arrays) -> Inputs:
    """Append everything up to a batch; `look` is answered on the way."""
    places, lags = Places.of(settings), int(settings["lags"])
    usual = np.asarray(arrays["usual"])
    valid = _valid(graph, "window", *series.limits(settings))
    full = _filled(graph, "window", valid, settings["fill"], usual, lags)
    _look(graph, settings, full, valid)
    y = graph.add("Gather", full, graph.integers(places.outputs), axis=2)
    center, scale = _of_entity(graph, y, arrays)
    z = graph.add("Sub", y, graph.add("Unsqueeze", center, graph.integers([1])))
    z = graph.add("Div", z, graph.add("Unsqueeze", scale, graph.integers([1])))
    local = _local(graph, settings)
    return Inputs(
        z=z,
        known=_known(graph, settings, arrays, valid) if places.known else "",
        beside=_recent(graph, settings, arrays, full) if places.beside else "",
        local=local,
        ahead=cut(graph, local, 1, lags, _END),
        center=center,
        scale=scale,
    )


def cut(graph: Graph, x: str, axis: int, start: int, stop: int) -> str:
    """Append a slice of one axis."""
    bounds = [graph.integers([v]) for v in (start, stop, axis)]
    return graph.add("Slice", x, *bounds)


def mean(graph: Graph, x: str, axis: int, start: int, stop: int) -> str:
    """Append the mean over a stretch of one axis, which is dropped."""
    return graph.add("ReduceMean", cut(graph, x, axis, start, stop), axes=[axis], keepdims=0)


def calendar_bins(graph: Graph, local: str, settings: JsonObject) -> dict[str, str]:
    """Mirror `steps.phases` for local times of any shape."""
    made: Any = settings["calendar"]
    day = graph.add("Mod", local, graph.integers(steps.DAY_MS))

    def part(phase: str, bins: int, period: int) -> str:
        scaled = graph.add("Mul", phase, graph.integers(bins))
        return graph.add("Div", scaled, graph.integers(period))

    period = int(made["period_ms"])
    inside = graph.add("Mod", local, graph.integers(period))
    return {
        "profile": part(inside, int(made["bins"]), period),
        "day": part(day, max(1, int(made["day_bins"])), steps.DAY_MS),
        "group": part(day, max(1, int(made["groups"])), steps.DAY_MS),
    }


def _valid(graph: Graph, x: str, low: Array, high: Array) -> str:
    """Return 1 where a reading is there and plausible; comparisons with NaN are false."""
    both = graph.add(
        "And",
        graph.add("GreaterOrEqual", x, graph.floats(low)),
        graph.add("LessOrEqual", x, graph.floats(high)),
    )
    return graph.add("Cast", both, to=_FLOAT)


def _filled(
    graph: Graph, x: str, valid: str, shifts: Sequence[int], usual: Array, length: int
) -> str:
    """Mirror `arrays.filled` along the second axis, with 0 and 1 for false and true."""
    there = graph.add("Greater", valid, graph.floats(0.5))
    made = graph.add("Where", there, x, graph.floats(0.0))
    axis = graph.integers([1])
    count = graph.add("ReduceSum", valid, axis, keepdims=1)
    total = graph.add("ReduceSum", made, axis, keepdims=1)
    average = graph.add("Div", total, graph.add("Max", count, graph.floats(1.0)))
    some = graph.add("Greater", count, graph.floats(0.5))
    rest = graph.add("Where", some, average, graph.floats(usual))
    for shift in shifts:
        if shift >= length:
            continue
        pads = graph.integers([0, shift, 0, 0, 0, 0])
        moved = graph.add("Pad", cut(graph, made, 1, 0, length - shift), pads)
        source = graph.add("Pad", cut(graph, valid, 1, 0, length - shift), pads)
        take = graph.add("Mul", source, graph.add("Sub", graph.floats(1.0), valid))
        made = graph.add("Add", made, graph.add("Mul", take, moved))
        valid = graph.add("Add", valid, take)
    missing = graph.add("Sub", graph.floats(1.0), valid)
    return graph.add("Add", made, graph.add("Mul", missing, rest))


def _look(graph: Graph, settings: JsonObject, full: str, valid: str) -> None:
    lags, span = int(settings["lags"]), look_span(settings)
    level = mean(graph, full, 1, lags - span, lags)
    there = mean(graph, valid, 1, lags - span, lags)
    missing = graph.add("Sub", graph.floats(1.0), there)
    graph.add("Concat", level, missing, axis=1, name="look")


def _of_entity(graph: Graph, y: str, arrays: Arrays) -> tuple[str, str]:
    last = len(arrays["center"]) - 1
    seen = graph.add(
        "And",
        graph.add("GreaterOrEqual", "entity", graph.integers(0)),
        graph.add("Less", "entity", graph.integers(last)),
    )
    at = graph.add("Where", seen, "entity", graph.integers(last))
    center = graph.add("Gather", graph.floats(arrays["center"]), at, axis=0)
    scale = graph.add("Gather", graph.floats(arrays["scale"]), at, axis=0)
    own = graph.add("ReduceMean", y, axes=[1], keepdims=0)
    away = graph.add("Sub", y, graph.add("Unsqueeze", own, graph.integers([1])))
    power = graph.add("ReduceMean", graph.add("Mul", away, away), axes=[1], keepdims=0)
    spread = graph.add("Sqrt", power)
    least = graph.add("Mul", scale, graph.floats(1e-6))
    spread = graph.add("Where", graph.add("Greater", spread, least), spread, scale)
    seen = graph.add("Unsqueeze", seen, graph.integers([1]))
    return graph.add("Where", seen, center, own), graph.add("Where", seen, scale, spread)


def _known(graph: Graph, settings: JsonObject, arrays: Arrays, valid: str) -> str:
    places = Places.of(settings).known
    low, high = series.limits(settings)
    at = graph.integers(places)
    past = graph.add("Gather", "window", at, axis=2)
    past_valid = graph.add("Gather", valid, at, axis=2)
    future_valid = _valid(graph, "future", low[places], high[places])
    both = graph.add("Concat", past, "future", axis=1)
    both_valid = graph.add("Concat", past_valid, future_valid, axis=1)
    length = int(settings["lags"]) + int(settings["ahead"])
    usual = np.asarray(arrays["usual"])[places]
    full = _filled(graph, both, both_valid, settings["fill"], usual, length)
    centred = graph.add("Sub", full, graph.floats(arrays["known_center"]))
    return graph.add("Div", centred, graph.floats(arrays["known_scale"]))


def _recent(graph: Graph, settings: JsonObject, arrays: Arrays, full: str) -> str:
    lags = int(settings["lags"])
    x = graph.add("Gather", full, graph.integers(Places.of(settings).beside), axis=2)
    x = graph.add("Sub", x, graph.floats(arrays["beside_center"]))
    x = graph.add("Div", x, graph.floats(arrays["beside_scale"]))
    parts = [mean(graph, x, 1, lags - span, lags) for span in (1, *recent_spans(settings))]
    return graph.add("Concat", *parts, axis=1)


def _local(graph: Graph, settings: JsonObject) -> str:
    """Return local times of all steps [N, L + H]."""
    lags, ahead = int(settings["lags"]), int(settings["ahead"])
    away = np.arange(1 - lags, ahead + 1, dtype=np.int64) * int(settings["step_ms"])
    start = graph.add("Unsqueeze", "time", graph.integers([1]))
    moments = graph.add("Add", start, graph.integers(away))
    zone: Any = settings["zone"]
    starts = np.asarray(zone["from_ms"], dtype=np.int64)
    shifts = np.asarray(zone["offset_ms"], dtype=np.int64)
    if len(shifts) == 1:
        return graph.add("Add", moments, graph.integers(int(shifts[0])))
    if away[-1] - away[0] < np.diff(starts[1:]).min(initial=_END):
        shift = _one_change(graph, moments, starts, shifts)
    else:
        shift = _any_change(graph, moments, starts, shifts)
    return graph.add("Add", moments, shift)


def _one_change(graph: Graph, moments: str, starts: Array, shifts: Array) -> str:
    """Return offsets where clocks change at most once from the first moment to the last."""
    begin = cut(graph, moments, 1, 0, 1)
    begun = graph.add("GreaterOrEqual", begin, graph.integers(starts[1:]))
    count = graph.add("Cast", begun, to=_INT64)
    at = graph.add("ReduceSum", count, graph.integers([1]), keepdims=1)
    later = graph.add("Gather", graph.integers([*starts[1:], _END]), at, axis=0)
    old = graph.add("Gather", graph.integers(shifts), at, axis=0)
    new = graph.add("Gather", graph.integers([*shifts[1:], shifts[-1]]), at, axis=0)
    return graph.add("Where", graph.add("GreaterOrEqual", moments, later), new, old)


def _any_change(graph: Graph, moments: str, starts: Array, shifts: Array) -> str:
    """Return offsets however often clocks change: every change is looked at for every moment."""
    later = graph.add("Unsqueeze", moments, graph.integers([2]))
    begun = graph.add("GreaterOrEqual", later, graph.integers(starts[1:]))
    changes = graph.add("Mul", graph.add("Cast", begun, to=_INT64), graph.integers(np.diff(shifts)))
    total = graph.add("ReduceSum", changes, graph.integers([2]), keepdims=0)
    return graph.add("Add", total, graph.integers(int(shifts[0])))
