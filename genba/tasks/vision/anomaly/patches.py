"""From the feature maps of a backbone to one vector per patch, all of it linear.

Each tap is averaged over 3 x 3 cells (the locally aware patches of PatchCore), enlarged to the
finest grid and projected; the taps are added up. Averaging and enlarging are a matrix from the
left and one from the right, projecting is a matrix over the channels: the same few products in
numpy and in the graph, so every runtime computes the same. An operator such as Resize would
leave the choice of pixels to the runtime.

The projection is random and semi-orthogonal (Kim et al., "Semi-orthogonal Embedding for Efficient
Unsupervised Anomaly Segmentation", 2021): it keeps what principal components throw away, the
directions in which good parts hardly vary.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array

Floats = npt.NDArray[np.float32]

_FLOOR: Final = 0.05  # share of the median deviation of a tap that every channel is given
_REACH: Final = 1  # cells on either side that an average takes in


def enlarge(to: int, size: int) -> npt.NDArray[np.float64]:
    """Return the matrix [to, size] of linear interpolation between cell centres.

    Example:
        >>> enlarge(4, 2).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    at = np.clip((np.arange(to) + 0.5) * size / to - 0.5, 0, size - 1)
    low = np.minimum(at.astype(np.int64), max(size - 2, 0))
    matrix = np.zeros((to, size))
    rows = np.arange(to)
    matrix[rows, low] = 1.0 - (at - low)
    matrix[rows, np.minimum(low + 1, size - 1)] += at - low
    return matrix


def average(size: int, reach: int = _REACH) -> npt.NDArray[np.float64]:
    """Return the matrix [size, size] that averages neighbouring cells; fewer at the edge."""
    places = np.arange(size)
    near = (np.abs(places[:, None] - places) <= reach).astype(np.float64)
    return np.asarray(near / near.sum(axis=1, keepdims=True))


def blur(size: int, sigma: float) -> npt.NDArray[np.float64]:
    """Return the matrix [size, size] of a Gaussian blur; `sigma` in cells."""
    away = np.arange(size)[:, None] - np.arange(size)
    near = np.exp(-0.5 * (away / sigma) ** 2)
    return np.asarray(near / near.sum(axis=1, keepdims=True))


def gather(grid: int, size: int) -> Floats:
    """Return the matrix [grid, size] that averages the cells of a tap and brings it to the grid.

    Args:
        grid: Cells of the grid, each way.
        size: Cells of the tap; where it is finer, a whole number of them make a cell of the grid.
    """
    if size > grid:
        part = size // grid
        return np.asarray(np.kron(np.eye(grid), np.full((1, part), 1.0 / part)), dtype=np.float32)
    return (enlarge(grid, size) @ average(size)).astype(np.float32)


def spread(cells: int, grid: int, sigma: float) -> Floats:
    """Return the matrix [cells, grid] that enlarges a map of distances and smooths it."""
    return (blur(cells, sigma) @ enlarge(cells, grid)).astype(np.float32)


def projection(scales: Sequence[Floats], dims: int, seed: int) -> list[Floats]:
    """Return a matrix [channels, dims] for every tap; together they are semi-orthogonal.

    Args:
        scales: Standard deviation of every channel of every tap; channels count alike, and those
            that never vary (colour, in grey images) hardly more: a first tint will be seen, the
            last digit of a constant will not.
        dims: Length of a patch vector; no projection where there are no more channels.
        seed: Of the draw.
    """
    channels = sum(len(scale) for scale in scales)
    if dims >= channels:
        whole = np.eye(channels)
    else:
        drawn = np.random.default_rng(seed).standard_normal((channels, dims))
        whole, triangle = np.linalg.qr(drawn)
        whole = whole * np.sign(np.diag(triangle)) * np.sqrt(channels / dims)
    begins = np.cumsum([0, *(len(scale) for scale in scales)])
    return [
        (whole[begin : begin + len(scale)] / _floored(scale)[:, None]).astype(np.float32)
        for begin, scale in zip(begins[:-1], scales, strict=True)
    ]


def _floored(scale: Floats) -> Floats:
    return np.maximum(scale, _FLOOR * np.median(scale) + 1e-9)


def vectors(taps: Mapping[str, Array], arrays: Mapping[str, Array], names: Sequence[str]) -> Floats:
    """Return one vector per patch [images, places, dims].

    Args:
        taps: Feature maps [images, channels, height, width] by name of the tap.
        arrays: `project.TAP` and `gather.TAP` of a model.
        names: Of the taps to use.
    """
    whole: Floats | None = None
    for name in names:
        values = np.asarray(taps[name], dtype=np.float32)
        images, channels, height, width = values.shape
        flat = values.transpose(0, 2, 3, 1).reshape(-1, channels) @ arrays[f"project.{name}"]
        shaped = flat.reshape(images, height, width, -1).transpose(0, 3, 1, 2)
        matrix = arrays[f"gather.{name}"]
        part = np.matmul(np.matmul(matrix, shaped), matrix.T)
        whole = part if whole is None else whole + part
    assert whole is not None
    images, dims = whole.shape[:2]
    return np.ascontiguousarray(whole.reshape(images, dims, -1).transpose(0, 2, 1))
