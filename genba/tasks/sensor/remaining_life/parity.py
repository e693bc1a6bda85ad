"""How far an exported form is from the float64 reference."""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Tensors
from genba.core.task import Parity

#: One decision in two thousand may differ: a life within rounding of the alarm point.
_AGREEMENT: Final = 0.9995
#: A feature within rounding of a tree's threshold may go the other way: a leaf of one tree of
#: hundreds, which is a few hundredths of the spread of lives at most.
_LARGEST_ERROR: Final = 0.05
_TINY: Final = 1e-9
_LIVES: Final = ("expected", "low", "high")


def parity(reference: Tensors, exported: Tensors) -> Parity:
    """Compare the outputs of the exported graph with the reference, decision by decision.

    Errors of lives are relative to the spread of predicted lives; those of scores are judged by
    their inverse, which is a life in units of the alarm point.

    Example:
        >>> one = {n: np.ones(1) for n in ("expected", "low", "high", "score")}
        >>> parity({**one, "alarm": np.zeros(1)}, {**one, "alarm": np.zeros(1)}).passed
        True
    """
    alarm = np.asarray(reference["alarm"], dtype=bool)
    same = alarm == np.asarray(exported["alarm"], dtype=bool)
    expected = _array(reference["expected"])
    spread = max(float(expected.std()), 0.05 * float(np.abs(expected).max(initial=0.0)), 1e-9)
    errors = [_largest(reference[n], exported[n], spread) for n in _LIVES]
    inverse, other = (1.0 / np.maximum(_array(t["score"]), _TINY) for t in (reference, exported))
    errors.append(
        _largest(inverse, other, max(float(inverse.std()), 1e-3 * inverse.max(initial=1e-9)))
    )
    agreement = float(same.mean()) if len(same) else 1.0
    return Parity(
        decision_agreement=agreement,
        max_error=max(errors),
        samples=len(same),
        passed=agreement >= _AGREEMENT and max(errors) <= _LARGEST_ERROR,
    )


def _largest(reference: Array, exported: Array, unit: float) -> float:
    difference = np.abs(_array(reference) - _array(exported)) / unit
    return float(np.nan_to_num(difference, nan=np.inf).max()) if difference.size else 0.0


def _array(values: Array) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
