"""Graphs in 8-bit integers: their heavy convolutions and matrix products, calibrated on samples.

The graph gets pairs of QuantizeLinear and DequantizeLinear around what is to be computed in
integers; ONNX Runtime and OpenVINO fuse them, any other runtime computes them as written. Weights
have a scale per output channel, activations one per tensor, unsigned, as x86 multiplies them
fastest.

What is sensitive and cheap stays in float32: depthwise convolutions, whose channels differ too much
for one scale, small layers such as the last, and everything between the layers, such as distances
and probabilities. Whether the decisions survive is not known here: the `optimize` stage compares
them with those of the reference, as it does for every candidate.

Measured on an AMD EPYC (Zen 5, VNNI), one thread, CPU time per image, 2026-11: ResNet-18 at 224
pixels 17 to 18 ms in float32, 8.5 to 9.2 in bfloat16 (OpenVINO), 5.5 to 6.5 in 8 bits; 10.2 in ONNX
Runtime when the first layer alone is left as it was, so it is not. EfficientNet-Lite0 gains
nothing: 6.6 ms, and 6.3 with its dense convolutions in 8 bits, which then decide another way for 8
of 100 images. That is what `worth` asks for: much arithmetic for each number that is moved.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors
from genba.engines.graph import read_graph
from genba.engines.refusal import in_short

#: Multiplications of one row; so many take one core about a millisecond in float32.
_ENOUGH_WORK: Final = 50e6
#: Multiplications for each number that goes in or out of a layer; below, moving is what takes long.
_DENSE: Final = 64
_SHARE: Final = 0.7  # of all multiplications must be in such layers
#: What such a graph computes in integers besides: every change between integers and floats costs
#: time. Depthwise convolutions have some five multiplications for each number.
_THIN: Final = 8
_SMALL: Final = 0.001  # of all multiplications: a layer with less stays as it is
_KINDS: Final = ("Conv", "MatMul", "Gemm")
_PREPARED: Final = ("onnx.quant.pre_process", "onnxruntime.quant")  # else a warning is printed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recipe:
    """How a graph is brought into integers."""

    signed: bool = False  # activations; unsigned is what x86 multiplies fastest
    per_channel: bool = True  # a scale for each output channel of the weights
    percentile: bool = False  # of what is seen, the farthest hundred-thousandth is cut off
    thin: bool = False  # layers with little arithmetic too


class Int8:
    """The lowering to 8-bit integers; an entry of the catalog.

    Unsigned activations with one scale per tensor from the least to the most that was seen, signed
    weights with one per output channel.
    """

    recipe: ClassVar[_Recipe] = _Recipe()

    @classmethod
    def lower(cls, model: bytes, samples: Sequence[Tensors]) -> bytes | None:
        """Return the graph in 8-bit integers, None when it would not gain by them.

        Args:
            model: The graph, ONNX.
            samples: Batches that it is calibrated on; never of the test set.

        Raises:
            Problem: G608 when the bytes are no ONNX model, G611 when the graph cannot be changed.
        """
        prepared = _prepared(read_graph(model))
        layers = _layers(prepared)
        chosen = [layer.name for layer in layers] if cls.recipe.thin else worth(layers)
        if not chosen or not samples:
            return None
        try:
            return _quantize(prepared, chosen, samples, cls.recipe)
        except Exception as error:  # a library over a graph of any kind may raise anything
            raise _impossible(error) from error


class Int8Percentile(Int8):
    """Scales that leave out the rarest of what was seen: finer steps, a few values cut off."""

    recipe: ClassVar[_Recipe] = _Recipe(percentile=True)


class Int8Tensor(Int8):
    """One scale for all weights of a layer, for runtimes and devices that know no other."""

    recipe: ClassVar[_Recipe] = _Recipe(per_channel=False)


class Int8Signed(Int8):
    """Signed activations, for processors that multiply signed by signed."""

    recipe: ClassVar[_Recipe] = _Recipe(signed=True)


class Int8Thin(Int8):
    """Every layer with weights in integers, however little arithmetic it has."""

    recipe: ClassVar[_Recipe] = _Recipe(thin=True)


class Int8Dynamic:
    """Weights in integers, activations converted at every call by what they are then.

    Nothing is calibrated. Pays for matrix products of transformers, whose activations vary most;
    convolutions stay in float32.
    """

    calibrated: ClassVar[bool] = False

    @staticmethod
    def lower(model: bytes, samples: Sequence[Tensors]) -> bytes | None:  # noqa: ARG004  # of the seam
        """Return the graph, None when it has no matrix products with constant weights.

        Raises:
            Problem: G608 when the bytes are no ONNX model, G611 when the graph cannot be changed.
        """
        prepared = _prepared(read_graph(model))
        products = [
            node.name
            for node in prepared.graph.node
            if node.op_type == "MatMul" and node.input[1] in _weights(prepared.graph)
        ]
        if not products:
            return None
        try:
            with tempfile.TemporaryDirectory(prefix="genba-int8-") as folder:
                path = Path(folder) / "graph.onnx"
                quantize_dynamic(
                    prepared,
                    path,
                    op_types_to_quantize=["MatMul"],
                    nodes_to_quantize=products,
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    extra_options={"MatMulConstBOnly": True},
                )
                return path.read_bytes()
        except Exception as error:  # as above
            raise _impossible(error) from error


def _quantize(
    prepared: Any, chosen: Sequence[str], samples: Sequence[Tensors], recipe: _Recipe
) -> bytes:
    method = CalibrationMethod.Percentile if recipe.percentile else CalibrationMethod.MinMax
    with tempfile.TemporaryDirectory(prefix="genba-int8-") as folder:
        path = Path(folder) / "graph.onnx"
        quantize_static(
            prepared,
            path,
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_KINDS),
            nodes_to_quantize=list(chosen),
            per_channel=recipe.per_channel,
            activation_type=QuantType.QInt8 if recipe.signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options={"MatMulConstBOnly": True},
        )
        return path.read_bytes()


def _impossible(error: Exception) -> Problem:
    return Problem(
        "G611",
        "The graph cannot be brought into 8-bit integers.",
        why=in_short(error),
        tries=["genba run LINE  # the other candidates are tried", "genba explain G611"],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A layer that multiplies by weights, for one row."""

    name: str
    multiplications: int
    moved: int  # numbers that go in and out


