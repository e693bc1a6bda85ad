"""The model as one ONNX graph: normalisation, backbone, distances, map, score and alarm inside."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from genba.core.protocols import Array
from genba.core.task import Model
from genba.learn.graph import Graph, serialise
from genba.tasks.vision.anomaly import schema
from genba.tasks.vision.anomaly.model import BLOCKS, GREY, OFFSET, highest_cells, load_as_trained

Arrays = Mapping[str, Array]
Settings = Mapping[str, Any]

_BANK_ROWS: Final = 256  # compared at a time: what is held at once stays small in any batch


def export(model: Model) -> bytes:
    """Return the model as serialised ONNX."""
    graph, settings, arrays = Graph(), model.settings, model.arrays
    size = int(settings["size"])
    backbone = load_as_trained(settings)
    taps = backbone.graph_parts(graph, "image", size=size, taps=settings["taps"])
    vectors = _vectors(graph, arrays, taps)
    head = _gaussian if settings["head"] == "gaussian" else _nearest
    _chart(graph, settings, arrays, head(graph, arrays, vectors))
    _score(graph, settings, (size // schema.CELL) ** 2)
    _embedding(graph, arrays, vectors)
    _look(graph, size)
    return serialise(graph, "vision.anomaly", schema.signature(settings))


def _vectors(graph: Graph, arrays: Arrays, taps: Mapping[str, str]) -> str:
    """Mirror `patches.vectors`: one vector per patch [batch, places, dims]."""
    parts: list[str] = []
    for name, tensor in taps.items():
        weights = np.ascontiguousarray(np.asarray(arrays[f"project.{name}"]).T)[:, :, None, None]
        small = graph.add("Conv", tensor, graph.floats(weights), kernel_shape=[1, 1])
        matrix = np.asarray(arrays[f"gather.{name}"])
        wide = graph.add("MatMul", graph.floats(matrix), small)
        parts.append(graph.add("MatMul", wide, graph.floats(matrix.T)))
    whole = parts[0]
    for part in parts[1:]:
        whole = graph.add("Add", whole, part)
    dims = np.asarray(arrays["mean"]).shape[-1]
    flat = graph.add("Reshape", whole, graph.integers([0, dims, -1]))
    return graph.add("Transpose", flat, perm=[0, 2, 1])


def _gaussian(graph: Graph, arrays: Arrays, vectors: str) -> str:
    """Mirror `model._gaussian`: one matrix product per place, all places at once."""
    whiten = np.asarray(arrays["whiten"])
    away = graph.add("Sub", vectors, graph.floats(arrays["mean"]))
    away = graph.add("Transpose", away, perm=[1, 0, 2])
    white = graph.add("MatMul", away, graph.floats(whiten.transpose(0, 2, 1)))
    squares = graph.add("ReduceMean", graph.add("Mul", white, white), axes=[2], keepdims=0)
    return graph.add("Transpose", graph.add("Sqrt", squares), perm=[1, 0])


def _nearest(graph: Graph, arrays: Arrays, vectors: str) -> str:
    """Mirror `model._nearest`, a part of the bank at a time."""
    bank = np.asarray(arrays["bank"], dtype=np.float32)
    dims = bank.shape[1]
    away = graph.add("Sub", vectors, graph.floats(arrays["mean"]))
    least = ""
    for start in range(0, len(bank), _BANK_ROWS):
        part = bank[start : start + _BANK_ROWS]
        product = graph.add("MatMul", away, graph.floats(-2.0 * part.T))
        found = graph.add("Add", product, graph.floats(np.einsum("kd,kd->k", part, part)))
        nearest = graph.add("ReduceMin", found, axes=[2], keepdims=0)
        least = graph.add("Min", least, nearest) if least else nearest
    length = graph.add("ReduceSum", graph.add("Mul", away, away), graph.integers([2]), keepdims=0)
    squares = graph.add("Relu", graph.add("Add", least, length))
    return graph.add("Sqrt", graph.add("Div", squares, graph.floats(float(dims))))


def _chart(graph: Graph, settings: Settings, arrays: Arrays, found: str) -> None:
    """Mirror `model.chart_of`."""
    matrix = np.asarray(arrays["spread"])
    grid = matrix.shape[1]
    shaped = graph.add("Reshape", found, graph.integers([-1, grid, grid]))
    wide = graph.add("MatMul", graph.floats(matrix), shaped)
    chart = graph.add("MatMul", wide, graph.floats(matrix.T))
    away = graph.add("Sub", chart, graph.floats(arrays["level.mean"]))
    away = graph.add("Mul", away, graph.floats(arrays["level.gain"]))
    level = graph.add("Relu", graph.add("Add", away, graph.floats(OFFSET)))
    graph.add("Div", level, graph.floats(float(settings["limit"])), name="map")
    graph.add("Greater", "map", graph.floats(float(settings["pixel_threshold"])), name="mask")


def _score(graph: Graph, settings: Settings, cells: int) -> None:
    """Mirror `model.pooled`."""
    flat = graph.add("Flatten", "map", axis=1)
    highest = highest_cells(cells, settings)
    if highest == 1:
        graph.add("ReduceMax", flat, axes=[1], keepdims=0, name="score")
    else:
        top = _top(graph, flat, highest)
        graph.add("ReduceMean", top, axes=[1], keepdims=0, name="score")
    graph.add("Greater", "score", "threshold", name="alarm")


def _top(graph: Graph, flat: str, count: int) -> str:
    """Return the largest values of each row; `Graph.add` knows operators of one output only."""
    values = f"top_{len(graph.nodes)}"
    node = graph.add("TopK", flat, graph.integers([count]), axis=1, largest=1, sorted=0)
    graph.nodes[-1].output[:] = [values, f"{node}_at"]
    return values


def _embedding(graph: Graph, arrays: Arrays, vectors: str) -> None:
    """Mirror `model.embedding`."""
    whole = graph.add("ReduceMean", vectors, axes=[1], keepdims=0)
    centred = graph.add("Sub", whole, graph.floats(arrays["embed.mean"]))
    graph.add("MatMul", centred, graph.floats(arrays["embed.map"]), name="embedding")


def _look(graph: Graph, size: int) -> None:
    """Mirror `model.look`."""
    pixels = graph.add("Cast", "image", to=TensorProto.FLOAT)
    pixels = graph.add("Div", pixels, graph.floats(255.0))
    grey = graph.add("MatMul", pixels, graph.floats(np.array(GREY)[:, None]))
    grey = graph.add("Reshape", grey, graph.integers([-1, size, size]))
    mean = graph.add("ReduceMean", grey, axes=[1, 2], keepdims=1)
    side = size // BLOCKS
    blocks = graph.add("Reshape", grey, graph.integers([-1, BLOCKS, side, BLOCKS, side]))
    blocks = graph.add("ReduceMean", blocks, axes=[2, 4], keepdims=0)
    most = graph.add("ReduceMax", pixels, axes=[3], keepdims=0)
    least = graph.add("ReduceMin", pixels, axes=[3], keepdims=0)
    found = {
        "brightness": graph.add("Reshape", mean, graph.integers([-1, 1])),
        "contrast": _deviation(graph, grey, mean),
        "sharpness": graph.add("Add", _steps(graph, grey, 1, size), _steps(graph, grey, 2, size)),
        "saturation": _mean(graph, graph.add("Sub", most, least)),
        "warmth": _mean(graph, graph.add("MatMul", pixels, graph.floats([[1.0], [0.0], [-1.0]]))),
        "unevenness": _deviation(graph, blocks, mean),
    }
    graph.add("Concat", *(found[name] for name in schema.LOOKS), axis=1, name="look")


def _mean(graph: Graph, values: str) -> str:
    """Return the mean of each image [batch, 1]."""
    return graph.add("ReduceMean", graph.add("Flatten", values, axis=1), axes=[1], keepdims=1)


def _deviation(graph: Graph, values: str, mean: str) -> str:
    away = graph.add("Sub", values, mean)
    return graph.add("Sqrt", _mean(graph, graph.add("Mul", away, away)))


def _steps(graph: Graph, grey: str, axis: int, size: int) -> str:
    """Return the mean difference of neighbouring pixels along an axis."""
    one = graph.integers([1])
    later = graph.add("Slice", grey, one, graph.integers([size]), graph.integers([axis]))
    sooner = graph.add(
        "Slice", grey, graph.integers([0]), graph.integers([size - 1]), graph.integers([axis])
    )
    return _mean(graph, graph.add("Abs", graph.add("Sub", later, sooner)))
