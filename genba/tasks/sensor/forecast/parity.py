"""How far an exported form is from the float64 reference."""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Tensors
from genba.core.task import Parity

#: A forecast has no decisions; one counts as the same when it is within so much of the spread of
#: all forecasts of its step.
_SAME: Final = 0.01
_AGREEMENT: Final = 0.9995
_LARGEST: Final = 0.05  # of the spread, of any value: a tree may turn the other way at a threshold

Floats = npt.NDArray[np.float64]


def parity(reference: Tensors, exported: Tensors) -> Parity:
    """Compare the outputs of the exported graph with the reference, forecast by forecast.

    Differences are relative to the spread of the expected values over all samples and steps, which
    holds for the ends of intervals as well.

    Example:
        >>> one = {n: np.ones((1, 2, 1)) for n in ("expected", "low", "high")}
        >>> parity(one, one).passed
        True
    """
    expected = np.asarray(reference["expected"], dtype=np.float64)
    if not len(expected):
        return Parity(decision_agreement=1.0, max_error=0.0, samples=0, passed=True)
    spread = expected.std(axis=(0, 1))
    unit = np.maximum(spread, 1e-3 * np.abs(expected).max(axis=(0, 1)) + 1e-9)
    worst = np.zeros(len(expected))
    for name in ("expected", "low", "high"):
        wanted = np.asarray(reference[name], dtype=np.float64)
        away = np.abs(wanted - np.asarray(exported[name], dtype=np.float64)) / unit
        away = np.nan_to_num(away, nan=np.inf)
        worst = np.maximum(worst, away.reshape(len(away), -1).max(axis=1))
    agreement = float((worst <= _SAME).mean())
    error = float(worst.max())
    return Parity(
        decision_agreement=agreement,
        max_error=error,
        samples=len(worst),
        passed=agreement >= _AGREEMENT and error <= _LARGEST,
    )
