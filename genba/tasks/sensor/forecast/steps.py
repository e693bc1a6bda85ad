"""What follows from the step of the data alone: horizon, window, seasons, phases of the calendar.

Whoever asks for forecasts builds windows, so their shape must not change from one version of a
line to the next: it depends on the step (and on what the line says), never on the values.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
WEEK_MS: Final = 7 * DAY_MS
YEAR_MS: Final = round(365.2425 * DAY_MS)
_MONTH_MS: Final = YEAR_MS // 12
_QUARTER_MS: Final = YEAR_MS // 4

_LONGEST_HORIZON: Final = 288  # of a derived one: a day of five-minute readings
_LONGEST_WINDOW: Final = 1_008  # of a derived one: a week of ten-minute readings
_SEVERAL_WEEKS: Final = 720  # windows of more than a week end here
_MOST_DAY_BINS: Final = 96  # of the calendar profile: every quarter of an hour
_DAY_BINS: Final = 24  # groups of the time of day, for the width of intervals


def nominal(step_ms: int) -> int:
    """Return the step that is meant: months and quarters are not equally long.

    Example:
        >>> nominal(3_600_000), nominal(31 * 86_400_000)
        (3600000, 2629746000)
    """
    for meant, low, high in (
        (_MONTH_MS, 27.5, 31.5),
        (_QUARTER_MS, 89.5, 92.5),
        (YEAR_MS, 364.5, 366.5),
    ):
        if low * DAY_MS <= step_ms <= high * DAY_MS:
            return meant
    return step_ms


def horizon(step_ms: int) -> int:
    """Return how many steps ahead to look where the line does not say: a day, or two weeks of days.

    Example:
        >>> horizon(HOUR_MS), horizon(DAY_MS), horizon(_MONTH_MS)
        (24, 14, 12)
    """
    if step_ms <= 12 * HOUR_MS:
        return min(DAY_MS // step_ms, _LONGEST_HORIZON)
    if step_ms < 7 * DAY_MS:
        return max(2, 14 * DAY_MS // step_ms)
    return max(2, min(12, YEAR_MS // step_ms))


def window(step_ms: int) -> int:
    """Return how many rows a window has where the line does not say.

    Three or two whole weeks where those are at most 720 rows, else a week, else what fits.

    Example:
        >>> window(HOUR_MS), window(HOUR_MS // 2), window(HOUR_MS // 6), window(DAY_MS)
        (504, 672, 1008, 56)
    """
    if step_ms <= 12 * HOUR_MS:
        week = WEEK_MS // step_ms
        weeks = [k * week for k in (3, 2) if k * week <= _SEVERAL_WEEKS]
        return int(weeks[0] if weeks else min(week, _LONGEST_WINDOW))
    if step_ms < WEEK_MS:
        return max(14, 8 * WEEK_MS // step_ms)
    return int(max(8, min(104, round(3 * YEAR_MS / step_ms))))


def seasons(step_ms: int, lags: int) -> list[int]:
    """Return the seasons of human clocks in steps, those that a window can look back on.

    Example:
        >>> seasons(HOUR_MS, 504), seasons(_MONTH_MS, 36), seasons(7 * HOUR_MS, 72)
        ([24, 168], [12], [24])
    """
    found = []
    for period in (DAY_MS, WEEK_MS, YEAR_MS):
        count = round(period / step_ms)
        fits = abs(count * step_ms - period) <= 0.005 * period
        if fits and 2 <= count <= lags:
            found.append(int(count))
    return found


def calendar(step_ms: int) -> dict[str, int]:
    """Return the phases that tell one moment from another.

    `period_ms` is divided into `bins` (the profile: step in the week, day in the week, or step in
    the year), `day_bins` of a day (0 where a step is a day or longer), and `groups` of a day for
    the width of intervals.

    Example:
        >>> calendar(HOUR_MS)
        {'period_ms': 604800000, 'bins': 168, 'day_bins': 24, 'groups': 24}
    """
    if step_ms <= 12 * HOUR_MS:
        day = max(2, DAY_MS // step_ms)
        day = min(day, _MOST_DAY_BINS)
        return {
            "period_ms": WEEK_MS,
            "bins": 7 * day,
            "day_bins": day,
            "groups": min(day, _DAY_BINS),
        }
    if step_ms <= DAY_MS:
        return {"period_ms": WEEK_MS, "bins": 7, "day_bins": 0, "groups": 1}
    return {
        "period_ms": YEAR_MS,
        "bins": max(2, round(YEAR_MS / step_ms)),
        "day_bins": 0,
        "groups": 1,
    }


def phases(local: Ints, made: Mapping[str, Any]) -> dict[str, Ints]:
    """Return the number of the bin that each local time (ms) falls into.

    Returns:
        `profile` (0 to bins - 1), `day` (0 to day_bins - 1) and `group` (0 to groups - 1).
    """
    period, bins = int(made["period_ms"]), int(made["bins"])
    profile = (local % period) * bins // period
    day, groups = local % DAY_MS, max(1, int(made["groups"]))
    return {
        "profile": profile,
        "day": day * max(1, int(made["day_bins"])) // DAY_MS,
        "group": day * groups // DAY_MS,
    }
