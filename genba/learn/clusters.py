"""Weighted k-means: a few points that stand for many."""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_ROUNDS: Final = 25  # on thousands of points the centres hardly move after a dozen


def representatives(points: Floats, weights: Floats, k: int) -> Indices:
    """Return k points, each the nearest to the centre of a cluster.

    Lloyd's algorithm from the start of k-means++ made deterministic: the heaviest point first, then
    always the point whose weight times squared distance to the nearest start is largest.

    Args:
        points: [n, d].
        weights: [n], how much each point draws the centre; not negative.
        k: How many.

    Returns:
        Index into `points`, int64 [min(k, n)], each once.

    Example:
        >>> points = np.array([[0.0], [0.2], [0.1], [9.0], [9.2]])
        >>> sorted(representatives(points, np.ones(5), 2).tolist())
        [2, 3]
    """
    if k >= len(points):
        return np.arange(len(points), dtype=np.int64)
    mass = np.asarray(weights, dtype=np.float64) + 1e-9  # a point of no weight still lies somewhere
    squares = (points**2).sum(axis=1)
    centres = points[_starts(points, mass, k)]
    owner = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        nearest = _distances(points, squares, centres).argmin(axis=1)
        if np.array_equal(nearest, owner):
            break
        owner = nearest
        share = (owner[:, None] == np.arange(k)) * mass[:, None]
        total = share.sum(axis=0)
        moved = (share.T @ points) / np.maximum(total, 1e-300)[:, None]
        centres = np.where((total > 0)[:, None], moved, centres)
    return _nearest_of_each(_distances(points, squares, centres))


def _starts(points: Floats, mass: Floats, k: int) -> list[int]:
    chosen = [int(np.argmax(mass))]
    far = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < k:
        worth = mass * far
        worth[chosen] = -1.0
        chosen.append(int(np.argmax(worth)))
        far = np.minimum(far, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return chosen


def _distances(points: Floats, squares: Floats, centres: Floats) -> Floats:
    found: Floats = squares[:, None] + (centres**2).sum(axis=1) - 2.0 * points @ centres.T
    return found


def _nearest_of_each(distance: Floats) -> Indices:
    """Return for each centre the nearest point that stands for no centre before it."""
    chosen: list[int] = []
    for column in distance.T:
        free = column.copy()
        free[chosen] = np.inf
        chosen.append(int(np.argmin(free)))
    return np.array(chosen, dtype=np.int64)
