"""What classes are called, and which of them means that nothing is wrong."""

import math
import re
from collections.abc import Iterable
from typing import Final

_GOOD: Final = frozenset(
    ("good", "ok", "normal", "pass", "passed", "fine", "healthy", "intact", "perfect")
    + ("nodefect", "defectfree", "nondefective", "undamaged", "faultless", "flawless")
)
_NOT: Final = frozenset(("no", "not", "non", "un", "without", "never", "free"))
_WRONG: Final = frozenset(
    {"defect", "defects", "defective", "fault", "faults", "anomaly", "damage"}
)
_WORDS: Final = re.compile(r"[a-z]+")


def is_good(name: str) -> bool:
    """Say whether a class is that of parts with which nothing is wrong.

    Example:
        >>> [is_good(n) for n in ("good", "OK_front", "no-defect", "not ok", "scratch", "goods")]
        [True, True, True, False, False, False]
    """
    words = _WORDS.findall(name.lower())
    denied = any(word in _NOT for word in words)
    if any(word in _WRONG for word in words):
        return denied
    return not denied and any(word in _GOOD for word in words)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in the order of their numbers: good ones first, then by name.

    Example:
        >>> ordered(["scratch", "good", "dent", "scratch"])
        ('good', 'dent', 'scratch')
    >>> ordered(["10", "9", "1"])
    ('1', '9', '10')
    """
    return tuple(sorted(set(names), key=lambda name: (not is_good(name), _number(name), name)))


def _number(name: str) -> float:
    """Return the number a class is called by, so that 10 comes behind 9; names come behind."""
    return int(name) if name.isascii() and name.isdigit() else math.inf
