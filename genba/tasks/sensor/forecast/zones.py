"""Local clocks: people live by them, so load and traffic follow them through daylight saving."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem

Ints = npt.NDArray[np.int64]

_FIRST_YEAR: Final = 1990
_LAST_YEAR: Final = 2050
_STEP: Final = timedelta(days=1)


def offsets(name: str) -> dict[str, list[int]]:
    """Return how far a zone's clocks are ahead of UTC, as steps over time.

    A package carries these numbers, so it needs no table of time zones where it runs.

    Args:
        name: IANA name such as "Europe/Paris".

    Returns:
        `from_ms` (ms since 1970 UTC, first 0) and `offset_ms` that holds from then on.

    Raises:
        Problem: G543 for a zone that is not known here.

    Example:
        >>> offsets("UTC")
        {'from_ms': [0], 'offset_ms': [0]}
    """
    if name.upper() in ("UTC", "GMT", "Z"):
        return {"from_ms": [0], "offset_ms": [0]}
    try:
        zone = ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise Problem(
            "G543",
            f"The time zone {name!r} is not known on this machine.",
            where="options.timezone",
            why=f"{type(error).__name__}: {error}.",
            tries=['timezone = "Europe/Paris"', "apt-get install tzdata", "genba explain G543"],
        ) from error
    return _steps(zone)


def local_ms(time: npt.ArrayLike, table: Mapping[str, Any]) -> Ints:
    """Return what local clocks show, as ms since 1970 in local time.

    Example:
        >>> local_ms([0], {"from_ms": [0], "offset_ms": [3_600_000]}).tolist()
        [3600000]
    """
    moments = np.asarray(time, dtype=np.int64)
    starts = np.asarray(table["from_ms"], dtype=np.int64)
    shifts = np.asarray(table["offset_ms"], dtype=np.int64)
    at = np.maximum(np.searchsorted(starts, moments, side="right") - 1, 0)
    return moments + shifts[at]


def _steps(zone: ZoneInfo) -> dict[str, list[int]]:
    """Look for changes day by day, then find the minute of each."""
    here = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC)
    starts, shifts = [0], [_offset_ms(zone, here)]
    while here.year < _LAST_YEAR:
        after = here + _STEP
        if _offset_ms(zone, after) != shifts[-1]:
            starts.append(round(_change(zone, here, after).timestamp() * 1000))
            shifts.append(_offset_ms(zone, after))
        here = after
    return {"from_ms": starts, "offset_ms": shifts}


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    old = _offset_ms(zone, before)
    while after - before > timedelta(minutes=1):
        middle = before + (after - before) / 2
        middle = middle.replace(second=0, microsecond=0)
        if middle == before:
            break
        before, after = (middle, after) if _offset_ms(zone, middle) == old else (before, middle)
    return after


def _offset_ms(zone: ZoneInfo, moment: datetime) -> int:
    shift = moment.astimezone(zone).utcoffset() or timedelta(0)
    return round(shift.total_seconds() * 1000)
