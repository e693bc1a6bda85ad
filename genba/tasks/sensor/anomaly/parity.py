"""How far an exported form is from the float64 reference."""

from typing import Final

import numpy as np

from genba.core.protocols import Tensors
from genba.core.task import Parity

#: One decision in two thousand may differ: a score within rounding of its threshold.
_AGREEMENT: Final = 0.9995
_LARGEST_ERROR: Final = 1e-2


def parity(reference: Tensors, exported: Tensors) -> Parity:
    """Compare the outputs of the exported graph with the reference, decision by decision.

    The error of a score is relative to 1, the threshold, or to the score where that is larger;
    the error of an expected value is relative to the spread of that output's expected values.

    Example:
        >>> one = {"score": np.ones(1), "alarm": np.zeros(1), "expected": np.ones((1, 1))}
        >>> parity(one, one).passed
        True
    """
    alarm = np.asarray(reference["alarm"], dtype=bool)
    same = alarm == np.asarray(exported["alarm"], dtype=bool)
    score = np.asarray(reference["score"], dtype=np.float64)
    errors = [_largest(score, exported["score"], np.maximum(1.0, np.abs(score)))]
    expected = np.asarray(reference["expected"], dtype=np.float64)
    if len(expected):
        spread = np.maximum(expected.std(axis=0), 1e-3 * np.abs(expected).max(axis=0) + 1e-9)
        errors.append(_largest(expected, exported["expected"], spread))
    agreement = float(same.mean()) if len(same) else 1.0
    error = max(errors)
    return Parity(
        decision_agreement=agreement,
        max_error=error,
        samples=len(same),
        passed=agreement >= _AGREEMENT and error <= _LARGEST_ERROR,
    )


def _largest(reference: np.ndarray, exported: object, unit: np.ndarray) -> float:
    difference = np.abs(reference - np.asarray(exported, dtype=np.float64)) / unit
    if not difference.size:
        return 0.0
    return float(np.nan_to_num(difference, nan=np.inf).max())
