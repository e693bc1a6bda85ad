"""What a piece of work took: wall seconds and processor seconds, children included."""

import os
import time
from types import TracebackType
from typing import Self


class Meter:
    """Measures the block it is used around; readable inside and after it.

    Child processes count once they have been waited for.

    Example:
        >>> with Meter() as meter:
        ...     _ = sum(range(1000))
        >>> meter.seconds >= 0 and meter.cpu_seconds >= 0
        True
    """

    def __init__(self) -> None:
        self._start = self._now()
        self._end: tuple[float, float] | None = None

    def __enter__(self) -> Self:
        """Start to measure."""
        self._start, self._end = self._now(), None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop measuring."""
        self._end = self._now()

    @property
    def seconds(self) -> float:
        """Wall seconds."""
        return (self._end or self._now())[0] - self._start[0]

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of this process and the children that ended."""
        return (self._end or self._now())[1] - self._start[1]

    @staticmethod
    def _now() -> tuple[float, float]:
        times = os.times()
        children = times.children_user + times.children_system
        return time.perf_counter(), time.process_time() + children
