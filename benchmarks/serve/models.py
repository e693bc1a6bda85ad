"""The two models that every server gets, the questions asked of them, and what they answer.

`tab` is a multilayer perceptron 64-128-128-2, `cnn` a ResNet-18 for 224 x 224 pixels; their weights
are random with a fixed seed, because only what they cost is measured. One input `x` and one output
`y`, float32, so that the same file fits every server.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from genba.core.protocols import Array
from genba.learn.graph import OPSET, Graph

NAMES: Final = ("tab", "cnn")
SHAPES: Final = {"tab": (64,), "cnn": (3, 224, 224)}
OUTPUTS: Final = {"tab": 2, "cnn": 1000}
#: Rows of a batch where a peer has to be told.
BATCH: Final = {"tab": 64, "cnn": 8}
TITLES: Final = {"tab": "tabular 64-128-128-2", "cnn": "ResNet-18, 224 pixels"}
_SEED: Final = 4
_LAYERS: Final = (64, 128, 128, 2)
_STAGES: Final = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride, two blocks each
_IR: Final = 9


def write_models(folder: Path, seed: int = _SEED) -> dict[str, str]:
    """Write both graphs as `NAME.onnx` and return their digests.

    Args:
        folder: Where to.
        seed: Of the weights.
    """
    digests = {}
    for name in NAMES:
        data = graph(name, seed)
        (folder / f"{name}.onnx").write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def graph(name: str, seed: int = _SEED) -> bytes:
    """Return a graph as ONNX."""
    chance = np.random.default_rng(seed)
    build, last = Graph(), "x"
    last = _perceptron(build, chance) if name == "tab" else _resnet(build, chance)
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [*build.nodes, helper.make_node("Identity", [last], ["y"])],
        name,
        [value("x", TensorProto.FLOAT, ["N", *SHAPES[name]])],
        [value("y", TensorProto.FLOAT, ["N", OUTPUTS[name]])],
        build.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model: onnx.ModelProto = helper.make_model(made, opset_imports=opsets, ir_version=_IR)
    data: bytes = model.SerializeToString()
    return data


def _perceptron(build: Graph, chance: np.random.Generator) -> str:
    last = "x"
    for number, (wide, narrow) in enumerate(zip(_LAYERS, _LAYERS[1:], strict=False)):
        weights = chance.normal(size=(wide, narrow)) * (2 / wide) ** 0.5
        bias = chance.normal(size=narrow) * 0.1
        last = build.add("Gemm", last, build.floats(weights), build.floats(bias))
        if number < len(_LAYERS) - 2:
            last = build.add("Relu", last)
    return last


def _resnet(build: Graph, chance: np.random.Generator) -> str:
    last = build.add("Relu", _convolution(build, chance, "x", (3, 64, 7), stride=2))
    last = build.add("MaxPool", last, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for wide, stride in _STAGES:
        for step in (stride, 1):
            last = _block(build, chance, last, (channels, wide), step)
            channels = wide
    last = build.add("Flatten", build.add("GlobalAveragePool", last))
    weights = chance.normal(size=(channels, OUTPUTS["cnn"])) * channels**-0.5
    return build.add("Gemm", last, build.floats(weights), build.floats(np.zeros(OUTPUTS["cnn"])))


def _block(
    build: Graph, chance: np.random.Generator, last: str, channels: tuple[int, int], stride: int
) -> str:
    narrow, wide = channels
    first = build.add("Relu", _convolution(build, chance, last, (narrow, wide, 3), stride=stride))
    second = _convolution(build, chance, first, (wide, wide, 3), gain=0.5)
    beside = last
    if stride != 1 or narrow != wide:
        beside = _convolution(build, chance, last, (narrow, wide, 1), stride=stride)
    return build.add("Relu", build.add("Add", second, beside))


def _convolution(
    build: Graph,
    chance: np.random.Generator,
    last: str,
    shape: tuple[int, int, int],
    *,
    stride: int = 1,
    gain: float = 1.0,
) -> str:
    """Append a convolution with the batch normalisation folded into it, as exporters do."""
    narrow, wide, size = shape
    spread = gain * (2 / (narrow * size * size)) ** 0.5
    weights = build.floats(chance.normal(size=(wide, narrow, size, size)) * spread)
    bias = build.floats(chance.normal(size=wide) * 0.01)
    return build.add(
        "Conv",
        last,
        weights,
        bias,
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[size // 2] * 4,
    )


def question(name: str, rows: int = 1, seed: int = 0) -> Array:
    """Return an input of so many rows."""
    chance = np.random.default_rng(seed)
    return chance.normal(size=(rows, *SHAPES[name])).astype(np.float32).round(4)


class Reference:
    """What ONNX Runtime answers, one row at a time."""

    def __init__(self, data: bytes) -> None:
        self._session: Any = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def __call__(self, x: Array) -> Array:
        """Return y [rows, outputs]."""
        answers = [self._session.run(["y"], {"x": row[None]})[0] for row in x]
        return np.concatenate(answers)


@cache
def reference(name: str) -> Reference:
    """Return the reference of a model."""
    return Reference(graph(name))


def numbers(x: Array) -> str:
    """Return an array as JSON, in the shortest text that is exactly the same float32."""
    return json.dumps([float(str(value)) for value in x.ravel()], separators=(",", ":"))


def nested(x: Array) -> str:
    """Return an array as nested JSON lists."""
    if x.ndim == 1:
        return numbers(x)
    return "[" + ",".join(nested(part) for part in x) + "]"
