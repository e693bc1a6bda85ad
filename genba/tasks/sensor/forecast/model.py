"""The model as arrays, and what they compute: the float64 reference of every exported form.

    window, future, time -> gaps filled, scaled per entity -> expected values of every step
                         -> interval: half width of the step and the time of day, times `width`

A body gives the expected values: "linear" (closed-form ridge, or repeated seasons, which are a
linear map as well), "trees" (gradient boosting with the step ahead as a feature) or "both", mixed
in a share that depends on the step ahead.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.task import Model
from genba.learn.trees import Forest
from genba.tasks.sensor.forecast import features, steps
from genba.tasks.sensor.forecast.batch import Arrays, Batch, from_tensors
from genba.tasks.sensor.forecast.explained import Explained

Floats = npt.NDArray[np.float64]

_BYTES: Final = 32 << 20  # of features in memory at a time


class Forecaster:
    """A model ready to predict with numpy.

    Args:
        model: Its `settings` and `arrays` come from `fit`.
    """

    def __init__(self, model: Model) -> None:
        self.settings: JsonObject = model.settings
        self.arrays: Arrays = dict(model.arrays)
        self.body = Body(model.settings, self.arrays)

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return expected, low, high and look of a batch."""
        count = len(np.asarray(tensors["time"]))
        rows = self.body.rows_at_once
        parts = [
            self._some({name: np.asarray(t)[at : at + rows] for name, t in tensors.items()})
            for at in range(0, count, rows)
        ] or [self._some(tensors)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _some(self, tensors: Tensors) -> dict[str, Array]:
        batch = from_tensors(tensors, self.settings, self.arrays, self.body.explained)
        expected, half = self.body.answer(batch)
        wide = half * np.asarray(tensors["width"], dtype=np.float64)[:, None, None]
        return {
            "expected": expected,
            "low": expected - wide,
            "high": expected + wide,
            "look": batch.look,
        }


class Body:
    """What a batch is turned into: expected values and half widths in the unit of the outputs."""

    def __init__(self, settings: JsonObject, arrays: Arrays) -> None:
        self.settings, self.arrays = settings, arrays
        self.kind = str(settings["body"])
        self.explained = Explained.from_arrays(arrays) if settings["explained"] else None
        self.span = features.explained_span(settings)
        self.layout: features.Layout | None = None
        if self.kind in ("trees", "both"):
            self.layout = features.Layout.of(settings, annual=bool(settings["annual"]))
            self.forest = Forest.from_arrays(arrays)

    @property
    def rows_at_once(self) -> int:
        """How many windows are handled together, so that memory stays bounded."""
        length = int(self.settings["lags"]) + int(self.settings["ahead"])
        one = 8 * length * (2 * len(self.settings["sensors"]) + 4)
        if self.layout is not None:
            wide = sum(a.shape[1] for a in (self.layout.lags, self.layout.before)) + 24
            one += 12 * wide * int(self.settings["ahead"]) * len(self.settings["outputs"])
        return max(1, _BYTES // one)

    def answer(self, batch: Batch) -> tuple[Floats, Floats]:
        """Return expected values and half widths [N, H, O]."""
        z = self.predict(batch)
        expected = z * batch.scale[:, None] + batch.center[:, None]
        half = self.unit(batch) * self.arrays["half"] * batch.scale[:, None]
        return expected, half

    def predict(self, batch: Batch) -> Floats:
        """Return expected values in units of the entity [N, H, O]."""
        if self.kind == "linear":
            return self._linear(batch)
        if self.kind == "trees":
            return self._trees(batch)
        share = self.arrays["share"]
        return np.asarray(share * self._linear(batch) + (1.0 - share) * self._trees(batch))

    def unit(self, batch: Batch) -> Floats:
        """Return how hard each moment is to forecast, 1 on average, by its time of day."""
        local = batch.local[:, batch.z.shape[1] :]
        group = steps.phases(local, self.settings["calendar"])["group"]
        return np.asarray(self.arrays["groups"][group], dtype=np.float64)

    def _linear(self, batch: Batch) -> Floats:
        weights = self.arrays["weights"]
        level, found = features.levels(batch), []
        for o, x in enumerate(features.linear(batch, self.span)):
            used = weights[min(o, len(weights) - 1)]
            found.append(level[:, o, None] + x[:, : len(used)] @ used)
        return np.stack(found, axis=2)

    def _trees(self, batch: Batch) -> Floats:
        assert self.layout is not None
        rows, level = features.for_trees(batch, self.layout)
        count, outputs, ahead, width = rows.shape
        made = self.forest.predict(rows.reshape(-1, width))[:, 0].reshape(count, outputs, ahead)
        if self.settings["base"] == "season":
            made = made + rows[:, :, :, self.layout.base]
        return np.asarray((made + level[:, :, None]).transpose(0, 2, 1), dtype=np.float64)


def repeated(settings: JsonObject, season: int, averaged: int) -> Floats:
    """Return the linear map [1, L, H] that repeats the mean of the last seasons.

    Example:
        >>> repeated({"lags": 3, "ahead": 2}, 2, 1)[0].T
        array([[0., 1., 0.],
               [0., 0., 1.]])
    """
    lags, ahead = int(settings["lags"]), int(settings["ahead"])
    weights = np.zeros((1, lags, ahead))
    for h in range(ahead):
        first = lags + h - (h // season + 1) * season
        at = [first - k * season for k in range(averaged) if first - k * season >= 0]
        weights[0, at, h] = 1.0 / len(at)
    return weights
