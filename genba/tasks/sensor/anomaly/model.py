"""The model as arrays, and what they compute: the float64 reference of every exported form.

    window -> readings that are missing or implausible replaced -> expected value of each output
           -> residual -> statistic (how unusual) -> score = statistic / threshold of the entity

A body predicts the outputs from the window: "hinges" (closed-form ridge), "trees" (boosting) or
"components" (principal components: Hotelling's T2 on those kept, Q on the rest). With an output
the statistic is the residual of now in units of its usual spread at that expected value; without
one it is the length of the residuals of all sensors after a linear map (whitening).

Each row is judged on its own. Judging the last three rows of a turbine together missed a quarter
fewer of the simulated faults, but only 48 % instead of 74 % of its alarm episodes met a loss that
the wind farm had recorded (mean of six quarters, four turbines). Real records count more.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.task import Model
from genba.learn.linear import Hinges, apply
from genba.learn.trees import Forest
from genba.tasks.sensor.anomaly import absent, schema

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Arrays = Mapping[str, Array]


class Detector:
    """A model ready to predict with numpy.

    Args:
        model: Its `settings` and `arrays` come from `fit`.
    """

    def __init__(self, model: Model) -> None:
        self.settings, self.arrays = model.settings, model.arrays
        self.low, self.high = schema.limits(model.settings)
        self.thresholds = np.asarray(model.arrays["thresholds"], dtype=np.float64)

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return score, alarm and expected of a batch."""
        statistic, expected, _ = self.statistic(np.asarray(tensors["window"], dtype=np.float32))
        score = statistic / self.thresholds[np.asarray(tensors["entity"], dtype=np.int64)]
        return {"score": score, "alarm": score > 1.0, "expected": expected}

    def statistic(self, window: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Bools]:
        """Return how unusual each window is, the expected outputs, and which could be judged.

        A window that cannot be judged, because the output (or every input) of now is missing, has
        statistic 0.
        """
        filled, valid = fill(window, self.low, self.high, self.arrays["usual"], self.arrays)
        predicted, residual = residuals(self.settings, self.arrays, filled, valid)
        statistic = statistics(self.settings, self.arrays, predicted, residual)
        now = valid[:, -window.shape[2] :]
        if "guess.extra" in self.arrays:
            statistic = statistic / absent.wide(self.arrays, now)
        judged = self._judged(now)
        return np.where(judged, statistic, 0.0), self._expected(predicted), judged

    def _judged(self, now: Bools) -> Bools:
        """Say which rows can be judged: the output and an input are there, or any sensor is."""
        if self.settings["mode"] != "regression":
            return np.asarray(np.any(now, axis=1), dtype=bool)
        if "guess.extra" not in self.arrays:
            return np.asarray(np.all(now, axis=1), dtype=bool)
        inputs = np.any(now[:, self.arrays["guess.at"]], axis=1)
        return np.asarray(inputs & now[:, self.arrays["outputs"][0]], dtype=bool)

    def _expected(self, predicted: Floats) -> Floats:
        outputs = self.arrays["outputs"]
        plain = np.sinh(predicted) if self.settings["transform"] == "asinh" else predicted
        return plain * self.arrays["scale"][outputs] + self.arrays["center"][outputs]


def fill(
    window: npt.NDArray[np.float32],
    low: npt.NDArray[np.float32],
    high: npt.NDArray[np.float32],
    usual: npt.NDArray[np.float32],
    arrays: Arrays | None = None,
) -> tuple[npt.NDArray[np.float32], Bools]:
    """Replace missing and implausible readings.

    A reading of now becomes what the other sensors make likely where `arrays` can say so, else the
    sensor's usual value; an earlier one becomes the reading of now.

    Returns:
        Readings [N, L * S] and which of them were valid.
    """
    valid = (window >= low) & (window <= high)
    now = np.where(valid[:, -1], window[:, -1], usual)
    if arrays is not None and "guess.at" in arrays and not valid[:, -1].all():
        now = np.where(valid[:, -1], now, absent.guess(arrays, now)).astype(np.float32)
    filled = np.where(valid, window, now[:, None, :]).astype(np.float32)
    flat = (len(window), window.shape[1] * window.shape[2])
    return filled.reshape(flat), valid.reshape(flat)


def residuals(
    settings: JsonObject, arrays: Arrays, filled: npt.NDArray[np.float32], valid: Bools
) -> tuple[Floats, Floats]:
    """Return predicted outputs and residuals in standardised units; 0 where a reading is missing.

    The residual of "components" has every column of the window, that of other bodies the outputs.
    """
    sensors = len(settings["sensors"])
    u = standardise(filled, int(settings["lags"]), arrays, str(settings["transform"]))
    if settings["body"] == "components":
        centred, kept = u - arrays["offset"], arrays["components"]
        predicted = ((centred @ kept) @ kept.T + arrays["offset"])[:, -sensors:]
        return predicted, centred * valid
    if settings["body"] == "trees":
        predicted = Forest.from_arrays(arrays).predict(filled)
    else:
        inside = np.clip(u[:, arrays["columns"]], arrays["floor"], arrays["ceiling"])
        predicted = apply(hinges_of(arrays), arrays["weights"], inside)
        predicted = np.clip(predicted, arrays["lowest"], arrays["highest"])
    outputs = arrays["outputs"]
    known = valid[:, -sensors:][:, outputs]
    return predicted, (u[:, -sensors:][:, outputs] - predicted) * known


def statistics(settings: JsonObject, arrays: Arrays, predicted: Floats, residual: Floats) -> Floats:
    """Return how unusual each residual is, before any threshold."""
    if settings["mode"] == "regression":
        usual = np.interp(predicted[:, 0], arrays["spread.at"], arrays["spread.value"])
        return np.asarray(np.abs(residual[:, 0]) / usual, dtype=np.float64)
    return np.asarray(np.linalg.norm(residual @ arrays["whiten"], axis=1), dtype=np.float64)


def standardise(filled: Array, lags: int, arrays: Arrays, transform: str) -> Floats:
    """Return readings [N, L * S] centred and scaled per sensor, heavy tails drawn in if asked."""
    center, scale = (np.tile(arrays[name], lags) for name in ("center", "scale"))
    u = (filled.astype(np.float64) - center) / scale
    return np.asarray(np.arcsinh(u) if transform == "asinh" else u, dtype=np.float64)


def hinges_of(arrays: Arrays) -> Hinges:
    """Return the basis of a "hinges" body."""
    return Hinges(**{name: arrays[f"hinge.{name}"] for name in Hinges.__slots__})
