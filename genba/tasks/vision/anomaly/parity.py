"""How far an exported form is from the reference."""

from typing import Final

import numpy as np

from genba.core.protocols import Tensors
from genba.core.task import Parity

_AGREEMENT: Final = 0.995
#: Bfloat16 moves the last digit of two; a change of a twentieth of the threshold is another model.
_LARGEST_ERROR: Final = 0.05


def parity(reference: Tensors, exported: Tensors) -> Parity:
    """Compare scores and decisions of an exported form with the reference, image by image.

    The error of a score is relative to 1, the threshold, or to the score where that is larger.
    Masks follow the map, and the map the score; a pixel at its threshold is no decision.

    Example:
        >>> one = {"score": np.ones(1), "alarm": np.zeros(1)}
        >>> parity(one, one).passed
        True
    """
    same = np.asarray(reference["alarm"], bool) == np.asarray(exported["alarm"], bool)
    score = np.asarray(reference["score"], dtype=np.float64)
    away = np.abs(np.asarray(exported["score"], dtype=np.float64) - score)
    error = np.nan_to_num(away / np.maximum(1.0, np.abs(score)), nan=np.inf)
    agreement = float(same.mean()) if len(same) else 1.0
    worst = float(error.max(initial=0.0))
    return Parity(
        decision_agreement=agreement,
        max_error=worst,
        samples=len(same),
        passed=agreement >= _AGREEMENT and worst <= _LARGEST_ERROR,
    )
