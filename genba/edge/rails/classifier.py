"""A small classifier of attacks: a weighted sum of what a text means and how it is spelt."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.tensors import read_tensors

RAILS_FILE: Final = "rails.safetensors"
#: Places for pieces of words; more gained nothing on held-out prompts.
BINS: Final = 4_096
_SIZES: Final = (3, 4, 5)
_JAPANESE_SIZES: Final = (1, 2, 3)
_MOST: Final = 2_000  # characters that are looked at

Floats = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Array]


def spelling(text: str) -> Floats:
    """Return pieces of words by hash, float32 [BINS], of length 1 (Weinberger et al., ICML 2009).

    Args:
        text: In small letters; see `genba.edge.rails.readings`.
    """
    found = np.zeros(BINS, dtype=np.float32)
    for word in text[:_MOST].split():
        sizes = _SIZES if word.isascii() else _JAPANESE_SIZES
        padded = f" {word} " if word.isascii() else word
        for size in sizes:
            for at in range(len(padded) - size + 1):
                found[zlib.crc32(padded[at : at + size].encode()) % BINS] += 1.0
    found = np.sqrt(found)
    return found / max(float(np.linalg.norm(found)), 1e-9)


def features(texts: Sequence[str], embed: Embed | None) -> Floats:
    """Return what the classifier sees of texts, float32 [N, BINS + D + 1].

    Args:
        texts: In small letters.
        embed: Sentence encoder; None where there is none.
    """
    parts = [np.stack([spelling(t) for t in texts]), np.ones((len(texts), 1), dtype=np.float32)]
    if embed is not None:
        parts.insert(1, np.asarray(embed(texts), dtype=np.float32))
    return np.concatenate(parts, axis=1)


class Classifier:
    """Says how much a text looks like an attack.

    Args:
        arrays: `weights` [BINS + D + 1] and `threshold` [1], as `genba.learn.rails` makes them.
        embed: The encoder with which it was trained.

    Raises:
        Problem: G662 when the arrays are none of a classifier.
    """

    def __init__(self, arrays: Mapping[str, Array], embed: Embed | None) -> None:
        weights, threshold = arrays.get("weights"), arrays.get("threshold")
        if weights is None or threshold is None or weights.ndim != 1 or threshold.shape != (1,):
            raise _wrong("It has no weights and threshold.")
        if not (np.isfinite(weights).all() and np.isfinite(threshold).all()):
            raise _wrong("Its numbers are not finite.")
        if len(weights) > BINS + 1 and embed is None:
            raise _wrong("It needs the sentence encoder of the package, which has none.")
        self._weights = np.asarray(weights, dtype=np.float32)
        self._embed = embed if len(weights) > BINS + 1 else None
        self.threshold = float(threshold[0])

    @classmethod
    def open(cls, data: bytes, embed: Embed | None) -> "Classifier":
        """Open the file of a package."""
        return cls(read_tensors(data), embed)

    def score(self, texts: Sequence[str]) -> Floats:
        """Return float32 [N]; above `threshold` it is taken for an attack.

        Args:
            texts: In small letters; see `genba.edge.rails.readings`.
        """
        seen = features(texts, self._embed)
        if seen.shape[1] != len(self._weights):
            raise _wrong(f"It knows {len(self._weights)} features and is given {seen.shape[1]}.")
        return np.asarray(seen @ self._weights, dtype=np.float32)


def _wrong(why: str) -> Problem:
    return Problem(
        "G662",
        "The classifier of the rails cannot be used.",
        where=RAILS_FILE,
        why=why,
        tries=["fetch the package again", "genba explain G662"],
    )
