"""Logistic regression of few columns, and monotone steps: what routers and bars decide by."""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_PRIOR: Final = 1e-2  # of the weights' square: a few samples make no certainty
_STEPS: Final = 50
_MOST: Final = 30.0


def logistic(
    x: Floats, yes: Bools, weight: Floats, *, prior: float = _PRIOR
) -> tuple[Floats, float]:
    """Fit a probability to a few columns by Newton's method.

    Args:
        x: [N, columns].
        yes: What is to be foretold [N].
        weight: How much each row counts [N]; they add up to 1.
        prior: Weight of the square of the weights, of standardised columns.

    Returns:
        The weights of the columns, and the offset.

    Example:
        >>> x = np.arange(6.0)[:, None]
        >>> w, b = logistic(x, x[:, 0] > 2, np.full(6, 1 / 6))
        >>> bool(w[0] > 0), round(float(-b / w[0]), 2)
        (True, 2.5)
    """
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    a = np.column_stack([(x - mean) / scale, np.ones(len(x))])
    penalty = np.diag([*[prior] * x.shape[1], 1e-6])
    w = np.zeros(a.shape[1])
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(a @ w, -_MOST, _MOST)))
        slope = a.T @ (weight * (p - yes)) + penalty @ w
        bend = (a * (weight * p * (1.0 - p))[:, None]).T @ a + penalty
        step = np.linalg.solve(bend, slope)
        w -= step
        if float(np.abs(step).max()) < 1e-8:
            break
    raw = w[:-1] / scale
    return raw, float(w[-1] - raw @ mean)


def rising(values: Floats) -> Floats:
    """Return the non-decreasing sequence that is nearest to values (pool adjacent violators).

    Ayer et al., Annals of Mathematical Statistics, 1955.

    Example:
        >>> rising(np.array([1.0, 3.0, 2.0, 4.0])).tolist()
        [1.0, 2.5, 2.5, 4.0]
    """
    sums: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        sums.append(value)
        counts.append(1)
        while len(sums) > 1 and sums[-2] / counts[-2] >= sums[-1] / counts[-1]:
            top, many = sums.pop(), counts.pop()
            sums[-1] += top
            counts[-1] += many
    return np.repeat(np.array(sums) / np.maximum(counts, 1), counts)
