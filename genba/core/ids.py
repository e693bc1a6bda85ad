"""Names and identifiers. A user's string never becomes a path; these decide what is a name."""

import re
import secrets
import time
from typing import Final

from genba.core.problem import Problem

NAME_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"


def check_name(name: str, what: str) -> str:
    """Return the name if it is one; names are `[a-z0-9][a-z0-9._-]{0,63}`.

    Raises:
        Problem: G104 with a name that would be accepted.

    Example:
        >>> check_name("wind-farm", "line")
        'wind-farm'
    """
    if NAME_PATTERN.fullmatch(name) and ".." not in name:
        return name
    better = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_.")[:63] or what
    raise Problem(
        "G104",
        f"{name!r} cannot be the name of a {what}.",
        why="Names are lower-case letters, digits, dot, dash and underscore, 64 at most.",
        tries=[f'name = "{better}"'],
    )


def new_id(prefix: str) -> str:
    """Return a new identifier that sorts by time: prefix, 9 characters of ms, 6 of chance.

    Example:
        >>> new_id("run").startswith("run-")
        True
    """
    return f"{prefix}-{_base32(time.time_ns() // 1_000_000, 9)}{_base32(secrets.randbits(30), 6)}"


def _base32(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
