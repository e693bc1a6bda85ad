"""Keeping the memory of a step for the next one.

The C library gives large pieces of memory back to the system as soon as they are free, and each new
one is filled with zeros, page by page, when it is first touched. Training frees and takes the same
gigabyte in every step: without this, an eighth of the CPU time goes there (measured, see
docs/language/training.md).
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Of <malloc.h> in glibc; the values behind are its defaults.
_TRIM_THRESHOLD: Final = (-1, 128 * 1024)
_MOST_MAPPED: Final = (-4, 65_536)
_NEVER: Final = 2**31 - 1


@contextmanager
def kept_memory() -> Iterator[bool]:
    """Return a context in which freed memory stays with the process; it says whether it could.

    Example:
        >>> with kept_memory() as kept:
        ...     isinstance(kept, bool)
        True
    """
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if not hasattr(library, "mallopt"):  # musl has none
        yield False
        return
    assert library is not None
    library.mallopt(_TRIM_THRESHOLD[0], _NEVER)
    library.mallopt(_MOST_MAPPED[0], 0)
    try:
        yield True
    finally:
        library.mallopt(*_TRIM_THRESHOLD)
        library.mallopt(*_MOST_MAPPED)
        library.malloc_trim(0)
