"""What a message or a row of a file says: strictly read, because anybody may have written it."""

import base64
import binascii
import datetime
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final

from genba.edge.links.settings import Column, FieldColumn

_MOST_OBJECTS: Final = 10_000
_MOST_DEPTH: Final = 8
_LONGEST: Final = 512  # characters of an id or of the name of a machine
_FAR_MS: Final = 253_402_300_799_999  # the end of the year 9999: no time lies behind it


class Unreadable(Exception):
    """A message that makes no reading, and why in one sentence."""


def read_json(payload: bytes) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON message: one, or a list of them.

    Raises:
        Unreadable: When it is neither.
    """
    try:
        body: Any = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not JSON") from error
    found = body if isinstance(body, list) else [body]
    if not found or not all(isinstance(one, dict) for one in found):
        raise Unreadable("it is neither an object nor a list of objects")
    if len(found) > _MOST_OBJECTS:
        raise Unreadable(f"it holds {len(found):,} objects; {_MOST_OBJECTS:,} are most")
    return found


def values_of(
    body: Mapping[str, Any], columns: Mapping[str, FieldColumn]
) -> dict[str, float | None]:
    """Return the values that a message has; None for one that is there and no number.

    Args:
        body: The message.
        columns: By the names that the model uses; all numbers of the message if there are none.
    """
    if not columns:
        return {name: number(value) for name, value in body.items() if _is_number(value)}
    found = {}
    for name, column in columns.items():
        there, value = _at(body, column.field or name)
        if there:
            found[name] = scaled(number(value), column)
    return found


def text_of(body: Mapping[str, Any], path: str) -> str:
    """Return a field as text, "" where there is none.

    Raises:
        Unreadable: When no name is written like that: it would be a key of what is kept.
    """
    there, value = _at(body, path)
    text = str(value) if there and isinstance(value, str | int) else ""
    if len(text) > _LONGEST or not text.isprintable():
        raise Unreadable(f"{path} is no name: {text[:40]!r}")
    return text


def image_of(body: Mapping[str, Any], path: str) -> bytes | None:
    """Return an image that is in a message as base64.

    Raises:
        Unreadable: When it is no base64.
    """
    there, value = _at(body, path)
    if not there:
        return None
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unreadable(f"{path} is not base64") from error


def time_of(body: Mapping[str, Any], path: str) -> int | None:
    """Return when a message says that it was measured, ms since 1970; None where it does not.

    Raises:
        Unreadable: When it says something that is no time.
    """
    there, value = _at(body, path)
    return read_time(value, path) if there and value not in (None, "") else None


def read_time(value: Any, name: str) -> int:
    """Return a time: ms since 1970 UTC, or ISO 8601 (UTC where it names no zone).

    Raises:
        Unreadable: When it is neither.

    Example:
        >>> read_time(1_700_000_000_000, "t"), read_time("2023-11-14T22:13:20Z", "t")
        (1700000000000, 1700000000000)
    """
    try:
        found = int(float(value)) if not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        found = _iso(value)
    if found is None or not -_FAR_MS <= found <= _FAR_MS:
        raise Unreadable(f"{name} is no time: {str(value)[:40]!r}")
    return found


def number(value: Any) -> float | None:
    """Return a number, None for anything that is none: text, true, infinity.

    Example:
        >>> number("12.5"), number(True), number("n/a"), number(float("inf"))
        (12.5, 1.0, None, None)
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def scaled(value: float | None, column: Column) -> float | None:
    """Return a value as the model wants it; None for the numbers that mean "no value".

    Example:
        >>> scaled(125.0, Column(scale=0.1)), scaled(-32768.0, Column(missing=(-32768,)))
        (12.5, None)
    """
    if value is None or value in column.missing:
        return None
    return number(value * column.scale + column.offset)


def fingerprint(data: bytes) -> str:
    """Return what bytes are known by when nothing else tells them apart."""
    return hashlib.sha256(data).hexdigest()[:32]


def _at(body: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    if path in body:
        return True, body[path]
    value: Any = body
    for part in path.split(".")[:_MOST_DEPTH]:
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _iso(value: Any) -> int | None:
    try:
        when = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return round(when.timestamp() * 1_000)
