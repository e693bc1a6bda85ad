"""How far an exported form is from the reference."""

from typing import Final

import numpy as np

from genba.core.protocols import Tensors
from genba.core.task import Parity

#: One decision in two hundred may differ, abstaining included: images on the line between two.
_AGREEMENT: Final = 0.995
_LARGEST_ERROR: Final = 0.1  # of a probability; half precision on images in doubt reaches 0.03


def parity(reference: Tensors, exported: Tensors) -> Parity:
    """Compare the outputs of the exported graph with the reference, decision by decision.

    A decision is the class that is answered, or that none is.

    Example:
        >>> one = {"class": np.zeros(2), "probability": np.ones((2, 1))}
        >>> parity(one, one).passed
        True
    """
    same = np.asarray(reference["class"]) == np.asarray(exported["class"])
    wanted = np.asarray(reference["probability"], dtype=np.float64)
    found = np.asarray(exported["probability"], dtype=np.float64)
    difference = np.nan_to_num(np.abs(wanted - found), nan=np.inf)
    error = float(difference.max()) if difference.size else 0.0
    agreement = float(same.mean()) if len(same) else 1.0
    return Parity(
        decision_agreement=agreement,
        max_error=error,
        samples=len(same),
        passed=agreement >= _AGREEMENT and error <= _LARGEST_ERROR,
    )
