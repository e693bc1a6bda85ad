"""What is put on top of frozen features: three ways to learn it, all of them one or two layers.

- linear: multinomial logistic regression with an L2 penalty.
- prototype: linear discriminant analysis with one shrunken covariance for all classes (Friedman,
  1989); at full shrinkage the nearest class mean. Strong when there are few examples.
- head: one hidden layer, trained by Adam (Kingma and Ba, 2015) with dropout, stopped early.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from genba.core.protocols import Array

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Number = TypeVar("Number", np.float32, np.float64)

_NEVER: Final = -1e4  # logit of a class that no training image shows
_FLOOR: Final = 0.05  # of the mean variance is added to each: few images know it badly
_SMALL: Final = 1e-9
_ROWS: Final = 4_096  # at a time, where sums over all rows are formed
_STEPS: Final = 100
_BATCH: Final = 128
_RATE: Final = 1e-3
_EPOCHS: Final = 40
_PATIENCE: Final = 4
_HELD_OUT: Final = 0.1
_FEWEST_HELD_OUT: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """Features with their classes."""

    x: Floats  # [N, features]
    y: Ints  # [N]
    classes: int
    balance: bool  # every class counts alike
    seed: int

    def rows(self, at: Ints) -> "Lesson":
        """Return some of it."""
        return Lesson(
            x=self.x[at], y=self.y[at], classes=self.classes, balance=self.balance, seed=self.seed
        )

    @property
    def weight(self) -> Floats:
        """How much each row counts; 1 on average."""
        if not self.balance:
            return np.ones(len(self.y), dtype=np.float32)
        count = np.bincount(self.y, minlength=self.classes)
        made = len(self.y) / (np.count_nonzero(count) * np.maximum(count, 1))
        return np.asarray(made[self.y], dtype=np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """One or two layers; the hidden one is rectified."""

    layers: tuple[tuple[Floats, Floats], ...]  # weights [inputs, outputs], offsets [outputs]

    def __call__(self, x: Floats) -> Floats:
        """Return the logits [N, classes]."""
        for weight, offset in self.layers[:-1]:
            x = np.maximum(x @ weight + offset, 0.0)
        weight, offset = self.layers[-1]
        return np.asarray(x @ weight + offset, dtype=np.float32)

    def cooled(self, temperature: float) -> "Head":
        """Return the head with its logits divided by a temperature."""
        *first, (weight, offset) = self.layers
        t = np.float32(temperature)
        return Head(layers=(*first, (weight / t, offset / t)))

    def to_arrays(self) -> dict[str, Array]:
        """Return it as arrays of a model."""
        found: dict[str, Array] = {}
        for number, (weight, offset) in enumerate(self.layers):
            found |= {f"head.{number}.weight": weight, f"head.{number}.offset": offset}
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> "Head":
        """Return the head that `to_arrays` described."""
        count = sum(name.startswith("head.") and name.endswith(".weight") for name in arrays)
        return cls(
            layers=tuple(
                (arrays[f"head.{n}.weight"], arrays[f"head.{n}.offset"]) for n in range(count)
            )
        )


def train(candidate: str, lesson: Lesson, chosen: Mapping[str, Any]) -> Head:
    """Learn a head of one kind; features are standardised inside and the scale folded in.

    Args:
        candidate: "linear", "prototype" or "head".
        lesson: At least two classes.
        chosen: Its settings: `penalty`; `shrink`; or `width`, `dropout` and `decay`.
    """
    mean, scale = moments(lesson.x)
    scaled = Lesson(
        x=(lesson.x - mean) / scale,
        y=lesson.y,
        classes=lesson.classes,
        balance=lesson.balance,
        seed=lesson.seed,
    )
    ways = {"linear": _linear, "prototype": _prototype, "head": _hidden}
    (weight, offset), *rest = ways[candidate](scaled, chosen)
    weight = weight / scale[:, None]
    first = (np.ascontiguousarray(weight, np.float32), (offset - mean @ weight).astype(np.float32))
    return _only_seen(Head(layers=(first, *rest)), lesson)


Layers = list[tuple[Floats, Floats]]


def moments(x: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the scale of each feature; a scale is never near zero."""
    total, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS].astype(np.float64)
        total += part.sum(axis=0)
        square += (part * part).sum(axis=0)
    mean = total / len(x)
    variance = np.maximum(square / len(x) - mean * mean, 0.0)
    scale = np.sqrt(variance + _FLOOR * variance.mean() + _SMALL)
    return mean.astype(np.float32), scale.astype(np.float32)


def _only_seen(head: Head, lesson: Lesson) -> Head:
    """Rule out classes without a training image."""
    *first, (weight, offset) = head.layers
    unseen = np.bincount(lesson.y, minlength=lesson.classes) == 0
    weight, offset = weight.copy(), offset.copy()
    weight[:, unseen], offset[unseen] = 0.0, _NEVER
    return Head(layers=(*first, (weight, offset)))


def _linear(lesson: Lesson, chosen: Mapping[str, Any]) -> Layers:
    seen = np.unique(lesson.y)
    model = LogisticRegression(
        C=1.0 / (float(chosen["penalty"]) * len(lesson.y)), max_iter=_STEPS, tol=1e-3
    )
    with warnings.catch_warnings():
        # A hundred steps are enough for the decisions; the optimum need not be reached.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(lesson.x, lesson.y, sample_weight=lesson.weight)
    weight = np.zeros((lesson.x.shape[1], lesson.classes), dtype=np.float32)
    offset = np.zeros(lesson.classes, dtype=np.float32)
    if len(seen) == 2:  # scikit-learn then has one row: the second class against the first
        weight[:, seen[1]], offset[seen[1]] = model.coef_[0], model.intercept_[0]
    else:
        weight[:, seen], offset[seen] = model.coef_.T, model.intercept_
    return [(weight, offset)]


