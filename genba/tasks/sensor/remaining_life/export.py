"""The model as one ONNX graph: masking, conditions, features, life, interval and alarm inside.

Sums over a window are element-wise products and reductions, not matrix products: then the sum of
one row does not depend on how many rows are in the batch, and neither does a tree's decision.
Features are computed in float64, as the reference does: readings are often rounded to a few digits,
so that many rows share a value, a tree's threshold lies on it, and the rounding of float32 sums
would send them all the other way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from genba.core.protocols import Array, JsonObject
from genba.core.task import Model
from genba.learn.graph import Graph, serialise, trees
from genba.learn.linear import Hinges
from genba.learn.trees import Forest
from genba.tasks.sensor.remaining_life import schema
from genba.tasks.sensor.remaining_life.features import CLIP, SLOPE_SHRINK, STATISTICS, Spans
from genba.tasks.sensor.remaining_life.model import SHORTEST, hinges_of

Arrays = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    """Names of tensors on the way: deviations and mask [batch, L, S]."""

    z: str
    mask: str
    inside: str  # the mask as BOOL
    lags: int


def export(model: Model) -> bytes:
    """Return the model as serialised ONNX."""
    graph, settings, arrays = Graph(), model.settings, model.arrays
    x = _features(graph, settings, arrays)
    made = _body(graph, settings, arrays, x)
    top = float(arrays["top"][0])
    made = graph.add("Min", graph.add("Max", made, graph.floats(0.0)), graph.floats(top))
    _answers(graph, arrays, made, top)
    return serialise(graph, "sensor.remaining_life", schema.signature(settings))


def _features(graph: Graph, settings: JsonObject, arrays: Arrays) -> str:
    """Mirror `features.features`."""
    sensors = list(settings["sensors"])
    low, high = schema.limits(settings)
    valid = graph.add(
        "And",
        graph.add("GreaterOrEqual", "window", graph.floats(low)),
        graph.add("LessOrEqual", "window", graph.floats(high)),
    )
    readings = _double(graph, graph.add("Where", valid, "window", graph.floats(0.0)))
    conditions = _conditions(graph, settings, arrays, readings, valid)
    used = [sensors.index(s) for s in settings["used"]]
    inside = graph.add("Gather", valid, graph.integers(used), axis=2)
    mask = _double(graph, inside)
    usual, scale = _usual(graph, arrays, conditions, (int(settings["lags"]), len(used)))
    z = graph.add("Gather", readings, graph.integers(used), axis=2)
    z = graph.add("Div", graph.add("Sub", z, usual), scale)
    z = graph.add("Min", graph.add("Max", z, graph.doubles(-CLIP)), graph.doubles(CLIP))
    z = graph.add("Mul", z, mask)
    window = _Window(z=z, mask=mask, inside=inside, lags=int(settings["lags"]))
    parts = [_statistics(graph, window)[name] for name in STATISTICS]
    age = graph.add("Reshape", "age", graph.integers([-1, 1]))
    known = graph.add("Equal", age, age)  # NaN equals nothing
    usual_age = graph.floats(arrays["usual_age"][:1])
    parts.append(_double(graph, graph.add("Where", known, age, usual_age)))
    if conditions:
        parts.append(graph.add("ReduceMean", conditions, axes=[1], keepdims=0))
    return graph.add("Cast", graph.add("Concat", *parts, axis=1), to=TensorProto.FLOAT)


def _double(graph: Graph, name: str) -> str:
    return graph.add("Cast", name, to=TensorProto.DOUBLE)


def _conditions(
    graph: Graph, settings: JsonObject, arrays: Arrays, readings: str, valid: str
) -> str:
    """Mirror `features._conditions`; "" where there are none."""
    names, sensors = list(settings["regimes"]["conditions"]), list(settings["sensors"])
    if not names:
        return ""
    at = graph.integers([sensors.index(c) for c in names])
    c = graph.add("Gather", readings, at, axis=2)
    c = graph.add("Sub", c, graph.doubles(arrays["condition_middle"]))
    c = graph.add("Div", c, graph.doubles(arrays["condition_spread"]))
    return graph.add("Where", graph.add("Gather", valid, at, axis=2), c, graph.doubles(0.0))


def _usual(
    graph: Graph, arrays: Arrays, conditions: str, shape: tuple[int, int]
) -> tuple[str, str]:
    """Mirror `features.expected`: what is usual in the regime of each row, and its spread."""
    usual, scale = np.asarray(arrays["usual"]), np.asarray(arrays["scale"])
    if not conditions:
        return graph.doubles(usual[0]), graph.doubles(scale[0])
    centers = np.asarray(arrays["centers"], dtype=np.float64)
    lags, sensors = shape
    flat = graph.add("Reshape", conditions, graph.integers([-1, 1, centers.shape[1]]))
    far = graph.add("Sub", flat, graph.doubles(centers[None]))
    square = graph.add("Mul", far, far)
    axes = graph.integers([2])
    regime = graph.add(
        "ArgMin", graph.add("ReduceSum", square, axes, keepdims=0), axis=1, keepdims=0
    )
    slopes = graph.add("Gather", graph.doubles(arrays["slopes"]), regime, axis=0)  # [rows, C, S]
    point = graph.add("Reshape", conditions, graph.integers([-1, centers.shape[1], 1]))
    middle = graph.add("Gather", graph.doubles(centers[:, :, None]), regime, axis=0)
    follows = graph.add("Mul", graph.add("Sub", point, middle), slopes)
    moved = graph.add("ReduceSum", follows, graph.integers([1]), keepdims=0)
    made = graph.add("Add", graph.add("Gather", graph.doubles(usual), regime, axis=0), moved)
    spread = graph.add("Gather", graph.doubles(scale), regime, axis=0)
    back = graph.integers([-1, lags, sensors])
    return graph.add("Reshape", made, back), graph.add("Reshape", spread, back)


def _statistics(graph: Graph, window: _Window) -> dict[str, str]:
    """Mirror `features.statistics`."""
    spans = Spans.of(window.lags)
    short, mean = _mean(graph, window, spans.short), _mean(graph, window, window.lags)
    apart = graph.add("Sub", window.z, graph.add("Unsqueeze", mean, graph.integers([1])))
    squares = graph.add("Mul", graph.add("Mul", apart, apart), window.mask)
    variance = graph.add("Div", _sum(graph, squares), _count(graph, window.mask))
    zero = graph.doubles(0.0)
    there, last = _last(graph, window.inside, window.lags), _last(graph, window.z, window.lags)
    lowest = graph.add("Where", window.inside, window.z, graph.doubles(CLIP))
    highest = graph.add("Where", window.inside, window.z, graph.doubles(-CLIP))
    any_there = graph.add("Greater", _sum(graph, window.mask), graph.doubles(0.5))
    return {
        "newest": graph.add("Where", there, last, short),
        "mean_short": short,
        "mean_middle": _mean(graph, window, spans.middle),
        "mean": mean,
        "spread": graph.add("Sqrt", variance),
        "slope_middle": _slope(graph, window, spans, spans.middle),
        "slope": _slope(graph, window, spans, window.lags),
        "lowest": graph.add(
            "Where", any_there, graph.add("ReduceMin", lowest, axes=[1], keepdims=0), zero
        ),
        "highest": graph.add(
            "Where", any_there, graph.add("ReduceMax", highest, axes=[1], keepdims=0), zero
        ),
    }


def _mean(graph: Graph, window: _Window, span: int) -> str:
    mask = _newest(graph, window.mask, span, window.lags)
    z = _newest(graph, window.z, span, window.lags)
    return graph.add("Div", _sum(graph, z), _count(graph, mask))


def _slope(graph: Graph, window: _Window, spans: Spans, span: int) -> str:
    z = _newest(graph, window.z, span, window.lags)
    mask = _newest(graph, window.mask, span, window.lags)
    at = graph.doubles(spans.time[-span:, None])
    middle = graph.add("Div", _sum(graph, graph.add("Mul", mask, at)), _count(graph, mask))
    far = graph.add("Sub", at, graph.add("Unsqueeze", middle, graph.integers([1])))
    far = graph.add("Mul", far, mask)
    top = _sum(graph, graph.add("Mul", far, z))
    bottom = _sum(graph, graph.add("Mul", far, far))
    return graph.add("Div", top, graph.add("Add", bottom, graph.doubles(SLOPE_SHRINK)))


def _last(graph: Graph, name: str, lags: int) -> str:
    """Return the newest row of a window."""
    row = graph.add("Gather", name, graph.integers([lags - 1]), axis=1)
    return graph.add("Squeeze", row, graph.integers([1]))


def _newest(graph: Graph, name: str, span: int, lags: int) -> str:
    """Return the newest rows of a window."""
    if span == lags:
        return name
    end = np.iinfo(np.int64).max
    bounds = (graph.integers([-span]), graph.integers([end]), graph.integers([1]))
    return graph.add("Slice", name, *bounds)


def _sum(graph: Graph, name: str) -> str:
    return graph.add("ReduceSum", name, graph.integers([1]), keepdims=0)


def _count(graph: Graph, mask: str) -> str:
    return graph.add("Max", _sum(graph, mask), graph.doubles(1.0))


def _body(graph: Graph, settings: JsonObject, arrays: Arrays, x: str) -> str:
    """Return the remaining life [batch, 1], not yet kept within its range."""
    if settings["body"] == "trees":
        return trees(graph, Forest.from_arrays(arrays), x)
    u = graph.add("Sub", x, graph.floats(arrays["feature_center"]))
    u = graph.add("Div", u, graph.floats(arrays["feature_scale"]))
    u = graph.add("Max", u, graph.floats(arrays["floor"]))
    u = graph.add("Min", u, graph.floats(arrays["ceiling"]))
    return _hinges(graph, hinges_of(arrays), arrays["weights"], u)


def _hinges(graph: Graph, hinges: Hinges, weights: Array, u: str) -> str:
    joined = u
    if len(hinges.source):
        source = graph.add("Gather", u, graph.integers(hinges.source), axis=1)
        hinge = graph.add("Relu", graph.add("Sub", source, graph.floats(hinges.knot)))
        joined = graph.add("Concat", u, hinge, axis=1)
    product = graph.add("MatMul", joined, graph.floats(weights[1:]))
    return graph.add("Add", product, graph.floats(weights[0]))


def _answers(graph: Graph, arrays: Arrays, made: str, top: float) -> None:
    """Mirror `model.Estimator.answer`."""
    flat = graph.integers([-1])
    graph.add("Reshape", made, flat, name="expected")
    below = graph.add("Sub", made, _between(graph, arrays, made, "spread.below"))
    above = graph.add("Add", made, _between(graph, arrays, made, "spread.above"))
    graph.add("Reshape", graph.add("Max", below, graph.floats(0.0)), flat, name="low")
    graph.add("Reshape", graph.add("Min", above, graph.floats(top)), flat, name="high")
    life = graph.add("Max", "expected", graph.floats(SHORTEST))
    graph.add("Div", "alarm_at", life, name="score")
    graph.add("Greater", "score", graph.floats(1.0), name="alarm")


def _between(graph: Graph, arrays: Arrays, made: str, name: str) -> str:
    """Write linear interpolation by the predicted life as a sum of hinges."""
    at, value = np.asarray(arrays["spread.at"]), np.asarray(arrays[name])
    if len(at) == 1:
        return graph.floats(value)
    inner: Any = np.diff(value) / np.diff(at)
    slopes = np.concatenate([[0.0], inner, [0.0]])
    hinge = graph.add("Relu", graph.add("Sub", made, graph.floats(at)))
    rise = graph.add("Mul", hinge, graph.floats(np.diff(slopes)))
    total = graph.add("ReduceSum", rise, graph.integers([1]), keepdims=1)
    return graph.add("Add", total, graph.floats(value[:1]))
