"""Whether a sample belongs to any class at all: learned by leaving classes out.

Nobody has examples of everything that will be asked. A head is therefore trained without some of
the classes, and what belongs to those is out of its scope: from that, and from samples that people
have marked as such, a logistic model of two numbers learns the difference. The two are the largest
logit, which of the scores tried was the best (an embedding far from all classes makes none of them
large), and the cosine to the nearest class mean.

Leaving classes out as in Fei and Liu, "Breaking the closed world assumption in text
classification", NAACL 2016; the largest logit as in Hendrycks et al., "Scaling out-of-distribution
detection for real-world settings", ICML 2022. Measured on 505 questions of 39 categories, ten of
them left out, mean of six draws, 2026-11: area under the curve 0.777 with the largest logit, 0.729
with the largest probability, 0.726 with the nearest class mean, 0.676 with the nearest question.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.learn.classes.heads import Head, Lesson, softmax
from genba.learn.logistic import logistic

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Train = Callable[[Lesson], Head]

_TURNS: Final = 4
_FEWEST_CLASSES: Final = 4
_KEPT: Final = 0.75  # of what is in scope a head is trained on, the rest is asked
_MOST: Final = 4_000  # samples; more change little
_CERTAIN: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """How likely a sample belongs to one of the classes."""

    means: Floats  # [classes, features] of length 1; zeros where a class has no sample
    weight: Floats  # [2]: of the largest logit and of the nearest mean
    offset: float

    def measure(self, logits: Floats, x: Floats) -> Floats:
        """Return the largest logit and the cosine to the nearest mean [N, 2]."""
        return _measure(logits, x, self.means)

    def __call__(self, logits: Floats, x: Floats) -> Floats:
        """Return the probability of being in scope [N]."""
        raised = self.measure(logits, x) @ self.weight + np.float32(self.offset)
        return np.asarray(1.0 / (1.0 + np.exp(-raised)), dtype=np.float32)

    def cooled(self, temperature: float) -> "Scope":
        """Return the same for logits that were divided by a temperature."""
        weight = self.weight * np.array([temperature, 1.0], dtype=np.float32)
        return Scope(means=self.means, weight=weight, offset=self.offset)

    def to_arrays(self) -> dict[str, Array]:
        """Return it as arrays of a model."""
        offset = np.array([self.offset], dtype=np.float32)
        return {"scope.means": self.means, "scope.weight": self.weight, "scope.offset": offset}

    @classmethod
    def of(cls, arrays: dict[str, Array]) -> "Scope":
        """Return the scope that `to_arrays` described."""
        return cls(
            means=arrays["scope.means"],
            weight=arrays["scope.weight"],
            offset=float(arrays["scope.offset"][0]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Samples that heads were asked which had not been trained on them."""

    logits: Floats
    values: Floats  # [N, 2]
    inside: Bools


def learn_scope(lesson: Lesson, outside: Floats, train: Train, share: float) -> tuple[Scope, Asked]:
    """Learn what is in scope.

    Args:
        lesson: Samples of the classes; features of length 1.
        outside: Features of samples that are known to belong to none; may be empty.
        train: Makes a head.
        share: How much of what will be asked is expected to be out of scope, 0 to 1.

    Returns:
        The scope, and what it was learned from.
    """
    means = class_means(lesson)
    asked = _asked(lesson, outside, train)
    if asked is None or share <= 0.0:
        sure = Scope(means=means, weight=np.zeros(2, dtype=np.float32), offset=_CERTAIN)
        none = np.zeros((0, lesson.classes), dtype=np.float32)
        nothing = Asked(logits=none, values=none[:, :2], inside=np.zeros(0, dtype=bool))
        return sure, asked or nothing
    inside = asked.inside
    each = np.where(inside, (1.0 - share) / inside.sum(), share / max(1, (~inside).sum()))
    weight, offset = logistic(asked.values.astype(np.float64), inside, each)
    return Scope(means=means, weight=weight.astype(np.float32), offset=offset), asked


