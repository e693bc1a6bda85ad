"""Nearest known cases: which rows a sample resembles, and how unlike all of them it is.

Distances are Euclidean after every column was divided by its spread among the known cases, found
exhaustively and in blocks: exact, and bounded in memory whatever the number of queries. Novelty
compares a sample's distance to its nearest case with those that the cases keep among themselves
(the nearest-neighbour distance of Ramaswamy et al., "Efficient algorithms for mining outliers from
large data sets", SIGMOD 2000, on the scale of the known cases).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

#: Distances held at a time: 32 MiB.
_BLOCK: Final = 1 << 22
#: Of the cases, this share lies nearer to another case than what begins to count as novel.
_USUAL: Final = 0.95
#: Cases whose distances to the others are looked at; more would not change the quantile.
_MOST_CASES: Final = 2_000


def nearest(
    known: npt.NDArray[np.floating], query: npt.NDArray[np.floating], k: int
) -> tuple[Floats, Indices]:
    """Return the nearest known cases of every query, nearest first.

    Args:
        known: [n, d], n at least 1. What is not a number counts as the column's mean.
        query: [m, d].
        k: How many; at most n are returned.

    Returns:
        Distance float64 [m, min(k, n)], in standard deviations of the known cases, and index into
        `known` int64; equally near ones by index.

    Example:
        >>> known = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 9.0]])
        >>> distance, index = nearest(known, np.array([[1.9, 0.0]]), 2)
        >>> index.tolist()
        [[1, 0]]
    """
    cases, asked = standardised(known, query)
    return _nearest(cases, asked, min(k, len(cases)))


def novelty(known: npt.NDArray[np.floating], query: npt.NDArray[np.floating]) -> Floats:
    """Say how unlike every known case a query is.

    Args:
        known: [n, d].
        query: [m, d].

    Returns:
        [m]: 0 where the nearest case is no farther than cases usually are from each other (95 % of
        them), 0.5 at twice that distance, towards 1 beyond. All 0 with fewer than two cases.

    Example:
        >>> known = np.arange(20.0).reshape(10, 2)
        >>> novelty(known, np.array([[4.0, 5.0], [22.0, 23.0]])).round(3).tolist()
        [0.0, 0.5]
    """
    if len(known) < 2 or not len(query):
        return np.zeros(len(query))
    cases, asked = standardised(known, query)
    sample = cases[np.linspace(0, len(cases) - 1, min(len(cases), _MOST_CASES)).astype(np.int64)]
    among = _nearest(cases, sample, 2)[0][:, 1]  # the nearest to a case is the case itself
    usual = float(np.quantile(among, _USUAL))
    found = _nearest(cases, asked, 1)[0][:, 0]
    beyond = found > usual
    return np.where(beyond, 1.0 - usual / np.where(beyond, found, 1.0), 0.0)


def standardised(
    known: npt.NDArray[np.floating], query: npt.NDArray[np.floating]
) -> tuple[Floats, Floats]:
    """Return both in standard deviations of the known ones, as every distance here is measured.

    A column that is the same in all known cases keeps its unit; what is not a number becomes 0.
    """
    cases, asked = np.asarray(known, dtype=np.float64), np.asarray(query, dtype=np.float64)
    number = np.isfinite(cases)
    count = np.maximum(number.sum(axis=0), 1)
    mean = np.where(number, cases, 0.0).sum(axis=0) / count
    centred = np.where(number, cases - mean, 0.0)
    scale = np.sqrt((centred**2).sum(axis=0) / count)
    scale = np.where(scale > 0, scale, 1.0)
    return centred / scale, np.where(np.isfinite(asked), asked - mean, 0.0) / scale


def _nearest(cases: Floats, asked: Floats, k: int) -> tuple[Floats, Indices]:
    distance, index = np.empty((len(asked), k)), np.empty((len(asked), k), dtype=np.int64)
    squares = (cases**2).sum(axis=1)
    rows = max(1, _BLOCK // max(len(cases), k * cases.shape[1], 1))
    for start in range(0, len(asked), rows):
        block = asked[start : start + rows]
        about = squares - 2.0 * (block @ cases.T)  # less the query's own square
        if k < len(cases):
            near = np.argpartition(about, k - 1, axis=1)[:, :k]
        else:
            near = np.broadcast_to(np.arange(k), (len(block), k))
        # The short form loses digits where two points nearly coincide, so the chosen are redone.
        exact = np.sqrt(((block[:, None, :] - cases[near]) ** 2).sum(axis=2))
        order = np.lexsort((near, exact), axis=1)
        distance[start : start + rows] = np.take_along_axis(exact, order, axis=1)
        index[start : start + rows] = np.take_along_axis(near, order, axis=1)
    return distance, index
