"""The middle of the graph: what calendar and covariates explain, the linear map, the trees."""

from typing import Final

import numpy as np
from onnx import TensorProto

from genba.core.protocols import JsonObject
from genba.learn.graph import Graph, trees
from genba.learn.trees import Forest
from genba.tasks.sensor.forecast import features, steps
from genba.tasks.sensor.forecast.batch import Arrays
from genba.tasks.sensor.forecast.explained import Explained
from genba.tasks.sensor.forecast.export_inputs import Inputs, calendar_bins, cut, mean

_FLOAT: Final = TensorProto.FLOAT
_END: Final = np.iinfo(np.int64).max


def body(graph: Graph, settings: JsonObject, arrays: Arrays, made: Inputs) -> str:
    """Append the body and return its expected values in units of the entity [N, H, O]."""
    kind = settings["body"]
    if kind == "linear":
        return _linear(graph, settings, arrays, made)
    if kind == "trees":
        return _trees(graph, settings, arrays, made)
    share = np.asarray(arrays["share"])
    left = graph.add("Mul", _linear(graph, settings, arrays, made), graph.floats(share))
    right = graph.add("Mul", _trees(graph, settings, arrays, made), graph.floats(1.0 - share))
    return graph.add("Add", left, right)


def _linear(graph: Graph, settings: JsonObject, arrays: Arrays, made: Inputs) -> str:
    """Mirror `features.linear` and the map, with outputs as the first axis."""
    weights, lags = np.asarray(arrays["weights"]), int(settings["lags"])
    z = graph.add("Transpose", made.z, perm=[2, 0, 1])
    level = graph.add("ReduceMean", z, axes=[2], keepdims=1)
    parts = [graph.add("Sub", z, level)]
    if settings["explained"]:
        f = explained(graph, settings, arrays, made)
        f = graph.add("Transpose", f, perm=[2, 0, 1])
        usual = graph.add("ReduceMean", cut(graph, f, 2, 0, lags), axes=[2], keepdims=1)
        newest = cut(graph, f, 2, lags - features.explained_span(settings), _END)
        parts.append(graph.add("Sub", newest, usual))
    if made.beside and weights.shape[1] > lags:
        zeros = graph.floats(np.zeros((len(settings["outputs"]), 1, 1)))
        beside = graph.add("Unsqueeze", made.beside, graph.integers([0]))
        parts.append(graph.add("Add", beside, zeros))
    x = graph.add("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    product = graph.add("MatMul", x, graph.floats(weights))
    return graph.add("Transpose", graph.add("Add", product, level), perm=[1, 2, 0])


def explained(graph: Graph, settings: JsonObject, arrays: Arrays, made: Inputs) -> str:
    """Mirror `Explained.apply` [N, L + H, O]."""
    known = Explained.from_arrays(arrays)
    bins = calendar_bins(graph, made.local, settings)
    total = graph.add("Gather", graph.floats(known.profile), bins["profile"], axis=0)
    for place, column in enumerate(known.flags):
        daily = graph.add("Gather", graph.floats(known.daily[place]), bins["day"], axis=0)
        flag = graph.add("Gather", made.known, graph.integers([column]), axis=2)
        total = graph.add("Add", total, graph.add("Mul", daily, flag))
    if len(known.curves):
        total = graph.add("Add", total, _slopes(graph, settings, known, made))
    if len(known.year):
        waves = _waves(graph, made.local, steps.YEAR_MS, len(known.year) // 2)
        sizes = np.concatenate([known.year[0::2], known.year[1::2]])
        total = graph.add("Add", total, graph.add("MatMul", waves, graph.floats(sizes)))
    return total


def _slopes(graph: Graph, settings: JsonObject, known: Explained, made: Inputs) -> str:
    """Hinges whose slopes vary with the time of day."""
    x = graph.add("Gather", made.known, graph.integers(known.curves), axis=2)
    source = graph.add("Gather", x, graph.integers(known.source), axis=2)
    hinge = graph.add("Relu", graph.add("Sub", source, graph.floats(known.knot)))
    basis = graph.add("Concat", x, hinge, axis=2)
    slopes = np.concatenate([known.slopes[:1], known.slopes[1::2], known.slopes[2::2]])
    count, width, outputs = slopes.shape
    flat = slopes.transpose(1, 0, 2).reshape(width, count * outputs)
    product = graph.add("MatMul", basis, graph.floats(flat[1:]))
    product = graph.add("Add", product, graph.floats(flat[0]))
    if count == 1:
        return product
    length = int(settings["lags"]) + int(settings["ahead"])
    product = graph.add("Reshape", product, graph.integers([-1, length, count, outputs]))
    waves = _waves(graph, made.local, steps.DAY_MS, count // 2, constant=True)
    waves = graph.add("Unsqueeze", waves, graph.integers([3]))
    varied = graph.add("Mul", product, waves)
    return graph.add("ReduceSum", varied, graph.integers([2]), keepdims=0)


def _waves(graph: Graph, local: str, period: int, count: int, *, constant: bool = False) -> str:
    """Return 1 (if asked), cosines, then sines of 1 to `count` turns a period [..., waves]."""
    inside = graph.add("Cast", graph.add("Mod", local, graph.integers(period)), to=_FLOAT)
    inside = graph.add("Unsqueeze", inside, graph.integers([2]))
    turns = 2.0 * np.pi / period * np.arange(0 if constant else 1, count + 1)
    cosine = graph.add("Cos", graph.add("Mul", inside, graph.floats(turns)))
    sine = graph.add("Sin", graph.add("Mul", inside, graph.floats(turns[-count:])))
    return graph.add("Concat", cosine, sine, axis=2)


def _trees(graph: Graph, settings: JsonObject, arrays: Arrays, made: Inputs) -> str:
    """Mirror `features.for_trees` and the forest."""
    layout = features.Layout.of(settings, annual=bool(settings["annual"]))
    outputs, (ahead, lags) = len(settings["outputs"]), layout.lags.shape
    length = int(settings["lags"])
    z = graph.add("Transpose", made.z, perm=[0, 2, 1])
    newest = cut(graph, z, 2, length - layout.span, length)
    level = graph.add("ReduceMean", newest, axes=[2], keepdims=1)
    z = graph.add("Sub", z, level)
    ones = graph.floats(np.ones((1, outputs, ahead, 1)))
    earlier = graph.add("Gather", z, graph.integers(layout.lags.ravel()), axis=2)
    earlier = graph.add("Reshape", earlier, graph.integers([-1, outputs, ahead, lags]))
    recent = [
        graph.add("Unsqueeze", mean(graph, z, 2, *m), graph.integers([2, 3])) for m in layout.means
    ]
    points = [cut(graph, z, 2, p, p + 1) for p in layout.points]
    recent += [graph.add("Unsqueeze", p, graph.integers([3])) for p in points]
    parts = [earlier, graph.add("Mul", graph.add("Concat", *recent, axis=3), ones)]
    shared = graph.add("Unsqueeze", _moments(graph, layout, made), graph.integers([1]))
    parts.append(graph.add("Mul", shared, ones))
    if made.beside:
        beside = graph.add("Unsqueeze", made.beside, graph.integers([1, 2]))
        parts.append(graph.add("Mul", beside, ones))
    place = np.stack(np.meshgrid(np.arange(outputs), np.arange(ahead), indexing="ij"), axis=2)
    nothing = graph.add("Mul", cut(graph, earlier, 3, 0, 1), graph.floats(0.0))
    parts.append(graph.add("Add", nothing, graph.floats(place[None])))
    rows = graph.add("Concat", *parts, axis=3)
    flat = graph.add("Reshape", rows, graph.integers([-1, _width(layout, settings)]))
    made_of = trees(graph, Forest.from_arrays(arrays), flat)
    found = graph.add("Reshape", made_of, graph.integers([-1, outputs, ahead]))
    if settings["base"] == "season":
        base = cut(graph, earlier, 3, layout.base, layout.base + 1)
        found = graph.add("Add", found, graph.add("Squeeze", base, graph.integers([3])))
    return graph.add("Transpose", graph.add("Add", found, level), perm=[0, 2, 1])


def _moments(graph: Graph, layout: features.Layout, made: Inputs) -> str:
    """Return what is known of every moment ahead, and what clocks show then [N, H, ...]."""
    hour = graph.add("Mod", made.ahead, graph.integers(steps.DAY_MS))
    hour = graph.add("Div", graph.add("Cast", hour, to=_FLOAT), graph.floats(steps.HOUR_MS))
    weekday = graph.add("Div", made.ahead, graph.integers(steps.DAY_MS))
    weekday = graph.add("Cast", graph.add("Mod", weekday, graph.integers(7)), to=_FLOAT)
    clock = [hour, weekday]
    if layout.annual:
        inside = graph.add("Mod", made.ahead, graph.integers(steps.YEAR_MS))
        year = graph.add("Cast", inside, to=_FLOAT)
        clock.append(graph.add("Div", year, graph.floats(steps.YEAR_MS)))
    parts = [graph.add("Unsqueeze", c, graph.integers([2])) for c in clock]
    if made.known:
        around = graph.add("Gather", made.known, graph.integers(layout.before), axis=1)
        shape = graph.integers([0, 0, -1])
        parts.insert(0, graph.add("Reshape", around, shape))
    return graph.add("Concat", *parts, axis=2)


def _width(layout: features.Layout, settings: JsonObject) -> int:
    known, beside = len(settings["known"]), len(settings["beside"])
    wide = layout.lags.shape[1] + len(layout.means) + len(layout.points)
    wide += layout.before.shape[1] * known + (3 if layout.annual else 2) + 3 * beside
    return int(wide + 2)
