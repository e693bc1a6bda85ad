"""What needs no network: the pixels themselves, and the commonest class. The report's yardstick."""

import warnings
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from genba.core.protocols import Array, JsonObject, Tensors, View
from genba.core.task import Scores
from genba.learn.classes.answers import answers
from genba.learn.classes.chosen import choose, rows
from genba.learn.threads import one_thread
from genba.tasks.vision.classify import schema
from genba.tasks.vision.classify.score import score

_SIDE: Final = 16  # pixels each way that are left of an image
_ROWS: Final = 10_000  # of training; more change little for a model this simple
_STEPS: Final = 100
_PENALTY: Final = 0.01
_KEPT: Final = ("accuracy", "balanced_accuracy", "worst_recall", "log_loss", "ece")


class _Pixels:
    """Multinomial logistic regression on 16 x 16 pixels, calibrated by nothing."""

    def __init__(self, view: View, settings: JsonObject) -> None:
        chosen = choose(view, "train", settings, _ROWS, seed=0)
        size = {"size": _SIDE}
        parts = [schema.samples(c, size).tensors["image"] for c in rows(view, chosen)]
        x = self._flat(np.concatenate(parts))
        self._mean, self._scale = x.mean(axis=0), x.std(axis=0) + 1e-3
        self._classes = len(settings["classes"])
        self._model = LogisticRegression(C=1 / (_PENALTY * len(x)), max_iter=_STEPS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit((x - self._mean) / self._scale, chosen.label)
        self.share = np.bincount(chosen.label, minlength=self._classes) / len(chosen.label)

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        x = (self._flat(np.asarray(tensors["image"])) - self._mean) / self._scale
        found = np.zeros((len(x), self._classes), dtype=np.float32)
        found[:, self._model.classes_] = self._model.predict_proba(x)
        return _said(found)

    @staticmethod
    def _flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255.0)


def baselines(view: View, settings: JsonObject) -> Mapping[str, Scores]:
    """Measure logistic regression on pixels and the commonest class on the test split."""
    small = {**settings, "size": _SIDE, "abstain_below": 0.0}
    with one_thread():
        pixels = _Pixels(view, settings)
        share = pixels.share.astype(np.float32)
        found = {
            "logistic regression on pixels": score(pixels, view, "test", small),
            "commonest class": score(
                lambda tensors: _said(np.tile(share, (len(tensors["image"]), 1))),
                view,
                "test",
                small,
            ),
        }
    return {
        name: Scores(measures={n: m for n, m in made.measures.items() if n in _KEPT})
        for name, made in found.items()
    }


def _said(probability: npt.NDArray[np.float32]) -> dict[str, Array]:
    bar = np.zeros(len(probability), dtype=np.float32)
    return {"probability": probability, **answers(probability, bar)}
