"""Well-known methods on the same split, thresholded by the same rule: the report's yardstick."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import IsolationForest

from genba.core.protocols import Array, JsonObject, Tensors, View
from genba.core.task import Scores
from genba.learn.threads import one_thread
from genba.tasks.sensor.anomaly import schema
from genba.tasks.sensor.anomaly.calibrate import threshold
from genba.tasks.sensor.anomaly.fit import collect
from genba.tasks.sensor.anomaly.model import fill
from genba.tasks.sensor.anomaly.score import score

_ROWS: Final = 20_000  # the forest draws 256 of them per tree; more would change nothing
_KEPT: Final = (
    "f1",
    "false_alarm_rate",
    "missed_alarm_rate",
    "false_alarms_per_day",
    "injected_missed_rate",
)


class Forest:
    """Isolation forest on the readings of now."""

    def __init__(self, view: View, settings: JsonObject) -> None:
        data = collect(view, settings)
        self._settings, self._usual = settings, data.usual
        self._limits, self.threshold = schema.limits(settings), 1.0
        normal = data.filled[data.usable][:, -len(settings["sensors"]) :]
        stride = -(-len(normal) // _ROWS)
        self._forest = IsolationForest(n_estimators=100, random_state=0)
        self._forest.fit(normal[::stride].astype(np.float64))

    def calibrate(self, view: View) -> None:
        """Set the threshold by the rule every model of this task is calibrated by."""
        scores, entity, time = [], [], []
        for samples in schema.read(view, "calibrate", self._settings):
            keep = samples.label != 1.0
            scores.append(self(samples.tensors)["score"][keep])
            entity.append(samples.entity[keep].astype(np.int64))
            time.append(samples.time[keep])
        scored = (np.concatenate(scores), np.concatenate(entity), np.concatenate(time))
        self.threshold = threshold(scored, self._settings).value

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return score and alarm; a forest expects nothing in particular."""
        window = np.asarray(tensors["window"], dtype=np.float32)
        filled, valid = fill(window, *self._limits, self._usual)
        now = filled[:, -window.shape[2] :].astype(np.float64)
        unusual: npt.NDArray[Any] = -self._forest.score_samples(now)
        scores = np.where(valid[:, -window.shape[2] :].any(axis=1), unusual / self.threshold, 0.0)
        nothing = np.full((len(window), len(self._settings["outputs"])), np.nan)
        return {"score": scores, "alarm": scores > 1.0, "expected": nothing}


def baselines(view: View, settings: JsonObject) -> Mapping[str, Scores]:
    """Measure an isolation forest (scikit-learn, 100 trees) on the test split."""
    with one_thread():
        forest = Forest(view, settings)
        forest.calibrate(view)
        made = score(forest, view, "test", settings)
    kept = {name: value for name, value in made.measures.items() if name in _KEPT}
    return {"isolation forest": Scores(measures=kept)}
