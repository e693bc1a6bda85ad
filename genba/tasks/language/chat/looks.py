"""What texts look like: vectors of a sentence encoder, near each other where meanings are."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject
from genba.edge.encoder import Encoder
from genba.learn.encoder import load_encoder

Floats = npt.NDArray[np.float64]

_AT_ONCE: Final = 64  # texts; more at a time is no faster and takes memory


def embed(texts: Sequence[str], settings: JsonObject) -> Floats:
    """Return float64 [texts, numbers], each row of length 1."""
    encoder = _encoder(str(settings["encoder"]))
    parts = [encoder.embed(texts[at : at + _AT_ONCE]) for at in range(0, len(texts), _AT_ONCE)]
    return np.concatenate(parts or [encoder.embed([""])[:0]]).astype(np.float64)


def similarity(left: Sequence[str], right: Sequence[str], settings: JsonObject) -> Floats:
    """Return the cosine of the angle between texts, pair by pair; nothing is like nothing: 0."""
    one, other = embed(left, settings), embed(right, settings)
    found = np.sum(one * other, axis=1)
    empty = np.array([not (a.strip() and b.strip()) for a, b in zip(left, right, strict=True)])
    return np.where(empty, 0.0, found) if len(found) else np.zeros(0)


@lru_cache(maxsize=1)
def _encoder(name: str) -> Encoder:
    return Encoder(load_encoder(name))
