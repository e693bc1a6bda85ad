"""Forecasts that anybody can make: repeat what was read a season ago, or go on as so far."""

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors
from genba.tasks.sensor.forecast import series
from genba.tasks.sensor.forecast.arrays import filled
from genba.tasks.sensor.forecast.batch import Places
from genba.tasks.sensor.forecast.model import repeated

Floats = npt.NDArray[np.float64]


class Repeat:
    """The value of the same phase of the last season, or the mean of several.

    Args:
        settings: Of the task.
        season: Steps; 1 repeats the last value.
        averaged: How many seasons.
    """

    def __init__(self, settings: JsonObject, season: int, averaged: int = 1) -> None:
        self.settings = settings
        self.weights = repeated(settings, season, averaged)[0]

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return expected values [N, H, O]; there is no interval."""
        y = outputs(tensors, self.settings)
        return {"expected": np.einsum("nlo,lh->nho", y, self.weights)}


class Drift:
    """The last value, and on along the line from the first of the window to it."""

    def __init__(self, settings: JsonObject) -> None:
        self.settings = settings

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return expected values [N, H, O]; there is no interval."""
        y = outputs(tensors, self.settings)
        slope = (y[:, -1] - y[:, 0]) / max(1, y.shape[1] - 1)
        ahead = np.arange(1, int(self.settings["ahead"]) + 1)
        return {"expected": y[:, -1:, :] + ahead[None, :, None] * slope[:, None, :]}


def outputs(tensors: Tensors, settings: JsonObject) -> Floats:
    """Return the outputs in the window, gaps filled as a model fills them [N, L, O]."""
    low, high = series.limits(settings)
    window = np.asarray(tensors["window"], dtype=np.float32)
    window = np.where((window >= low) & (window <= high), window, np.nan)
    y = window[:, :, Places.of(settings).outputs].astype(np.float64)
    return filled(y, settings["fill"], 1, np.zeros(y.shape[2]))
