"""A bank of fixed filters as an ONNX graph: features that need no weights and no network.

What textures and edges look like at several scales: the energy of Gabor pairs in four directions
(Daugman, 1985; Bovik, Clark and Geisler, PAMI 1990), light and dark blobs (Laplacian of Gaussian,
Marr and Hildreth, 1980), contrast of the colour opponents, and the mean colour. Its taps mirror
those of a network, so that whatever sits on top need not know the difference.
"""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.learn.graph import Graph
from genba.learn.pooling import on_grid

Floats = npt.NDArray[np.float64]

_FLOAT: Final = 1  # ONNX's number for float32
_CENTRE: Final = 127.0
_SCALE: Final = 128.0
_KERNEL: Final = 7
_WAVE: Final = 4.0  # pixels per wave of the Gabor filters
_SPREAD: Final = 1.6  # pixels, of their envelope
_BLOB: Final = 1.2  # pixels, of the Laplacian of Gaussian
_DIRECTIONS: Final = 4
_SMALL: Final = 1e-4
_GRID: Final = 4  # the head says where in the image, on a grid of so many cells
#: Red, green, blue -> brightness, red against green, blue against yellow.
_OPPONENTS: Final = np.array([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [-0.25, -0.25, 0.5]])
_MAPS: Final = _DIRECTIONS + 2 + 2  # energy by direction, contrast of two colours, two blobs
_SCALES: Final = 3  # read by a tap, counted down from its own
STRIDES: Final = (4, 8, 16, 32)
_IN_HEAD: Final = (4, 8)


def channels() -> dict[str, int]:
    """Return the number of channels of each tap, from the shallowest to the deepest."""
    each = _SCALES * _MAPS + 3
    found = {str(stride): each for stride in STRIDES}
    return {**found, "head": len(_IN_HEAD) * each * _GRID * _GRID}


def bank() -> Floats:
    """Return the filters [11, 3, 7, 7]: even and odd Gabor pairs, a blob, two blobs of colour.

    None of them answers to a plain surface, and all are equally strong.

    Example:
        >>> bool(np.abs(bank().sum(axis=(2, 3))).max() < 1e-9)
        True
    """
    half = _KERNEL // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    envelope = np.exp(-(x * x + y * y) / (2 * _SPREAD * _SPREAD))
    shapes = []
    for number in range(_DIRECTIONS):
        angle = math.pi * number / _DIRECTIONS
        phase = 2 * math.pi / _WAVE * (x * math.cos(angle) + y * math.sin(angle))
        shapes += [envelope * np.cos(phase), envelope * np.sin(phase)]
    square = (x * x + y * y) / (2 * _BLOB * _BLOB)
    shapes += 3 * [(1 - square) * np.exp(-square)]
    made = np.stack(shapes)
    # The mean goes out under the envelope; taken out evenly it would leave a rim.
    made -= envelope * (made.sum(axis=(1, 2)) / envelope.sum())[:, None, None]
    made /= np.sqrt((made**2).sum(axis=(1, 2), keepdims=True))
    colour = _OPPONENTS[[0] * (2 * _DIRECTIONS + 1) + [1, 2]]
    return np.asarray(colour[:, :, None, None] * made[:, None], dtype=np.float64)


class Writer:
    """Writes the bank into a graph, scale by scale, as far as it is asked for."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        blob = 2 * _DIRECTIONS
        # The even and the odd answer in a direction add up to its energy; colours stand alone.
        energies = np.zeros((_DIRECTIONS + 2, blob + 3))
        energies[:_DIRECTIONS, :blob] = np.kron(np.eye(_DIRECTIONS), np.ones((1, 2)))
        energies[_DIRECTIONS:, blob + 1 :] = np.eye(2)
        signs = np.zeros((2, blob + 3))
        signs[:, blob] = (1.0, -1.0)
        self._filters = graph.floats(bank())
        self._energies = graph.floats(energies[:, :, None, None])
        self._signs = graph.floats(signs[:, :, None, None])
        self._small = graph.floats(_SMALL)

    def taps(self, image: str, size: int) -> Iterator[tuple[str, str]]:
        """Yield (tap, name of its tensor) from the shallowest on; stop when you have enough.

        Args:
            image: Name of the UINT8 tensor [N, size, size, 3].
            size: Of the image in pixels.
        """
        graph = self._graph
        x = graph.add("Cast", graph.add("Transpose", image, perm=[0, 3, 1, 2]), to=_FLOAT)
        x = graph.add("Sub", x, graph.floats(_CENTRE))
        x = graph.add("Mul", x, graph.floats(1.0 / _SCALE))
        scales: list[tuple[str, int]] = []  # maps and their stride, finest first
        grids: list[str] = []
        for stride in (1, 2, *STRIDES):
            if stride > 1:
                x = self._pooled(x, -(-size // (stride // 2)), 2)
            scales.append((self._maps(x), stride))
            if stride not in STRIDES:
                continue
            parts = [self._pooled(m, -(-size // s), stride // s) for m, s in scales[-_SCALES:]]
            tap = graph.add("Concat", *parts, x, axis=1)
            yield str(stride), tap
            if stride in _IN_HEAD:
                grids.append(on_grid(graph, tap, -(-size // stride), _GRID))
        yield "head", graph.add("Concat", *grids, axis=1)

    def _maps(self, x: str) -> str:
        """Return how strongly each filter answers [N, maps, height, width]."""
        graph, half = self._graph, _KERNEL // 2
        # The edge goes on as it is: a black frame would be the strongest edge of all.
        pads = graph.integers([0, 0, half, half, 0, 0, half, half])
        padded = graph.add("Pad", x, pads, mode="edge")
        answers = graph.add("Conv", padded, self._filters, kernel_shape=[_KERNEL, _KERNEL])
        squares = graph.add("Mul", answers, answers)
        energy = graph.add("Conv", squares, self._energies, kernel_shape=[1, 1])
        energy = graph.add("Sqrt", graph.add("Add", energy, self._small))
        blobs = graph.add("Relu", graph.add("Conv", answers, self._signs, kernel_shape=[1, 1]))
        return graph.add("Concat", energy, blobs, axis=1)

    def _pooled(self, x: str, size: int, by: int) -> str:
        """Average squares of `by` x `by` pixels; those at the end may be smaller."""
        if by == 1:
            return x
        return self._graph.add(
            "AveragePool",
            x,
            kernel_shape=[by, by],
            strides=[by, by],
            pads=[0, 0, -size % by, -size % by],
            count_include_pad=0,
        )
