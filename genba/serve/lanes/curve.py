"""How long a package computes for so many rows: measured when it is loaded, learned in service."""

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

_ENOUGH: Final = 0.95  # of the best rows per second; a larger batch only makes requests wait
_GAIN: Final = 0.02  # how far one batch moves the curve to what was seen
_OUTLIER: Final = 4.0  # a batch that took longer than this many times its share moves it no further
_REVIEW: Final = 64  # batches between two looks at which size is best
#: Seconds for measuring a curve when a package is loaded, and runs of one size, fewest and most.
_MEASURING_S: Final = 0.6
_RUNS: Final = (2, 9)


class Curve:
    """Seconds of computing by rows of a batch, linear between what was measured.

    Args:
        points: Measured seconds by rows; at least one.
        bound_s: A batch shall not take longer than this; one row may.

    Example:
        >>> curve = Curve({1: 0.001, 8: 0.002, 64: 0.016})
        >>> curve.best_rows, round(curve.seconds(4), 6), curve.seconds(128)
        (8, 0.001429, 0.032)
    """

    __slots__ = ("_bound_s", "_rows", "_seconds", "_since", "best_rows")

    def __init__(self, points: Mapping[int, float], bound_s: float = float("inf")) -> None:
        self._rows = sorted(points)
        self._seconds = [points[rows] for rows in self._rows]
        self._bound_s = bound_s
        self._since = 0
        self.best_rows = self._best()

    def seconds(self, rows: int) -> float:
        """Return the predicted seconds of a batch; above the largest measured one in proportion."""
        known, seconds = self._rows, self._seconds
        if rows >= known[-1]:
            return seconds[-1] * rows / known[-1]
        at = bisect_left(known, rows)
        if at == 0 or known[at] == rows:
            return seconds[at]
        low, high = known[at - 1], known[at]
        return seconds[at - 1] + (seconds[at] - seconds[at - 1]) * (rows - low) / (high - low)

    def points(self) -> dict[int, float]:
        """Return seconds by rows, as they are known now."""
        return dict(zip(self._rows, self._seconds, strict=True))

    def learn(self, rows: int, seconds: float) -> None:
        """Move the curve a little towards what a batch in service took.

        Args:
            rows: Of the batch.
            seconds: Of computing it.
        """
        predicted = self.seconds(rows)
        if predicted > 0.0:
            factor = 1.0 + _GAIN * (min(seconds / predicted, _OUTLIER) - 1.0)
            at = min(bisect_left(self._rows, rows), len(self._rows) - 1)
            self._seconds[at] *= factor
            if at and rows < self._rows[at]:
                self._seconds[at - 1] *= factor
        self._since += 1
        if self._since >= _REVIEW:
            self._since = 0
            self.best_rows = self._best()

    def _best(self) -> int:
        """Return the smallest batch that gives nearly the best rows per second within the bound."""
        pairs = list(zip(self._rows, self._seconds, strict=True))
        allowed = [pair for pair in pairs if pair[1] <= self._bound_s] or pairs[:1]
        if any(seconds <= 0.0 for _, seconds in allowed):
            return allowed[-1][0]
        enough = _ENOUGH * max(rows / seconds for rows, seconds in allowed)
        return next(rows for rows, seconds in allowed if rows / seconds >= enough)


def measured(
    run: Callable[[Any, int], object],
    samples: Callable[[int], Any],
    *,
    most_rows: int,
    bound_s: float = float("inf"),
    seconds: float = _MEASURING_S,
) -> Curve:
    """Measure batches of 1, 2, 4, ... rows, the shortest of a few runs each.

    Something else that wants the cores only ever makes a run longer, and comes and goes.
    Larger batches are left out when the time is up or one takes longer than it may: the curve goes
    on in proportion.

    Args:
        run: Runs a batch: tensors and rows.
        samples: Makes a batch of so many rows.
        most_rows: Of a batch.
        bound_s: A batch shall not take longer than this.
        seconds: For all of it; a single batch may take longer.

    Returns:
        The curve.
    """
    points: dict[int, float] = {}
    until = time.perf_counter() + seconds
    sizes = [2**power for power in range(most_rows.bit_length()) if 2**power < most_rows]
    for rows in (*sizes, most_rows):
        if points and max(points.values()) > bound_s:
            break
        once = partial(run, samples(rows), rows)
        first = stopwatch(once, 1)
        left = until - time.perf_counter()
        if points and (first > bound_s or left < _RUNS[0] * first):
            break
        # A size may take half of what is left, so that the next one can be measured as well.
        runs = int(min(max(left / (2 * max(first, 1e-9)), _RUNS[0]), _RUNS[1]))
        points[rows] = stopwatch(once, runs, until)
    return Curve(points, bound_s)


def stopwatch(run: Callable[[], object], runs: int, until: float = math.inf) -> float:
    """Return the seconds of the shortest of a few runs.

    Args:
        run: What is timed.
        runs: How often.
        until: No run but the first begins after it (`time.perf_counter`): what was quick at first
            may have become slow.
    """
    shortest = math.inf
    for _ in range(runs):
        started = time.perf_counter()
        if started > until and shortest < math.inf:
            break
        run()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest
