"""When Python may look for objects that hold each other: not in the middle of answering.

What the hot path makes is let go by counting references. Python's own schedule looks now and then
through everything that is alive, which under load was a stop of 60 to 70 ms every few seconds that
found nothing (docs/LOG.md). Here what is young is looked through as ever, since connections that
ended are found there; what is old only when nobody waits for an answer, or after a long time.
"""

import gc
from typing import Final

_PAUSE_S: Final = 2.0  # between two looks at everything while nobody waits
_LONGEST_S: Final = 300.0  # the same, for a server that always has something to do
_YOUNG: Final = 5_000  # objects that came and stayed until the youngest are looked through
_OLDER: Final = 10  # such looks until those that survived one are looked through too
_NEVER: Final = 1_000_000  # looks until Python looks through everything by itself


class Garbage:
    """Looks for cycles in one process. For the event loop's thread."""

    def __init__(self) -> None:
        self._usual = gc.get_threshold()
        self._last_s = 0.0

    def start(self, now_s: float) -> None:
        """Leave out of every later look what is alive now: it stays as long as the process."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, _OLDER, _NEVER)
        self._last_s = now_s

    def look(self, now_s: float, *, idle: bool) -> bool:
        """Look through everything if it is time to; say whether it was.

        Args:
            now_s: On any clock that does not go back.
            idle: Whether nobody waits for an answer.
        """
        due = now_s - self._last_s >= (_PAUSE_S if idle else _LONGEST_S)
        if due:
            gc.collect()
            self._last_s = now_s
        return due

    def stop(self) -> None:
        """Leave everything to Python again."""
        gc.set_threshold(*self._usual)
        gc.unfreeze()
