"""When units began and ended, and what is known of a life that has not ended."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, View

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SPLITS: Final = ("train", "calibrate", "test", "purged")
#: A label from here on is what an inspection found: so many cycles left, plus this.
INSPECTED: Final = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lives:
    """The lives of the units of a dataset, in the unit of its `time`; `step` is one cycle.

    `end` is NaN for a unit that has not failed. An inspection ("40 cycles left") stands in for
    the end of such a unit; a confirmed failure always counts more.
    """

    first: Floats  # [units] time of the first row
    last: Floats  # [units] time of the last row
    end: Floats  # [units]
    step: int
    counted: bool  # time is a count of cycles, not a clock

    @classmethod
    def of(cls, view: View, settings: JsonObject) -> "Lives":
        """Read the lives of every unit of a view."""
        count = len(view.entities)
        first, last = np.full(count, np.inf), np.full(count, -np.inf)
        end = np.asarray(view.ends(), dtype=np.float64).copy()
        inspected, when = np.full(count, np.nan), np.full(count, -np.inf)
        step = int(settings["step_ms"])
        for split in _SPLITS:
            for chunk in view.chunks(split):
                if not len(chunk["time"]):
                    continue
                unit, time = int(chunk["entity"][0]), np.asarray(chunk["time"], dtype=np.float64)
                first[unit] = min(first[unit], time[0])
                last[unit] = max(last[unit], time[-1])
                said = np.flatnonzero(np.asarray(chunk["label"]) >= INSPECTED)
                if len(said) and time[said[-1]] > when[unit]:
                    when[unit] = time[said[-1]]
                    left = float(chunk["label"][said[-1]]) - INSPECTED
                    inspected[unit] = when[unit] + left * step
        end = np.where(np.isnan(end), inspected, end)
        return cls(first=first, last=last, end=end, step=step, counted=not settings["has_clock"])

    def left(self, unit: int, time: npt.NDArray[Any]) -> Floats:
        """Return the remaining life of a unit at some times, in cycles; NaN where unknown."""
        left = (self.end[unit] - np.asarray(time, dtype=np.float64)) / self.step
        return np.where(left >= 0.0, left, np.nan)

    def at_least(self, unit: int, time: npt.NDArray[Any]) -> Floats:
        """Return how many cycles a unit is known to have lasted after some times."""
        return np.asarray((self.last[unit] - np.asarray(time, dtype=np.float64)) / self.step)

    def age(self, unit: int, time: npt.NDArray[Any]) -> Floats:
        """Return the age of a unit at some times, in cycles; its first row has lived one cycle."""
        time = np.asarray(time, dtype=np.float64)
        begin = 0.0 if self.counted else self.first[unit] - self.step
        return np.asarray((time - begin) / self.step)


def capped(left: Floats, at_least: Floats, cap: float) -> Floats:
    """Return the lives to learn: at most `cap`, and also known where a unit merely outlived it.

    A unit that was stopped healthy has no end, but a row more than `cap` cycles before its last
    one had at least `cap` left, and that is all a capped life says.

    Args:
        left: Remaining lives, NaN where unknown.
        at_least: What each row is known to have had left.
        cap: 0 for raw lives.

    Example:
        >>> capped(np.array([200.0, 50.0, np.nan, np.nan]), np.array([200.0, 50, 140, 20]), 125)
        array([125.,  50., 125.,  nan])
    """
    if cap <= 0:
        return left
    outlived = np.where(at_least >= cap, float(cap), np.nan)
    return np.where(np.isnan(left), outlived, np.minimum(left, cap))
