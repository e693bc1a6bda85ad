"""The model as arrays, and what they compute: the float64 reference of every exported form.

    window, age -> features (features.py) -> body -> remaining life -> interval, score and alarm

A body is "trees" (gradient boosting) or "hinges" (closed-form ridge on a piecewise linear basis).
The interval widens and narrows with the predicted life as it did on units the body had not seen.
The score is the alarm point divided by the predicted life: 1 at the alarm point, and growing as
the failure comes nearer.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.task import Model
from genba.learn.linear import Hinges, apply
from genba.learn.trees import Forest
from genba.tasks.sensor.remaining_life.features import features

Floats = npt.NDArray[np.float64]
Arrays = Mapping[str, Array]

#: A predicted life is taken for at least so many cycles in the score, which stays finite.
SHORTEST: Final = 0.1


class Estimator:
    """A model ready to predict with numpy.

    Args:
        model: Its `settings` and `arrays` come from `fit`.
    """

    def __init__(self, model: Model) -> None:
        self.settings, self.arrays = model.settings, model.arrays

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return expected, low, high, score and alarm of a batch."""
        x = features(tensors, self.settings, self.arrays).astype(np.float32)
        return self.answer(predict(self.settings, self.arrays, x), tensors["alarm_at"])

    def answer(self, expected: Floats, alarm_at: Array) -> dict[str, Array]:
        """Return everything that follows from a predicted life."""
        low, high = interval(self.arrays, expected)
        score = np.asarray(alarm_at, dtype=np.float64) / np.maximum(expected, SHORTEST)
        return {
            "expected": expected,
            "low": low,
            "high": high,
            "score": score,
            "alarm": score > 1.0,
        }


def predict(settings: JsonObject, arrays: Arrays, x: npt.NDArray[np.float32]) -> Floats:
    """Return the remaining life of features [N, F], between 0 and the largest that was learnt."""
    if settings["body"] == "trees":
        made = Forest.from_arrays(arrays).predict(x)[:, 0]
    else:
        made = apply(hinges_of(arrays), np.asarray(arrays["weights"]), standard(arrays, x))[:, 0]
    return np.clip(made, 0.0, float(arrays["top"][0]))


def standard(arrays: Arrays, x: npt.NDArray[np.float32]) -> Floats:
    """Return features centred, scaled and kept within what training has seen."""
    u = (x.astype(np.float64) - arrays["feature_center"]) / arrays["feature_scale"]
    return np.clip(u, arrays["floor"], arrays["ceiling"])


def interval(arrays: Arrays, expected: Floats) -> tuple[Floats, Floats]:
    """Return both ends of the interval of a predicted life."""
    at, top = arrays["spread.at"], float(arrays["top"][0])
    below = np.interp(expected, at, arrays["spread.below"])
    above = np.interp(expected, at, arrays["spread.above"])
    return np.maximum(expected - below, 0.0), np.minimum(expected + above, top)


def hinges_of(arrays: Arrays) -> Hinges:
    """Return the basis of a "hinges" body."""
    return Hinges(**{name: arrays[f"hinge.{name}"] for name in Hinges.__slots__})
