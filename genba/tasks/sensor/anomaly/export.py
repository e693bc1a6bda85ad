"""The model as one ONNX graph: cleaning, features, prediction, score and alarm inside."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from genba.core.protocols import Array
from genba.core.task import Model
from genba.learn.graph import Graph, serialise, trees
from genba.learn.linear import Hinges
from genba.learn.trees import Forest
from genba.tasks.sensor.anomaly import schema
from genba.tasks.sensor.anomaly.model import hinges_of


def export(model: Model) -> bytes:
    """Return the model as serialised ONNX."""
    graph, settings, arrays = Graph(), model.settings, model.arrays
    filled, valid = _fill(graph, settings, arrays)
    known = graph.add("Cast", valid, to=TensorProto.FLOAT)
    now = _last(graph, known, len(settings["sensors"])) if int(settings["lags"]) > 1 else known
    if settings["body"] == "components":
        predicted, residual = _components(graph, settings, arrays, filled, known)
    else:
        predicted, residual = _explained(graph, settings, arrays, filled, now)
    statistic = _statistic(graph, settings, arrays, predicted, residual)
    if "guess.extra" in arrays:
        statistic = graph.add("Div", statistic, _wide(graph, arrays, now))
    judged = _judged(graph, settings, arrays, now)
    statistic = graph.add("Where", judged, statistic, graph.floats(0.0))
    threshold = graph.add("Gather", graph.floats(arrays["thresholds"]), "entity", axis=0)
    graph.add("Div", statistic, threshold, name="score")
    graph.add("Greater", "score", graph.floats(1.0), name="alarm")
    _expected(graph, settings, arrays, predicted)
    return serialise(graph, "sensor.anomaly", schema.signature(settings))


def _explained(
    graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, Array], filled: str, now: str
) -> tuple[str, str]:
    """Predict the outputs and subtract; a reading that is missing has no residual."""
    predicted = _body(graph, settings, arrays, filled)
    start = (int(settings["lags"]) - 1) * len(settings["sensors"])
    actual = _standardise(graph, settings, arrays, filled, start + arrays["outputs"])
    residual = graph.add("Sub", actual, predicted)
    if settings["mode"] == "regression":  # not judged at all where anything is missing
        return predicted, residual
    return predicted, graph.add("Mul", residual, now)


def _statistic(
    graph: Graph,
    settings: Mapping[str, Any],
    arrays: Mapping[str, Array],
    predicted: str,
    residual: str,
) -> str:
    """Mirror `model.statistics`."""
    if settings["mode"] == "regression":
        size = graph.add("Div", graph.add("Abs", residual), _spread(graph, arrays, predicted))
        return graph.add("Reshape", size, graph.integers([-1]))
    mapped = graph.add("MatMul", residual, graph.floats(arrays["whiten"]))
    return graph.add("ReduceL2", mapped, axes=[1], keepdims=0)


def _valid(graph: Graph, settings: Mapping[str, Any], x: str) -> str:
    """Say which readings are there and plausible; comparisons with NaN are false."""
    low, high = (np.tile(limit, int(settings["lags"])) for limit in schema.limits(settings))
    return graph.add(
        "And",
        graph.add("GreaterOrEqual", x, graph.floats(low)),
        graph.add("LessOrEqual", x, graph.floats(high)),
    )


def _fill(
    graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, Array]
) -> tuple[str, str]:
    """Mirror `model.fill`."""
    lags, sensors = int(settings["lags"]), len(settings["sensors"])
    x = graph.add("Flatten", "window", axis=1)
    valid = _valid(graph, settings, x)
    usual = graph.floats(arrays["usual"])
    if lags == 1:
        now = graph.add("Where", valid, x, usual)
        return _guessed(graph, arrays, now, valid), valid
    there = _last(graph, valid, sensors)
    now = graph.add("Where", there, _last(graph, x, sensors), usual)
    now = _guessed(graph, arrays, now, there)
    return graph.add("Where", valid, x, graph.add("Concat", *[now] * lags, axis=1)), valid


def _guessed(graph: Graph, arrays: Mapping[str, Array], now: str, there: str) -> str:
    """Mirror `absent.guess`; what cannot be guessed keeps its usual value."""
    if "guess.extra" not in arrays:
        return now
    at, sensors = arrays["guess.at"], len(arrays["usual"])
    center, scale = graph.floats(arrays["guess.center"]), graph.floats(arrays["guess.scale"])
    lowest, highest = graph.floats(arrays["guess.lowest"]), graph.floats(arrays["guess.highest"])
    some = now if len(at) == sensors else graph.add("Gather", now, graph.integers(at), axis=1)
    u = graph.add("Div", graph.add("Sub", some, center), scale)
    u = graph.add("Min", graph.add("Max", u, lowest), highest)
    hinges = Hinges(source=arrays["guess.source"], knot=arrays["guess.knot"])
    found = _hinges(graph, hinges, arrays["guess.weights"], u)
    found = graph.add("Min", graph.add("Max", found, lowest), highest)
    found = graph.add("Add", graph.add("Mul", found, scale), center)
    if len(at) < sensors:  # the output of a regression stands where it stood
        place = np.full(sensors, len(at), dtype=np.int64)
        place[at] = np.arange(len(at))
        rest = np.setdiff1d(np.arange(sensors), at)
        place[rest] = len(at) + np.arange(len(rest))
        kept = graph.add("Gather", now, graph.integers(rest), axis=1)
        both = graph.add("Concat", found, kept, axis=1)
        found = graph.add("Gather", both, graph.integers(place), axis=1)
    return graph.add("Where", there, now, found)


def _wide(graph: Graph, arrays: Mapping[str, Array], now: str) -> str:
    """Mirror `absent.wide`: 1 and what every missing sensor adds."""
    added = np.zeros((len(arrays["usual"]), 1))
    added[arrays["guess.at"], 0] = arrays["guess.extra"]
    missing = graph.add("Sub", graph.floats(1.0), now)  # so that nothing missing is exactly 1
    whole = graph.add("Add", graph.add("MatMul", missing, graph.floats(added)), graph.floats(1.0))
    return graph.add("Squeeze", whole, graph.integers([1]))


def _judged(
    graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, Array], now: str
) -> str:
    """Mirror `Detector._judged`."""
    if settings["mode"] != "regression":
        judged = graph.add("ReduceMax", now, axes=[1], keepdims=0)
    elif "guess.extra" not in arrays:
        judged = graph.add("ReduceMin", now, axes=[1], keepdims=0)
    else:  # the output counts as much as all inputs together; one of them must be there besides
        weight = np.zeros((len(arrays["usual"]), 1))
        weight[arrays["guess.at"], 0] = 1.0
        weight[arrays["outputs"], 0] = len(arrays["guess.at"])
        total = graph.add("MatMul", now, graph.floats(weight))
        judged = graph.add("Squeeze", total, graph.integers([1]))
        return graph.add("Greater", judged, graph.floats(len(arrays["guess.at"]) + 0.5))
    return graph.add("Greater", judged, graph.floats(0.5))


def _body(
    graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, Array], filled: str
) -> str:
    if settings["body"] == "trees":
        return trees(graph, Forest.from_arrays(arrays), filled)
    u = _standardise(graph, settings, arrays, filled, arrays["columns"])
    u = graph.add("Max", u, graph.floats(arrays["floor"]))
    u = graph.add("Min", u, graph.floats(arrays["ceiling"]))
    predicted = _hinges(graph, hinges_of(arrays), arrays["weights"], u)
    predicted = graph.add("Max", predicted, graph.floats(arrays["lowest"]))
    return graph.add("Min", predicted, graph.floats(arrays["highest"]))


def _components(
    graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, Array], filled: str, known: str
) -> tuple[str, str]:
    everything = np.arange(int(settings["lags"]) * len(settings["sensors"]))
    u = _standardise(graph, settings, arrays, filled, everything)
    centred = graph.add("Sub", u, graph.floats(arrays["offset"]))
    kept, now = arrays["components"], -len(settings["sensors"])
    parts = graph.add("MatMul", centred, graph.floats(kept))
    predicted = graph.add("MatMul", parts, graph.floats(kept.T[:, now:]))
    predicted = graph.add("Add", predicted, graph.floats(arrays["offset"][now:]))
    return predicted, graph.add("Mul", centred, known)


def _spread(graph: Graph, arrays: Mapping[str, Array], predicted: str) -> str:
    """Write linear interpolation as a sum of hinges."""
    at, value = arrays["spread.at"], arrays["spread.value"]
    if len(at) == 1:
        return graph.floats(value)
    slopes = np.concatenate([[0.0], np.diff(value) / np.diff(at), [0.0]])
    hinge = graph.add("Relu", graph.add("Sub", predicted, graph.floats(at)))
    rise = graph.add("MatMul", hinge, graph.floats(np.diff(slopes)[:, None]))
    return graph.add("Add", rise, graph.floats(value[:1]))


def _expected(
    graph: Graph, settings: Mapping[str, Any], arrays: Mapping[str, Array], predicted: str
) -> None:
    if settings["transform"] == "asinh":
        predicted = graph.add("Sinh", predicted)
    outputs = arrays["outputs"]
    scaled = graph.add("Mul", predicted, graph.floats(arrays["scale"][outputs]))
    graph.add("Add", scaled, graph.floats(arrays["center"][outputs]), name="expected")


def _standardise(
    graph: Graph,
    settings: Mapping[str, Any],
    arrays: Mapping[str, Array],
    filled: str,
    columns: Array,
) -> str:
    lags = int(settings["lags"])
    center, scale = (np.tile(arrays[n], lags)[columns] for n in ("center", "scale"))
    if len(columns) < lags * len(settings["sensors"]):
        filled = graph.add("Gather", filled, graph.integers(columns), axis=1)
    u = graph.add("Div", graph.add("Sub", filled, graph.floats(center)), graph.floats(scale))
    return graph.add("Asinh", u) if settings["transform"] == "asinh" else u


def _hinges(graph: Graph, hinges: Hinges, weights: Array, u: str) -> str:
    source = graph.add("Gather", u, graph.integers(hinges.source), axis=1)
    hinge = graph.add("Relu", graph.add("Sub", source, graph.floats(hinges.knot)))
    joined = graph.add("Concat", u, hinge, axis=1)
    product = graph.add("MatMul", joined, graph.floats(weights[1:]))
    return graph.add("Add", product, graph.floats(weights[0]))


def _last(graph: Graph, flat: str, columns: int) -> str:
    """Return the last columns: the readings of now in a flat window."""
    end = np.iinfo(np.int64).max
    bounds = (graph.integers([-columns]), graph.integers([end]), graph.integers([1]))
    return graph.add("Slice", flat, *bounds)
