"""Is a reading what the other sensors, and the readings before it, promise?

Three looks at the residuals of two linear predictions (Blanke et al., "Diagnosis and Fault-Tolerant
Control", 2016, chapter 6: analytical redundancy): from the other sensors at the same moment, from
the readings before, and the smoothed residual of the first (an exponentially weighted moving
average, Roberts, Technometrics 1959), which finds what is small and stays. Each threshold is a
quantile of the same statistic on calibration rows, so that it trips as rarely as was asked for.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.edge.safety.plan import Plausible
from genba.edge.safety.track import Track

Floats = npt.NDArray[np.float64]
_KINDS: Final = ("cross", "predicted", "drift")
FARTHEST: Final = 10.0  # standardised readings are cut off here: one broken sensor stays one term


class Residuals:
    """The predictions of a plan, ready for one reading after the other."""

    def __init__(self, plan: Plausible) -> None:
        count = len(plan.center)
        self.count, self.history, self.smooth = count, plan.history, plan.smooth
        self.center = np.array(plan.center)
        self.inverse = 1.0 / np.array(plan.scale)
        self.left, self.right = np.triu_indices(count)
        self._squares = slice(1 + count, 1 + count + len(self.left))
        self._before = slice(1 + count + len(self.left), None)
        self.features = np.zeros(1 + count + len(self.left) + plan.history * count)
        self.features[0] = 1.0
        self.weights = np.array(plan.weights).reshape(len(self.features), 2 * count)
        limits = np.array([plan.cross, plan.before, plan.drift])
        self.limits = np.where(limits > 0, limits, np.inf).ravel()
        self.blind = self.limits.copy()  # before there is a history
        self.blind[count : 2 * count] = np.inf
        self._stats = np.zeros(3 * count)
        self._double = np.zeros(2 * count)

    def standardise(self, values: Any) -> Floats:
        """Return readings in units of their spread."""
        z: Floats = (values - self.center) * self.inverse
        return np.minimum(np.maximum(z, -FARTHEST, out=z), FARTHEST, out=z)

    def statistics(self, z: Floats, track: Track) -> Floats:
        """Return |residual| from the others, from before, and the smoothed one; remembers z."""
        count, features, stats = self.count, self.features, self._stats
        features[1 : 1 + count] = z
        features[self._squares] = z[self.left] * z[self.right]
        if len(track.drift) != count:
            track.before = np.zeros(self.history * count)
            track.drift = np.zeros(count)
            track.fresh = 0
        features[self._before] = track.before
        double = self._double
        double[:count] = z
        double[count:] = z
        residual = double - features @ self.weights
        track.drift += self.smooth * (residual[:count] - track.drift)
        stats[: 2 * count] = residual
        stats[2 * count :] = track.drift
        np.abs(stats, out=stats)
        if self.history:
            track.before[count:] = track.before[:-count]
            track.before[:count] = z
            track.fresh += 1
        return stats

    def exceeded(self, z: Floats, track: Track) -> list[tuple[str, int, float]]:
        """Return (kind, sensor, how many times its limit) of every statistic beyond its limit."""
        ready = track.fresh >= self.history
        stats = self.statistics(z, track)
        limits = self.limits if ready else self.blind
        beyond = stats > limits
        if not beyond.any():
            return []
        at = np.flatnonzero(beyond)
        ratio = stats[at] / limits[at]
        return [
            (_KINDS[i // self.count], i % self.count, float(r))
            for i, r in zip(at.tolist(), ratio, strict=True)
        ]


def forget(track: Track) -> None:
    """Begin anew after a gap: nothing that was before promises anything."""
    track.fresh = track.seen = 0
    track.runs, track.last = [], []
    if len(track.drift):
        track.drift[:] = 0.0
