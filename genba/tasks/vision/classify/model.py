"""A trained classifier in numpy: the yardstick of every exported form."""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Tensors
from genba.core.task import Model
from genba.learn.backbone import load
from genba.learn.classes.answers import answers
from genba.learn.classes.heads import Head, softmax
from genba.learn.looks import look
from genba.tasks.vision.classify import schema

_SLICE: Final = 256  # images at a time


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