def worth(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return the names of the layers to compute in integers; none where that gains nothing.

    Example:
        >>> stem = Layer(name="stem", multiplications=20_000_000, moved=500_000)
        >>> body = Layer(name="body", multiplications=90_000_000, moved=400_000)
        >>> depthwise = Layer(name="depthwise", multiplications=2_000_000, moved=400_000)
        >>> worth([stem, depthwise, body])
        ('stem', 'body')
        >>> worth([stem, depthwise])
        ()
    """
    total = sum(layer.multiplications for layer in layers)
    dense = [layer for layer in layers if layer.multiplications >= _DENSE * layer.moved]
    work = sum(layer.multiplications for layer in dense)
    if work < _ENOUGH_WORK or work < _SHARE * total:
        return ()
    return tuple(
        layer.name
        for layer in layers
        if layer.multiplications >= max(_THIN * layer.moved, _SMALL * total)
    )


def _prepared(proto: Any) -> Any:
    """Return the graph with a name for every node and a shape for every tensor."""
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    key, value = _PREPARED
    proto.metadata_props.add(key=key, value=value)
    return onnx.shape_inference.infer_shapes(proto)


def _layers(proto: Any) -> list[Layer]:
    """Return the layers that multiply by constant weights, in the order of the graph."""
    graph = proto.graph
    weights = _weights(graph)
    known = (*graph.input, *graph.value_info, *graph.output)
    sizes = {value.name: _size(value) for value in known}
    found = []
    for node in graph.node:
        if node.op_type not in _KINDS or node.input[1] not in weights:
            continue
        into, out = sizes.get(node.input[0], 0), sizes.get(node.output[0], 0)
        if into and out:
            each = _per_output(node, weights[node.input[1]])
            found.append(Layer(name=node.name, multiplications=out * each, moved=into + out))
    return found


def _weights(graph: Any) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _per_output(node: Any, weight: tuple[int, ...]) -> int:
    """Return how many multiplications an output number takes."""
    if node.op_type == "Conv":
        return math.prod(weight[1:])
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    return weight[-1 if turned else -2] if len(weight) > 1 else weight[0]


def _size(value: Any) -> int:
    """Return how many numbers a tensor has for one row, 0 when that is not known."""
    dims = value.type.tensor_type.shape.dim
    sizes = [d.dim_value for d in dims[1:]]
    return math.prod(sizes) if dims and all(sizes) else 0


class _Samples(CalibrationDataReader):  # type: ignore[misc]  # its package has no types
    """Hands out batches one after the other."""

    def __init__(self, samples: Sequence[Tensors]) -> None:
        self._left = iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next batch, None at the end."""
        batch = next(self._left, None)
        return None if batch is None else {n: np.ascontiguousarray(t) for n, t in batch.items()}