def class_means(lesson: Lesson) -> Floats:
    """Return the mean of each class, of length 1."""
    sums = np.zeros((lesson.classes, lesson.x.shape[1]), dtype=np.float32)
    np.add.at(sums, lesson.y, lesson.x)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(length, 1e-9), dtype=np.float32)


def _measure(logits: Floats, x: Floats, means: Floats) -> Floats:
    near = (x @ means.T).max(axis=1)
    return np.stack([logits.max(axis=1), near], axis=1).astype(np.float32)


def _asked(lesson: Lesson, outside: Floats, train: Train) -> Asked | None:
    """Train heads without some classes and ask them; None where there are too few classes."""
    rng = np.random.default_rng(lesson.seed)
    order = rng.permutation(len(lesson.y))[:_MOST]
    kinds = rng.permutation(np.unique(lesson.y[order]))
    if len(kinds) < _FEWEST_CLASSES:
        return None
    logits, values, inside = [], [], []
    for turn in range(_TURNS):
        left_out = np.isin(lesson.y[order], kinds[turn::_TURNS])
        known = order[~left_out]
        count = round(_KEPT * len(known))
        part = lesson.rows(known[:count])
        if len(np.unique(part.y)) < 2:
            continue
        head, means = train(part), class_means(part)
        belong = np.isin(lesson.y[known[count:]], part.y)  # its class was seen
        x = np.concatenate([lesson.x[known[count:]][belong], lesson.x[order[left_out]], outside])
        found = head(x)
        logits.append(found)
        values.append(_measure(found, x, means))
        inside.append(np.arange(len(x)) < belong.sum())
    if not inside or not np.concatenate(inside).any():
        return None
    return Asked(
        logits=np.concatenate(logits), values=np.concatenate(values), inside=np.concatenate(inside)
    )


def mixed(confidence: Array, correct: Bools, out: Array, share: float) -> tuple[Array, Bools]:
    """Return confidences as they will be met: so much of them out of scope, where any answer errs.

    Args:
        confidence: Of samples in scope [N].
        correct: Whether each was answered rightly [N].
        out: Confidences in answers to samples out of scope, any number.
        share: Of what will be asked.

    Example:
        >>> sure, right = mixed(np.ones(9), np.ones(9, dtype=bool), np.array([0.5, 0.2]), 0.1)
        >>> sure.tolist()[-1], int(right.sum()), len(right)
        (0.5, 9, 10)
    """
    count = round(len(confidence) * share / (1.0 - share)) if len(out) else 0
    order = np.sort(out)[::-1]
    places = np.linspace(0, len(order) - 1, num=count).astype(np.int64)
    drawn = order[places] if count else np.zeros(0)
    right = np.concatenate([correct, np.zeros(count, dtype=bool)])
    return np.concatenate([confidence, drawn]), right


def confidence(logits: Floats, inside: Floats) -> Array:
    """Return the probability of the likeliest class, given that any may be absent [N]."""
    return np.asarray(softmax(logits.astype(np.float64)).max(axis=1) * inside)


def scope_bar(inside: Array, out: Array, most: float) -> float:
    """Return the bar that refuses most of what is out of scope for what it costs of the rest.

    It maximises the share refused out of scope less the share refused in scope (Youden, Cancer
    1950), and gives up no more than a stated share of the latter; the lowest such bar.

    Args:
        inside: Confidences in answers to samples in scope.
        out: Those out of scope.
        most: Share of what is in scope that may be given up, 0 to 1.

    Example:
        >>> scope_bar(np.array([0.9, 0.95, 0.99]), np.array([0.2, 0.6]), 0.1)
        0.75
        >>> scope_bar(np.array([0.9]), np.array([]), 0.1)
        0.0
    """
    sure, doubt = np.sort(inside), np.sort(out)
    if not len(sure) or not len(doubt):
        return 0.0
    values = np.unique(np.concatenate([sure, doubt]))
    bars = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2])
    given_up = np.searchsorted(sure, bars, side="left") / len(sure)
    refused = np.searchsorted(doubt, bars, side="left") / len(doubt)
    gain = np.where(given_up <= most, refused - given_up, -1.0)
    return float(bars[int(gain.argmax())])
