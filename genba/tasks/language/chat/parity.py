"""How far a language model in an engine is from the reference: in what it thinks of answers.

Two forms of a model that write word by word the same do not exist: one different last digit, and
everything behind it is another text. So they are asked what they think of given answers.
"""

from typing import Final

import numpy as np

from genba.core.protocols import Tensors
from genba.core.task import Parity

#: Nats per token that one answer may be likelier or less likely. On 24 answers of the FAQ line
#: weights in 4 bits differed by up to 0.5, and a quarter of the answers by more than this.
_ONE: Final = 0.3
_MEAN: Final = 0.1  # and all of them on average


def parity(reference: Tensors, exported: Tensors) -> Parity:
    """Compare what two forms of a model think of the same answers.

    A decision is how a text is cut into tokens, and whether an answer is about as likely.

    Example:
        >>> one = {"log_probability": np.array([-1.5]), "tokens": np.array([[4, 2]])}
        >>> parity(one, one).passed
        True
    """
    wanted = np.asarray(reference["log_probability"], dtype=np.float64)
    found = np.asarray(exported["log_probability"], dtype=np.float64)
    difference = np.nan_to_num(np.abs(wanted - found), nan=np.inf)
    cut_alike = np.all(np.asarray(reference["tokens"]) == np.asarray(exported["tokens"]), axis=1)
    same = cut_alike & (difference <= _ONE)
    agreement = float(same.mean()) if len(same) else 1.0
    return Parity(
        decision_agreement=agreement,
        max_error=float(difference.max()) if len(difference) else 0.0,
        samples=len(same),
        passed=bool(same.all()) and (not len(same) or float(difference.mean()) <= _MEAN),
    )
