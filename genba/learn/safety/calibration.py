"""Thresholds and p-values from calibration rows."""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.edge.safety.plan import Conformal

Floats = npt.NDArray[np.float64]

_TAIL: Final = 128  # largest scores that are all kept
_BULK: Final = 128  # points that stand for the rest
_BEYOND: Final = 1.1  # times the largest score, where there are too few to promise a rate
_DIGITS: Final = 7


def limit(scores: Floats, alpha: float) -> float:
    """Return a value that a new score exceeds with probability at most `alpha`.

    The split-conformal quantile (Vovk et al., 2005); with fewer than 1 / alpha scores no rate can
    be promised, and it is a little above the largest.

    Example:
        >>> limit(np.arange(1.0, 100.0), 0.1), limit(np.array([1.0, 2.0]), 0.01)
        (90.0, 2.2)
    """
    known = np.sort(scores[np.isfinite(scores)])
    if not len(known):
        return 0.0
    rank = int(np.ceil((len(known) + 1) * (1.0 - alpha)))
    found = known[rank - 1] if rank <= len(known) else known[-1] * _BEYOND
    return significant(float(found))


def conformal(scores: Floats) -> Conformal:
    """Return the table from which p-values are read: exact in the tail, thinned in the bulk.

    Example:
        >>> conformal(np.array([3.0, 1.0, 2.0]))
        Conformal(at=(1.0, 2.0, 3.0), above=(3, 2, 1), count=3)
    """
    known = np.sort(scores[np.isfinite(scores)])
    count = len(known)
    bulk = np.linspace(0, max(count - _TAIL - 1, 0), min(_BULK, max(count - _TAIL, 0)))
    at = np.unique(np.concatenate([bulk.astype(np.int64), np.arange(max(count - _TAIL, 0), count)]))
    kept = [significant(float(known[i])) for i in at]
    above = [int(count - np.searchsorted(known, known[i], side="left")) for i in at]
    return Conformal(at=tuple(kept), above=tuple(above), count=count)


def significant(value: float) -> float:
    """Return a number with the digits that matter, so that a plan stays small."""
    return float(f"{value:.{_DIGITS}g}")


def numbers(values: npt.ArrayLike) -> tuple[float, ...]:
    """Return a row of numbers for a plan."""
    return tuple(significant(float(v)) for v in np.asarray(values, dtype=np.float64).ravel())


def matrix(values: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    """Return a matrix for a plan."""
    return tuple(numbers(row) for row in values)
