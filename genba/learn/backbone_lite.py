"""EfficientNet-Lite as an ONNX graph, cut where it is used.

Tan and Le, "EfficientNet", ICML 2019; the Lite variant has no squeeze-and-excitation and ReLU6
for the activation. Batch normalisation is folded into the convolutions. Padding is TensorFlow's
"same": computed from the actual size, the odd pixel at the end.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.learn.graph import Graph

Floats = npt.NDArray[np.float32]
Weights = Mapping[str, Floats]

_FLOAT: Final = 1  # ONNX's number for float32
_EPSILON: Final = 1e-3  # of the batch normalisation the weights were trained with
_CENTRE: Final = 127.0
_SCALE: Final = 128.0
_DIVISOR: Final = 8  # channels are multiples of it
_STEM: Final = 32
HEAD: Final = 1280

#: name -> (width, depth) of the family.
VARIANTS: Final = {
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}
#: (repeats, kernel, stride, expansion, channels) of each stage.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One inverted residual block."""

    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


def blocks(width: float, depth: float) -> list[Block]:
    """Return the blocks of a variant.

    Example:
        >>> [len(blocks(*VARIANTS[name])) for name in sorted(VARIANTS)]
        [16, 21, 21]
    """
    made: list[Block] = []
    inputs = _STEM
    for at, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
        fixed = at in (0, len(_STAGES) - 1)  # first and last are not made deeper
        outputs = _rounded(channels, width)
        for turn in range(repeats if fixed else math.ceil(repeats * depth)):
            made.append(
                Block(
                    kernel=kernel,
                    stride=1 if turn else stride,
                    expansion=expansion,
                    inputs=inputs,
                    outputs=outputs,
                )
            )
            inputs = outputs
    return made


def channels(width: float, depth: float) -> dict[str, int]:
    """Return the number of channels of each tap, from the shallowest to the deepest."""
    found: dict[str, int] = {}
    stride = 2
    for block in blocks(width, depth):
        stride *= block.stride
        found[str(stride)] = block.outputs
    return {**found, "head": HEAD}


class Writer:
    """Writes the network into a graph, block by block, as far as it is asked for."""

    def __init__(self, graph: Graph, weights: Weights, blocks: Sequence[Block]) -> None:
        self._graph = graph
        self._weights = weights
        self._blocks = blocks
        self._zero, self._six = graph.floats(0.0), graph.floats(6.0)

    def taps(self, image: str, size: int) -> Iterator[tuple[str, str]]:
        """Yield (tap, name of its tensor) from the shallowest on; stop when you have enough.

        Args:
            image: Name of the UINT8 tensor [N, size, size, 3].
            size: Of the image in pixels.
        """
        x, size = self._convolution(self._stem(image), "_conv_stem", "_bn0", size, stride=2)
        x, stride = self._relu6(x), 2
        for number, block in enumerate(self._blocks):
            if block.stride > 1 and number > 0:
                yield str(stride), x
            stride *= block.stride
            x, size = self._block(x, number, block, size)
        yield str(stride), x
        x, size = self._convolution(x, "_conv_head", "_bn1", size)
        pooled = self._graph.add("GlobalAveragePool", self._relu6(x))
        yield "head", self._graph.add("Flatten", pooled)

    def _stem(self, image: str) -> str:
        graph = self._graph
        # Transposed as bytes, a quarter of what there is to move as floats.
        x = graph.add("Cast", graph.add("Transpose", image, perm=[0, 3, 1, 2]), to=_FLOAT)
        x = graph.add("Sub", x, graph.floats(_CENTRE))
        return graph.add("Mul", x, graph.floats(1.0 / _SCALE))

    def _block(self, x: str, number: int, block: Block, size: int) -> tuple[str, int]:
        prefix, before = f"_blocks.{number}.", x
        if block.expansion > 1:
            x, _ = self._convolution(x, f"{prefix}_expand_conv", f"{prefix}_bn0", size)
            x = self._relu6(x)
        x, size = self._convolution(
            x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", size, stride=block.stride
        )
        x, _ = self._convolution(self._relu6(x), f"{prefix}_project_conv", f"{prefix}_bn2", size)
        if block.stride == 1 and block.inputs == block.outputs:
            x = self._graph.add("Add", x, before)
        return x, size

    def _convolution(
        self, x: str, name: str, norm: str, size: int, stride: int = 1
    ) -> tuple[str, int]:
        """Append a convolution with its batch normalisation folded in; return also the new size."""
        weight = self._get(f"{name}.weight").astype(np.float64)
        parts = ("weight", "bias", "running_mean", "running_var")
        norms = [self._get(f"{norm}.{part}").astype(np.float64) for part in parts]
        if weight.ndim != 4 or any(part.shape != weight.shape[:1] for part in norms):
            raise misfit(f"{name} and {norm} do not belong together")
        scale, shift, mean, variance = norms
        factor = scale / np.sqrt(variance + _EPSILON)
        kernel = weight.shape[2]
        depthwise = weight.shape[1] == 1 and len(weight) > 1
        made = self._graph.add(
            "Conv",
            x,
            self._graph.floats(weight * factor[:, None, None, None]),
            self._graph.floats(shift - mean * factor),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=len(weight) if depthwise else 1,
            pads=same_pads(size, kernel, stride),
        )
        return made, -(-size // stride)

    def _relu6(self, x: str) -> str:
        return self._graph.add("Clip", x, self._zero, self._six)

    def _get(self, name: str) -> Floats:
        if name not in self._weights:
            raise misfit(f"{name} is missing")
        return self._weights[name]


def same_pads(size: int, kernel: int, stride: int) -> list[int]:
    """Return the pads [top, left, bottom, right] of TensorFlow's "same" padding.

    Example:
        >>> same_pads(224, 3, 2), same_pads(225, 3, 2), same_pads(28, 5, 1)
        ([0, 0, 1, 1], [1, 1, 1, 1], [2, 2, 2, 2])
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return [total // 2, total // 2, total - total // 2, total - total // 2]


def misfit(why: str) -> Problem:
    """Return the Problem of weights that are not those of the network."""
    return Problem(
        "G913",
        "The weights are not those of this network.",
        why=f"{why[:1].upper()}{why[1:]}.",
        tries=["rm -rf ~/.cache/genba/weights", "run again", "genba explain G913"],
    )


def _rounded(channels: int, width: float) -> int:
    scaled = channels * width
    rounded = max(_DIVISOR, int(scaled + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded + _DIVISOR if rounded < 0.9 * scaled else rounded
