"""Small generated graphs with the shapes of packages, and the first of them in numpy."""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from genba.core.protocols import Array, Tensors

LAGS: Final = 3
SENSORS: Final = 4
ENTITIES: Final = 2
_HIDDEN: Final = 16
_CHANNELS: Final = 64  # of the convolutions of `dense_graph`, and how many pixels they see
_SIDE: Final = 32
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


def image_graph(size: int) -> bytes:
    """Return a graph that looks at images: `image` and `bar` in, seven outputs.

    The score is the brightness, from 0 to 1, divided by `bar`; `map` and `mask` are the same for
    each pixel; the class is the strongest of red, green and blue, -1 for grey. It has learnt
    nothing.

    Args:
        size: Width and height of the images.
    """
    arrays = {
        "white": np.array(255, dtype=np.float32),
        "limit": np.array(1, dtype=np.float32),
        "none": np.array(-1, dtype=np.int64),
        "almost": np.array(0.34, dtype=np.float32),
        "little": np.array(1e-6, dtype=np.float32),
        "colours": np.array([3], dtype=np.int64),
        "plane": np.array([1, 2], dtype=np.int64),
        "last": np.array([1], dtype=np.int64),
        "wide": np.array([-1, 1, 1], dtype=np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        node("Div", ["numbers", "white"], ["bright"]),
        node("ReduceMean", ["bright", "colours"], ["grey"], keepdims=0),
        node("Reshape", ["bar", "wide"], ["bar_of_map"]),
        node("Div", ["grey", "bar_of_map"], ["map"]),
        node("Greater", ["map", "limit"], ["mask"]),
        node("ReduceMean", ["grey", "plane"], ["brightness"], keepdims=0),
        node("Div", ["brightness", "bar"], ["score"]),
        node("Greater", ["score", "limit"], ["alarm"]),
        node("ReduceMean", ["bright", "plane"], ["look"], keepdims=0),
        node("Add", ["look", "little"], ["positive"]),
        node("ReduceSum", ["positive", "last"], ["total"], keepdims=1),
        node("Div", ["positive", "total"], ["probability"]),
        node("ArgMax", ["probability"], ["strongest"], axis=1, keepdims=0),
        node("ReduceMax", ["probability", "last"], ["sure"], keepdims=0),
        node("Greater", ["sure", "almost"], ["coloured"]),
        node("Where", ["coloured", "strongest", "none"], ["class"]),
    ]
    number, rows = TensorProto.FLOAT, "N"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "generated",
        [
            value("image", TensorProto.UINT8, [rows, size, size, 3]),
            value("bar", number, [rows]),
        ],
        [
            value("score", number, [rows]),
            value("alarm", TensorProto.BOOL, [rows]),
            value("class", TensorProto.INT64, [rows]),
            value("probability", number, [rows, 3]),
            value("look", number, [rows, 3]),
            value("map", number, [rows, size, size]),
            value("mask", TensorProto.BOOL, [rows, size, size]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return _serialised(graph)


def dense_graph() -> bytes:
    """Return a graph of convolutions with much arithmetic for each number: `pixels` to `score`.

    Its weights are generated, it has learnt nothing.
    """
    chance = np.random.default_rng(0)
    arrays, nodes, last = {}, [], "pixels"
    for number, channels in enumerate((3, *[_CHANNELS] * 2)):
        spread = (2 / (9 * channels)) ** 0.5
        weights = chance.normal(size=(_CHANNELS, channels, 3, 3)) * spread
        arrays[f"weights_{number}"] = weights.astype(np.float32)
        arrays[f"bias_{number}"] = np.zeros(_CHANNELS, dtype=np.float32)
        given = [last, f"weights_{number}", f"bias_{number}"]
        nodes += [
            helper.make_node("Conv", given, [f"conv_{number}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"conv_{number}"], [f"relu_{number}"]),
        ]
        last = f"relu_{number}"
    nodes.append(helper.make_node("ReduceMean", [last], ["score"], axes=[1, 2, 3], keepdims=0))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "generated",
        [value("pixels", TensorProto.FLOAT, ["N", 3, _SIDE, _SIDE])],
        [value("score", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=_IR)
    data: bytes = model.SerializeToString()
    return data


def dense_batch(rows: int, seed: int = 1) -> dict[str, Array]:
    """Return generated inputs of `dense_graph`."""
    pixels = np.random.default_rng(seed).normal(size=(rows, 3, _SIDE, _SIDE))
    return {"pixels": pixels.astype(np.float32)}


def clock_graph() -> bytes:
    """Return a graph with inputs `recent`, `time` and an output `expected` of two steps ahead.

    It expects the last value and, in the next step, the hour of the day in UTC.
    """
    arrays = {
        "newest": np.array(-1, dtype=np.int64),
        "hour": np.array(3_600_000, dtype=np.int64),
        "day": np.array(24, dtype=np.int64),
        "column": np.array([-1, 1, 1], dtype=np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["recent", "newest"], ["value"], axis=1),
        node("Reshape", ["value", "column"], ["first"]),
        node("Div", ["time", "hour"], ["hours"]),
        node("Mod", ["hours", "day"], ["hour_of_day"]),
        node("Cast", ["hour_of_day"], ["as_number"], to=TensorProto.FLOAT),
        node("Reshape", ["as_number", "column"], ["second"]),
        node("Concat", ["first", "second"], ["expected"], axis=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "generated",
        [
            value("recent", TensorProto.FLOAT, ["N", LAGS, 1]),
            value("time", TensorProto.INT64, ["N"]),
        ],
        [value("expected", TensorProto.FLOAT, ["N", 2, 1])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return _serialised(graph)


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
