"""What needs no encoder: the words themselves, and the commonest class. The report's yardstick."""

import warnings
from collections.abc import Mapping
from typing import Final

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from genba.core.protocols import Array, JsonObject, Tensors, View
from genba.core.task import Scores
from genba.edge.texts import as_text
from genba.learn.classes.answers import answers
from genba.learn.classes.chosen import choose, rows
from genba.learn.threads import one_thread
from genba.tasks.language.classify import schema
from genba.tasks.language.classify.score import score

_ROWS: Final = 10_000  # of training; more change little for a model this simple
_STEPS: Final = 30
_STRENGTH: Final = 100.0  # of the fit against the penalty
_KEPT: Final = ("accuracy", "balanced_accuracy", "worst_recall", "log_loss", "ece")


class _Words:
    """Multinomial logistic regression on weighted words and pairs of words.

    Salton and Buckley, "Term-weighting approaches in automatic text retrieval", 1988.
    """

    def __init__(self, view: View, settings: JsonObject) -> None:
        chosen = choose(view, "train", settings, _ROWS, seed=0)
        texts = [text for chunk in rows(view, chosen) for text in schema.said(chunk)]
        inside = chosen.label != settings["outside_class"]
        self._classes = len(settings["classes"])
        self._words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        self._model = LogisticRegression(C=_STRENGTH, max_iter=_STEPS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            x = self._words.fit_transform(np.array(texts, dtype=object)[inside])
            self._model.fit(x, chosen.label[inside])
        self.share = np.bincount(chosen.label[inside], minlength=self._classes) / inside.sum()

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        x = self._words.transform([as_text(text) for text in tensors["text"]])
        found = np.zeros((x.shape[0], self._classes), dtype=np.float32)
        found[:, self._model.classes_] = self._model.predict_proba(x)
        return _said(found)


def baselines(view: View, settings: JsonObject) -> Mapping[str, Scores]:
    """Measure logistic regression on words and the commonest class on the test split."""
    plain = {**settings, "abstain_below": 0.0}
    with one_thread():
        words = _Words(view, settings)
        share = words.share.astype(np.float32)
        found = {
            "logistic regression on words": score(words, view, "test", plain),
            "commonest class": score(
                lambda tensors: _said(np.tile(share, (len(tensors["text"]), 1))),
                view,
                "test",
                plain,
            ),
        }
    return {
        name: Scores(measures={n: m for n, m in made.measures.items() if n in _KEPT})
        for name, made in found.items()
    }


def _said(probability: Array) -> dict[str, Array]:
    bar = np.zeros(len(probability), dtype=np.float32)
    return {"probability": probability, **answers(probability, bar)}
