"""Averages over the cells of a grid, for feature maps of any size."""

import numpy as np
import numpy.typing as npt

from genba.learn.graph import Graph


def cells(size: int, grid: int) -> npt.NDArray[np.float64]:
    """Return the weights [grid, size] of each row of pixels in each row of cells.

    Where the size is no multiple of the grid, neighbouring cells share a row.

    Example:
        >>> cells(3, 2).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    weights = np.zeros((grid, size))
    for cell in range(grid):
        first, behind = cell * size // grid, -(-(cell + 1) * size // grid)
        weights[cell, first:behind] = 1.0 / (behind - first)
    return weights


def on_grid(graph: Graph, x: str, size: int, grid: int) -> str:
    """Append the average of each cell and return the name of its output.

    Args:
        graph: Where to.
        x: Name of a tensor [N, channels, size, size].
        size: Its rows and columns.
        grid: Cells each way; 1 averages the whole map.

    Returns:
        Name of a tensor [N, channels * grid * grid].
    """
    if grid == 1:
        return graph.add("Flatten", graph.add("GlobalAveragePool", x))
    weights = cells(size, grid)
    rows = graph.add("MatMul", graph.floats(weights), x)
    return graph.add("Flatten", graph.add("MatMul", rows, graph.floats(weights.T)))
