"""A trained classifier in numpy: the yardstick of every exported form."""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Tensors
from genba.core.task import Model
from genba.learn.backbone import load
from genba.learn.looks import look
from genba.tasks.vision.classify import schema
from genba.tasks.vision.classify.heads import Head, softmax

_SLICE: Final = 256  # images at a time
SMALLEST: Final = 1e-6  # room for doubt, at least, where a bar asks for certainty


class Classifier:
    """Predicts with the graph of its backbone and a head in numpy.

    Raises:
        Problem: G902 when the backbone's weights are gone and cannot be fetched, G912 when they are
            others now.
    """

    def __init__(self, model: Model) -> None:
        settings = model.settings
        self._backbone = load(str(settings["backbone"]), version=str(settings["backbone_version"]))
        self._taps = [str(tap) for tap in settings["taps"]]
        self._head = Head.of(model.arrays)
        self._map = model.arrays["embed.map"]
        self._offset = model.arrays["embed.offset"]

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return class, probability, score, alarm, embedding and look of images."""
        images = np.asarray(tensors["image"], dtype=np.uint8)
        bar = np.asarray(tensors["abstain_below"], dtype=np.float32)
        parts = [self._part(images[at : at + _SLICE]) for at in range(0, len(images), _SLICE)]
        parts = parts or [self._part(images)]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {**answers(found["probability"], bar), **found}

    def _part(self, images: npt.NDArray[np.uint8]) -> dict[str, Array]:
        made = self._backbone.features(images, self._taps)
        x = np.concatenate([made[tap] for tap in self._taps], axis=1)
        return {
            "probability": softmax(self._head(x)),
            "embedding": (x @ self._map + self._offset).astype(np.float32),
            "look": look(images, schema.LOOKS),
        }


def answers(probability: npt.NDArray[np.float32], bar: npt.NDArray[np.float32]) -> dict[str, Array]:
    """Return class, score and alarm for probabilities and the bar below which nothing is said.

    The score is the room for doubt, relative to what the bar allows: 1.0 = at the bar.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.6, 0.4]], dtype=np.float32)
        >>> found = answers(p, np.array([0.75, 0.75], dtype=np.float32))
        >>> found["class"].tolist(), found["alarm"].tolist(), found["score"].astype("f2").tolist()
        ([0, -1], [False, True], [0.39990234375, 1.599609375])
    """
    doubt = np.float32(1.0) - probability.max(axis=1)
    score = doubt / np.maximum(np.float32(1.0) - bar, np.float32(SMALLEST))
    alarm = score > np.float32(1.0)
    best = np.argmax(probability, axis=1)
    return {
        "class": np.where(alarm, schema.ABSTAINS, best).astype(np.int64),
        "score": score.astype(np.float32),
        "alarm": alarm,
    }
