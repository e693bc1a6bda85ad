"""Population stability index (PSI), and how large it gets when nothing has drifted.

A fixed limit such as 0.2 is crossed by the weather alone: a thousand rows of wind are two days,
and two days are never a year. So the index is compared with its own null distribution: the same
number of consecutive rows drawn from the reference period, again and again.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS: Final = 10
_DRAWS: Final = 400


def reference(values: npt.ArrayLike) -> dict[str, list[float]]:
    """Return decile edges of the values and the share of them in each bin.

    Example:
        >>> reference(np.arange(1000.0))["p"]
        [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    edges = np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]) if len(known) else np.zeros(9)
    return {"edges": edges.tolist(), "p": _shares(counts(edges, known)).tolist()}


def counts(edges: npt.ArrayLike, values: npt.ArrayLike) -> Ints:
    """Count values per bin; missing ones are not counted."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    inner = np.asarray(edges, dtype=np.float64)
    return np.bincount(np.searchsorted(inner, known, side="left"), minlength=len(inner) + 1)


def psi(p: npt.ArrayLike, count: npt.ArrayLike) -> float:
    """Return the population stability index of counts per bin against reference shares.

    Half a count is added to every bin of both, so that an empty one does not make it infinite.

    Example:
        >>> psi([0.5, 0.5], [50, 50])
        0.0
    """
    seen = np.asarray(count, dtype=np.float64)
    total = max(1.0, float(seen.sum()))
    expected = (np.asarray(p, dtype=np.float64) * total + 0.5) / (total + 0.5 * len(seen))
    found = (seen + 0.5) / (total + 0.5 * len(seen))
    return float(((found - expected) * np.log(found / expected)).sum())


def null_quantile(
    values: Floats, time: Ints, window: int, rate: float, *, block: int, seed: int = 0
) -> float:
    """Return the PSI that `window` rows without drift exceed with probability `rate`.

    Windows are consecutive rows of all entities in the order of time, begun at random; a window
    longer than a block is put together from several blocks of consecutive time, as the weather of
    next month will be. Beyond what the draws can resolve, the logarithm of the index is taken to
    be normal and the larger of the two estimates is used.

    Args:
        values: Reference values.
        time: Their time; rows of all entities together.
        window: Rows per window.
        rate: Stated false-alarm rate of one check.
        block: Shortest stretch of consecutive time, in the unit of `time`.
        seed: Seed of the draws.
    """
    order = np.argsort(time, kind="stable")
    values, time = values[order], time[order]
    made = reference(values)
    edges = np.asarray(made["edges"])
    # A missing value falls into no bin, as in `counts`, but takes its place in the window.
    bins = np.where(np.isfinite(values), np.searchsorted(edges, values, side="left"), BINS)
    rng = np.random.default_rng(seed)
    found = np.array([psi(made["p"], _draw(bins, time, window, block, rng)) for _ in range(_DRAWS)])
    logs = np.log(np.maximum(found, 1e-9))
    tail = float(np.exp(logs.mean() + _normal_quantile(rate) * logs.std()))
    return max(tail, float(np.quantile(found, 1.0 - max(rate, 1.0 / _DRAWS))))


def _draw(bins: Ints, time: Ints, window: int, block: int, rng: np.random.Generator) -> Ints:
    """Count the bins of one window of consecutive rows, at least a block of time at a stretch."""
    total, left = np.zeros(BINS, dtype=np.int64), window
    while left > 0:
        start = int(rng.integers(len(bins)))
        end = int(np.searchsorted(time, time[start] + block))
        stretch = bins[start : min(max(end, start + 1), start + left)]
        total += np.bincount(stretch, minlength=BINS + 1)[:BINS]
        left -= len(stretch)
    return total


def _shares(count: Ints) -> Floats:
    return count / max(1, int(count.sum()))


def _normal_quantile(rate: float) -> float:
    """Return the standard normal quantile of 1 - rate (Abramowitz and Stegun 26.2.23)."""
    t = np.sqrt(-2.0 * np.log(rate))
    top = 2.515517 + 0.802853 * t + 0.010328 * t * t
    return float(t - top / (1.0 + 1.432788 * t + 0.189269 * t * t + 0.001308 * t**3))
