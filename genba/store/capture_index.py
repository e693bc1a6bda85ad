"""Which capture holds a prediction: its id says so, so the key of its row is the index.

An id is `capture-<server>-<first>-<last>-<chance>`, the numbers with 16 digits. Ids of one server
sort by the first number, and both bounds can be read without looking at a body, so one walk along
the primary key finds the captures of a prediction, or that there is none.
"""

import re
import secrets
from collections.abc import Iterator
from typing import Final

from sqlalchemy import ColumnElement, func, select

from genba.store import tables
from genba.store.database import Database

_ID: Final = tables.record.c.id
_DIGITS: Final = 16
_MOST: Final = 10**_DIGITS
_CHANCE: Final = 4  # bytes; a shadow's rows of the same predictions may be a capture of their own
_NEAR: Final = 256  # ids looked at first: what was written about the same time
#: Ids from before they said what they hold: `capture-` and the time, whose first digit is 0 or 1.
_EARLIER: Final = ("capture-0", "capture-2")
_EARLIER_ID: Final = re.compile(r"capture-[0-9a-z]{15}")


def capture_id(server: str, first: int, last: int) -> str:
    """Return the id of a new capture of the predictions `first` to `last` of a server.

    Example:
        >>> capture_id("server-1", 5, 12)[:-8]
        'capture-server-1-0000000000000005-0000000000000012-'
    """
    numbers = f"{first:0{_DIGITS}d}-{last:0{_DIGITS}d}"
    return f"capture-{server}-{numbers}-{secrets.token_hex(_CHANCE)}"


def captures_of(database: Database, server: str, number: int) -> Iterator[str]:
    """Yield the ids of the captures whose bounds a prediction lies in, the likeliest first.

    Args:
        database: Of the store.
        server: Id of the server that answered.
        number: Of the prediction within its server.
    """
    if number >= _MOST:
        return
    prefix = f"capture-{server}-"
    wanted = f"{number:0{_DIGITS}d}"
    begins: list[ColumnElement[bool]] = [
        f"{prefix}{0:0{_DIGITS}d}" <= _ID,
        f"{prefix}{wanted}-{'9' * _DIGITS}-{'z' * 2 * _CHANCE}" >= _ID,
        func.substr(_ID, 1, len(prefix)) == prefix,
    ]
    last = func.substr(_ID, len(prefix) + _DIGITS + 2, _DIGITS)
    near = select(_ID).where(*begins).order_by(_ID.desc()).limit(_NEAR)
    everywhere = select(_ID).where(*begins, last >= wanted).order_by(_ID.desc())
    start = len(prefix) + _DIGITS + 1
    yielded: set[str] = set()
    with database.read() as connection:
        found = [row.id for row in connection.execute(near)]
    for id in found:
        if id[start : start + _DIGITS] >= wanted:
            yielded.add(id)
            yield id
    if len(found) < _NEAR:
        return
    with database.read() as connection:
        rest = [row.id for row in connection.execute(everywhere)]
    yield from (id for id in rest if id not in yielded)


def earlier_captures(database: Database) -> list[str]:
    """Return the ids of captures that do not say what they hold, newest first."""
    low, high = _EARLIER
    statement = select(_ID).where(_ID.between(low, high)).order_by(_ID.desc())
    with database.read() as connection:
        ids = [row.id for row in connection.execute(statement)]
    return [id for id in ids if _EARLIER_ID.fullmatch(id)]


def captures_between(database: Database, server: str, first: int, last: int) -> list[str]:
    """Return the ids of the captures of a server that may hold a prediction of a range.

    Args:
        database: Of the store.
        server: Id of the server that answered.
        first: Number of the first prediction of the range.
        last: Number of the last one.
    """
    prefix = f"capture-{server}-"
    ends = func.substr(_ID, len(prefix) + _DIGITS + 2, _DIGITS)
    statement = select(_ID).where(
        f"{prefix}{0:0{_DIGITS}d}" <= _ID,
        f"{prefix}{last:0{_DIGITS}d}-{'9' * _DIGITS}-{'z' * 2 * _CHANCE}" >= _ID,
        func.substr(_ID, 1, len(prefix)) == prefix,
        ends >= f"{first:0{_DIGITS}d}",
    )
    with database.read() as connection:
        return [row.id for row in connection.execute(statement.order_by(_ID))]
