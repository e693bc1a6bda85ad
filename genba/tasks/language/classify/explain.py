"""Which words an answer comes from: each is left out and the probability watched.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, with words for
regions. Nothing but predictions is asked of the model, so every form of it can be explained.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, Tensors
from genba.core.task import Attribution, Explanation
from genba.edge.texts import as_bytes, as_text

Floats = npt.NDArray[np.float64]

_MOST: Final = 64  # words; of a longer text the first


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:  # noqa: ARG001  the task's seam
    """Say which words of a text speak for the likeliest class (batch of one).

    A word's share is its part of the drops in probability; `value` is the probability as it is and
    `usual` what it is without the word.
    """
    words = as_text(np.asarray(tensors["text"]).tolist()[0]).split()[:_MOST] or [""]
    without = [" ".join((*words[:at], *words[at + 1 :])) for at in range(len(words))]
    bar = np.repeat(np.asarray(tensors["abstain_below"], dtype=np.float32), len(words))
    before = np.asarray(predict(tensors)["probability"], dtype=np.float64)[0]
    best = int(before.argmax())
    found = predict({"text": as_bytes(without), "abstain_below": bar})
    left = np.asarray(found["probability"], dtype=np.float64)[:, best]
    shares = _shares(before[best] - left)
    return Explanation(
        attributions=tuple(
            Attribution(
                name=words[at],
                share=float(shares[at]),
                value=float(before[best]),
                usual=float(left[at]),
            )
            for at in np.argsort(-shares, kind="stable")
        )
    )


def _shares(drops: Floats) -> Floats:
    """Return the positive drops as shares; equal ones when nothing lowers the probability."""
    positive = np.maximum(drops, 0.0)
    if positive.sum() <= 0.0:
        return np.full(len(drops), 1.0 / len(drops))
    return np.asarray(positive / positive.sum(), dtype=np.float64)
