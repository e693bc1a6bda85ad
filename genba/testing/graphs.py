"""A small generated graph with the shape of a sensor package, and the same in numpy."""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from genba.core.protocols import Array, Tensors

LAGS: Final = 3
SENSORS: Final = 4
ENTITIES: Final = 2
_HIDDEN: Final = 16
_OPSET: Final = 18
_IR: Final = 9


def small_graph(seed: int = 0) -> bytes:
    """Return a graph with inputs `window`, `entity` and outputs `score`, `alarm`, `expected`.

    Missing values count as 0, an unknown entity (-1) has the last threshold. The numbers in it
    are generated, it has learnt nothing.
    """
    arrays = _arrays(seed) | {
        "flat": np.array([-1, LAGS * SENSORS], dtype=np.int64),
        "axis": np.array([1], dtype=np.int64),
        "nothing": np.array(0, dtype=np.float32),
        "limit": np.array(1, dtype=np.float32),
        "wrap": np.array(ENTITIES + 1, dtype=np.int64),
    }
    node = helper.make_node
    nodes = [
        node("IsNaN", ["window"], ["missing"]),
        node("Where", ["missing", "nothing", "window"], ["filled"]),
        node("Reshape", ["filled", "flat"], ["row"]),
        node("MatMul", ["row", "first"], ["mixed"]),
        node("Relu", ["mixed"], ["hidden"]),
        node("MatMul", ["hidden", "second"], ["expected"]),
        node("ReduceL2", ["expected", "axis"], ["size"], keepdims=0),
        node("Add", ["entity", "wrap"], ["shifted"]),
        node("Mod", ["shifted", "wrap"], ["index"]),
        node("Gather", ["threshold", "index"], ["allowed"]),
        node("Div", ["size", "allowed"], ["score"]),
        node("Greater", ["score", "limit"], ["alarm"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "generated",
        [
            value("window", TensorProto.FLOAT, ["N", LAGS, SENSORS]),
            value("entity", TensorProto.INT64, ["N"]),
        ],
        [
            value("score", TensorProto.FLOAT, ["N"]),
            value("alarm", TensorProto.BOOL, ["N"]),
            value("expected", TensorProto.FLOAT, ["N", 1]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return _serialised(graph)


def small_reference(tensors: Tensors, seed: int = 0) -> dict[str, Array]:
    """Return what `small_graph` computes, in numpy and float64."""
    arrays = _arrays(seed)
    window = np.nan_to_num(np.asarray(tensors["window"], dtype=np.float64), nan=0.0)
    hidden = np.maximum(window.reshape(len(window), -1) @ arrays["first"].astype(np.float64), 0)
    expected = hidden @ arrays["second"].astype(np.float64)
    index = np.asarray(tensors["entity"]) % (ENTITIES + 1)
    score = np.linalg.norm(expected, axis=1) / arrays["threshold"][index]
    return {"score": score, "alarm": score > 1, "expected": expected}


def small_batch(rows: int, seed: int = 1) -> dict[str, Array]:
    """Return generated inputs of `small_graph`, about one value in ten missing."""
    chance = np.random.default_rng(seed)
    window = chance.normal(size=(rows, LAGS, SENSORS)).astype(np.float32)
    window[chance.random(window.shape) < 0.1] = np.nan
    entity = chance.integers(-1, ENTITIES, size=rows, dtype=np.int64)
    return {"window": window, "entity": entity}


def graph_with_outside_data(location: str) -> bytes:
    """Return a graph whose weights are in another file; nothing may load it."""
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4, 4])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "outside",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
        [weights],
    )
    return _serialised(graph)


def graph_with_unknown_operator() -> bytes:
    """Return a graph with an operator that no runtime has."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Nothing", ["x"], ["y"], domain="genba.example")],
        "unknown",
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
    )
    return _serialised(graph, helper.make_opsetid("genba.example", 1))


def _arrays(seed: int) -> dict[str, Array]:
    chance = np.random.default_rng(seed)
    return {
        "first": (chance.normal(size=(LAGS * SENSORS, _HIDDEN)) / 4).astype(np.float32),
        "second": (chance.normal(size=(_HIDDEN, 1)) / 4).astype(np.float32),
        "threshold": np.linspace(0.5, 1.0, ENTITIES + 1, dtype=np.float32),
    }


def _serialised(graph: object, *more: object) -> bytes:
    opsets = [helper.make_opsetid("", _OPSET), *more]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    data: bytes = model.SerializeToString()
    return data
