"""Readings as the monitors are fitted on them: in the order of time, entity by entity."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Readings of all entities, one entity after the other.

    Args:
        values: [N, sensors], NaN for missing.
        entity: [N] its number.
        time: [N].
        normal: [N] nobody has labelled it an anomaly.
        step: From one reading to the next, in the unit of `time`; 0 where rows have no order.
    """

    values: Floats
    entity: Ints
    time: Ints
    normal: Bools
    step: int

    @property
    def whole(self) -> Bools:
        """Whether every sensor reads."""
        return np.asarray(np.isfinite(self.values).all(axis=1), dtype=np.bool_)

    def follows(self) -> Bools:
        """Whether a row is the next reading after the row before it.

        Rows in no order follow each other as they come: so does a stream of them on a device.
        """
        same = np.zeros(len(self.entity), dtype=np.bool_)
        same[1:] = self.entity[1:] == self.entity[:-1]
        if self.step:
            gap = np.diff(self.time, prepend=self.time[:1])
            same &= np.abs(gap - self.step) * 2 <= self.step
        return same

    def since_start(self) -> Ints:
        """Return how many rows of its entity come before each row."""
        at = np.arange(len(self.entity))
        first = np.ones(len(at), dtype=np.bool_)
        first[1:] = self.entity[1:] != self.entity[:-1]
        return np.asarray(at - np.maximum.accumulate(np.where(first, at, 0)), dtype=np.int64)

    def run_lengths(self) -> Ints:
        """Return for each sensor and row how many equal readings in a row there are by then."""
        follows, values = self.follows(), self.values
        equal = np.zeros(values.shape, dtype=np.bool_)
        equal[1:] = (values[1:] == values[:-1]) & follows[1:, None]
        at = np.arange(len(values))[:, None]
        start = np.maximum.accumulate(np.where(equal, 0, at), axis=0)
        return np.asarray(at - start + 1, dtype=np.int64)
