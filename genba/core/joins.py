"""How a line names what it joins by time: `plc.speed`, `plc.speed:mean`, `ts +01:00`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from genba.core.codec import nearest
from genba.core.line import Data, Join
from genba.core.problem import Problem

Method = Literal["last", "mean"]

METHODS: Final[tuple[Method, ...]] = ("last", "mean")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_CLOCK: Final = re.compile(
    r"(?P<column>.*\S)\s+(?P<sign>[+-])(?P<h>\d{2,6}):(?P<m>\d\d)(:(?P<s>\d\d))?"
)
_LONGEST_S: Final = 366 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """One column of a row that comes from a joined source."""

    name: str  # of the row's column: "plc.speed:mean"
    column: str  # of the source: "speed"
    method: Method  # the last value, or the mean of all values, within the tolerance


def joined_of(name: str, joins: Mapping[str, Join]) -> tuple[str, Joined] | None:
    """Return from which source an input comes and how, None for a column of `data.source`.

    Raises:
        Problem: G218 for a way of summing up that does not exist.

    Example:
        >>> joined_of("plc.speed:mean", {"plc": Join(source="files:plc.csv", within_s=5)})
        ('plc', Joined(name='plc.speed:mean', column='speed', method='mean'))
        >>> joined_of("flow", {}) is None
        True
    """
    source, dot, rest = name.partition(".")
    if not dot or source not in joins:
        return None
    column, colon, method = rest.rpartition(":")
    if not colon:
        return source, Joined(name=name, column=rest, method="last")
    for known in METHODS:
        if method == known:
            return source, Joined(name=name, column=column, method=known)
    near = nearest(method, METHODS) or "mean"
    raise Problem(
        "G218",
        f"{name!r} asks for {method!r} of a column; there are {' and '.join(METHODS)}.",
        where="data.inputs",
        tries=[f'inputs = ["{source}.{column}:{near}"]', "genba explain G218"],
    )


def clock_of(time: str) -> tuple[str, int]:
    """Return the column of a joined source's clock, and by how many ms it is ahead of UTC.

    Example:
        >>> clock_of("Time stamp"), clock_of("ts +01:00"), clock_of("ts -00:00:07")
        (('Time stamp', 0), ('ts', 3600000), ('ts', -7000))
    """
    found = _CLOCK.fullmatch(time.strip())
    if not found:
        return time, 0
    seconds = int(found["h"]) * 3600 + int(found["m"]) * 60 + int(found["s"] or 0)
    return found["column"], (-1000 if found["sign"] == "-" else 1000) * seconds


def check_joins(data: Data) -> None:
    """Refuse a `[data.join]` that cannot be meant, before anything is read.

    Raises:
        Problem: G108 for a tolerance that makes no sense, G218 for the rest.
    """
    if not data.join:
        return
    if data.time is None:
        raise _cannot(
            "data.join",
            "Sources are joined by time, and the line names no time column.",
            'time = "the column with the times"',
        )
    if data.image or data.mask:
        raise _cannot(
            "data.join", "Only tables are joined by time, not images.", "remove [data.join]"
        )
    for name, join in data.join.items():
        if not _NAME.fullmatch(name):
            raise _cannot(
                f"data.join.{name}",
                f"{name!r} cannot be the name of a joined source: letters, digits, _ and - only.",
                f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_') or 'plc'} = {{ … }}",
            )
        if not 0 < join.within_s <= _LONGEST_S:
            raise Problem(
                "G108",
                f"data.join.{name}.within_s is {join.within_s:g}; it must be above 0 and at most "
                f"{_LONGEST_S:g} (a year).",
                where=f"data.join.{name}.within_s",
                why="A value older than this many seconds is not put into a row.",
                tries=["within_s = 60", "genba explain G108"],
            )
    _check_roles(data)


def _check_roles(data: Data) -> None:
    """What a row is about, and what is to be found out, are of the row's own source."""
    for role in ("time", "entity", "output", "label"):
        name = getattr(data, role)
        if name and (found := joined_of(name, data.join)):
            source = found[0]
            raise _cannot(
                f"data.{role}",
                f"The {role} cannot come from the joined source {source!r}.",
                f'source = "{data.join[source].source}", and join the other one to it',
                why=f"A value up to {data.join[source].within_s:g} s old would be taken for the "
                "truth of the row, and the same truth would stand on both sides of the split.",
            )
    for name in (*data.inputs, *data.known, *data.checks):
        joined_of(name, data.join)


def _cannot(where: str, what: str, fix: str, why: str = "") -> Problem:
    return Problem("G218", what, where=where, why=why, tries=[fix, "genba explain G218"])
