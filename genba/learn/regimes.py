"""Operating conditions: few settings that a machine runs at, found by seeded k-means.

A sensor that reads 9,000 at one load and 2,000 at another says nothing about wear until it is
held against what is usual at that load. Within a regime what is left is taken out by a line.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST: Final = 8
_ROUNDS: Final = 25
_STARTS: Final = 4
_FEWEST_ROWS: Final = 30  # in a regime
_SHRINK: Final = 0.01  # of slopes, in variances of a condition over all regimes


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Centres, and the share of the variance that lies between them."""

    centers: Floats  # [K, C]
    explained: float


def cluster(points: Floats, count: int, seed: int) -> Clusters:
    """Divide points into clusters: k-means with k-means++ starts (Arthur, Vassilvitskii 2007).

    Args:
        points: [N, C], every column of about the same spread.
        count: Clusters.
        seed: Of the starts; the same seed gives the same clusters.

    Example:
        >>> cluster(np.array([[0.0], [0.1], [5.0], [5.1]]), 2, 0).centers.ravel().round(2).tolist()
        [0.05, 5.05]
    """
    rng = np.random.default_rng(seed)
    best, lowest = points[:1], np.inf
    for _ in range(_STARTS if count > 1 else 1):
        centers = _refine(points, _start(points, count, rng))
        spread = float(_squares(points, centers).min(axis=1).mean())
        if spread < lowest:
            best, lowest = centers, spread
    total = float(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())
    order = np.lexsort(best.T[::-1])
    return Clusters(centers=best[order], explained=1.0 - lowest / total if total > 0 else 1.0)


def smallest(points: Floats, explained: float, seed: int, most: int = MOST) -> Clusters:
    """Return the fewest clusters that explain so much of the variance, at most `most`.

    No cluster has fewer than a few dozen points; where one would, there is a cluster less.
    """
    best = cluster(points, 1, seed)
    for count in range(2, most + 1):
        if best.explained >= explained:
            break
        found = cluster(points, count, seed)
        sizes = np.bincount(nearest(points, found.centers), minlength=len(found.centers))
        if sizes.min() < _FEWEST_ROWS:
            break
        best = found
    return best


def nearest(points: Floats, centers: Floats) -> Ints:
    """Return the nearest centre of each point."""
    return np.asarray(_squares(points, centers).argmin(axis=1), dtype=np.int64)


def slopes(conditions: Floats, readings: Floats, regime: Ints, count: int) -> Floats:
    """Return how readings follow conditions within each regime: [K, C, S].

    The slopes are shrunk where a condition hardly moves within its regime: a set point that reads
    42.0 and 42.003 explains nothing by the difference.
    """
    found = np.zeros((count, conditions.shape[1], readings.shape[1]))
    wide = conditions.var(axis=0) + 1e-12
    for k in range(count):
        rows = regime == k
        if rows.sum() < _FEWEST_ROWS:
            continue
        c = conditions[rows] - conditions[rows].mean(axis=0)
        y = readings[rows] - readings[rows].mean(axis=0)
        gram = c.T @ c / len(c) + np.diag(_SHRINK * wide)
        found[k] = np.linalg.solve(gram, c.T @ y / len(c))
    return found


def _start(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    chosen = [points[int(rng.integers(len(points)))]]
    for _ in range(count - 1):
        far = _squares(points, np.stack(chosen)).min(axis=1)
        if far.sum() <= 0.0:
            break
        chosen.append(points[int(rng.choice(len(points), p=far / far.sum()))])
    return np.stack(chosen)


def _refine(points: Floats, centers: Floats) -> Floats:
    for _ in range(_ROUNDS):
        owner = nearest(points, centers)
        sizes = np.bincount(owner, minlength=len(centers))
        sums = np.stack(
            [np.bincount(owner, column, minlength=len(centers)) for column in points.T], axis=1
        )
        moved = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centers)
        if np.array_equal(moved, centers):
            break
        centers = moved
    return centers


def _squares(points: Floats, centers: Floats) -> Floats:
    return np.asarray(((points[:, None] - centers[None]) ** 2).sum(axis=2), dtype=np.float64)
