"""A trained classifier in numpy: the yardstick of every exported form."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Tensors
from genba.core.resolve import resolve
from genba.core.task import Model
from genba.edge.encoder import Encoder
from genba.learn.classes.answers import answers
from genba.learn.classes.heads import Head, softmax
from genba.learn.classes.scope import Scope
from genba.learn.encoder import READING, Encoding, load_encoder, load_encoding

Floats = npt.NDArray[np.float32]

_SLICE: Final = 1_024  # texts at a time
_MARKS: Final = 2  # begin and end of a text are no pieces of it


class Eyes:
    """Reads texts: where they lie, and how long they are."""

    def __init__(self, encoding: Encoding, *, threads: int = 1) -> None:
        description = encoding.metadata()[READING]
        self._reader: Any = resolve("reader", encoding.reading["reader"])(description)
        self._encoder = Encoder(load_encoder(encoding.name), threads=threads)

    def __call__(self, texts: Sequence[bytes]) -> tuple[Floats, Floats]:
        """Return vectors of length 1 [N, numbers], and the logarithm of the number of pieces."""
        count = [len(numbers) - _MARKS + 1 for numbers in self._reader.read(texts)]
        return self._encoder.embed(texts), np.log(np.array(count, dtype=np.float32))


class Classifier:
    """Predicts with the graph of its encoder and a head in numpy.

    Raises:
        Problem: G902 when the encoder's weights are gone and cannot be fetched, G581 when they are
            others now.
    """

    def __init__(self, model: Model) -> None:
        settings = model.settings
        version = str(settings["encoder_version"])
        self._eyes = Eyes(load_encoding(str(settings["encoder"]), version=version))
        self._head = Head.of(model.arrays)
        self._scope = Scope.of(dict(model.arrays))
        self._map = model.arrays["embed.map"]
        self._offset = model.arrays["embed.offset"]

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return class, probability, score, alarm, embedding and look of texts.

        Probabilities add up to the probability of being in scope.
        """
        texts = np.asarray(tensors["text"]).tolist()
        bar = np.asarray(tensors["abstain_below"], dtype=np.float32)
        parts = [self._part(texts[at : at + _SLICE]) for at in range(0, len(texts), _SLICE)]
        parts = parts or [self._part([])]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**answers(found["probability"], bar), **found}

    def _part(self, texts: Sequence[bytes]) -> dict[str, Array]:
        x, pieces = self._eyes(texts)
        logits = self._head(x)
        inside = self._scope(logits, x)
        near = self._scope.measure(logits, x)[:, 1]
        return {
            "probability": softmax(logits) * inside[:, None],
            "embedding": (x @ self._map + self._offset).astype(np.float32),
            "look": np.stack([pieces, near], axis=1).astype(np.float32),
        }