def _prototype(lesson: Lesson, chosen: Mapping[str, Any]) -> Layers:
    shrink, size = float(chosen["shrink"]), lesson.x.shape[1]
    mass, sums = np.zeros(lesson.classes), np.zeros((lesson.classes, size))
    square = np.zeros((size, size))
    weights = lesson.weight
    for start in range(0, len(lesson.x), _ROWS):
        rows = slice(start, start + _ROWS)
        x = lesson.x[rows] * np.sqrt(weights[rows])[:, None]
        square += x.T @ x
        one = np.eye(lesson.classes, dtype=np.float32)[lesson.y[rows]] * weights[rows][:, None]
        mass += one.sum(axis=0)
        sums += one.T @ lesson.x[rows]
    means = sums / np.maximum(mass, _SMALL)[:, None]
    within = (square - (means * mass[:, None]).T @ means) / mass.sum()
    level = max(float(np.trace(within)) / size, _FLOOR)  # one image per class has no spread
    shrunk = (1.0 - shrink) * within + shrink * level * np.eye(size)
    weight = np.linalg.solve(shrunk, means.T)
    offset = np.log(np.maximum(mass, _SMALL) / mass.sum()) - 0.5 * (means.T * weight).sum(axis=0)
    return [(weight.astype(np.float32), offset.astype(np.float32))]


def _hidden(lesson: Lesson, chosen: Mapping[str, Any]) -> Layers:
    rng = np.random.default_rng(lesson.seed)
    order = rng.permutation(len(lesson.y))
    held = round(_HELD_OUT * len(order))
    held = held if held >= _FEWEST_HELD_OUT else 0
    apart, rest = lesson.rows(order[:held]), order[held:]
    net = _Adam(lesson, int(chosen["width"]), rng)
    best, least, waited = net.copy(), np.inf, 0
    weights = lesson.weight
    for _ in range(_EPOCHS):
        rng.shuffle(rest)
        for start in range(0, len(rest), _BATCH):
            rows = rest[start : start + _BATCH]
            net.step(lesson.x[rows], lesson.y[rows], weights[rows], chosen)
        if not held:
            best = net.copy()
            continue
        loss = float((apart.weight * losses(net.head()(apart.x), apart.y)).mean())
        if loss < least:
            best, least, waited = net.copy(), loss, 0
        elif (waited := waited + 1) >= _PATIENCE:
            break
    return [(best[0], best[1]), (best[2], best[3])]


class _Adam:
    """Weights of a hidden and an output layer, and one step of their training."""

    def __init__(self, lesson: Lesson, width: int, rng: np.random.Generator) -> None:
        inputs = lesson.x.shape[1]
        self.values: list[Floats] = [
            (rng.standard_normal((inputs, width)) * np.sqrt(2.0 / inputs)).astype(np.float32),
            np.zeros(width, dtype=np.float32),
            (rng.standard_normal((width, lesson.classes)) / np.sqrt(width)).astype(np.float32),
            np.zeros(lesson.classes, dtype=np.float32),
        ]
        self._first = [np.zeros_like(v) for v in self.values]
        self._second = [np.zeros_like(v) for v in self.values]
        self._steps = 0
        self._rng = rng

    def copy(self) -> list[Floats]:
        return [value.copy() for value in self.values]

    def head(self) -> Head:
        w0, b0, w1, b1 = self.values
        return Head(layers=((w0, b0), (w1, b1)))

    def step(self, x: Floats, y: Ints, weight: Floats, chosen: Mapping[str, Any]) -> None:
        w0, b0, w1, b1 = self.values
        keep = 1.0 - float(chosen["dropout"])
        x = x * (self._rng.random(x.shape, dtype=np.float32) < keep) / np.float32(keep)
        hidden = np.maximum(x @ w0 + b0, 0.0)
        slope = softmax(hidden @ w1 + b1)
        slope[np.arange(len(y)), y] -= 1.0
        slope *= (weight / len(y))[:, None]
        back = (slope @ w1.T) * (hidden > 0)
        self._move([x.T @ back, back.sum(0), hidden.T @ slope, slope.sum(0)], chosen)

    def _move(self, slopes: list[Floats], chosen: Mapping[str, Any]) -> None:
        self._steps += 1
        for i, slope in enumerate(slopes):
            self._first[i] += 0.1 * (slope - self._first[i])
            self._second[i] += 0.001 * (slope * slope - self._second[i])
            first = self._first[i] / (1.0 - 0.9**self._steps)
            second = self._second[i] / (1.0 - 0.999**self._steps)
            decay = float(chosen["decay"]) if self.values[i].ndim == 2 else 0.0
            self.values[i] -= _RATE * (first / (np.sqrt(second) + 1e-8)) + decay * self.values[i]


def softmax(logits: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return probabilities of rows of logits, in their precision.

    Example:
        >>> softmax(np.zeros((1, 2), dtype=np.float32)).tolist()
        [[0.5, 0.5]]
    """
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=logits.dtype)


def losses(logits: Floats, y: Ints) -> npt.NDArray[np.float64]:
    """Return the negative logarithm of each true class's probability, at most 13.8 (one in 1e6)."""
    p = softmax(logits.astype(np.float64))[np.arange(len(y)), y]
    return np.asarray(-np.log(np.maximum(p, 1e-6)))
