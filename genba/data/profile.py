"""What the data is like: ranges, gaps and stuck sensors, gathered piece by piece.

Pieces follow each other in time and are sorted by entity and time inside, so everything that
looks at two rows in a row carries its last value per entity over to the next piece.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_SAMPLE_ROWS: Final = 16_384  # of each piece, for the quantiles
_MOST_SAMPLES: Final = 32  # pieces
_GAP_STEPS: Final = 1.5  # a longer pause than this is a gap
_SHORTEST_STUCK: Final = 12  # steps
_CHANCE: Final = 0.01  # expected number of healthy runs that are taken for stuck
_RESTING_RUNS: Final = 3  # a value that is held this often is where the sensor rests
_MOST_VALUES: Final = 10_000  # distinct held values that are told apart


class Column:
    """Range, mean and quantiles of one column.

    Example:
        >>> column = Column()
        >>> column.add(np.array([1.0, 2.0, np.nan, 3.0]))
        >>> column.summary()["missing"], column.summary()["median"]
        (1, 2.0)
    """

    def __init__(self) -> None:
        self.count = 0
        self.missing = 0
        self.low, self.high = math.inf, -math.inf
        self._mean = 0.0
        self._squares = 0.0  # sum of squared distances from the mean
        self._samples: list[Floats] = []
        self._weights: list[Floats] = []

    def add(self, values: Floats) -> None:
        """Take the values of a piece; NaN is missing."""
        told = values[~np.isnan(values)]
        self.missing += len(values) - len(told)
        if not len(told):
            return
        self.low, self.high = min(self.low, float(told.min())), max(self.high, float(told.max()))
        mean, count = float(told.mean()), self.count + len(told)
        shift = mean - self._mean
        self._squares += float(np.square(told - mean).sum())
        self._squares += shift**2 * self.count * len(told) / count
        self._mean += shift * len(told) / count
        self.count = count
        sample = told[:: math.ceil(len(told) / _SAMPLE_ROWS)].copy()  # not a view of all rows
        self._samples.append(sample)
        self._weights.append(np.full(len(sample), len(told) / len(sample)))
        if len(self._samples) > _MOST_SAMPLES:
            self._thin()

    def summary(self) -> dict[str, Any]:
        """Return the statistics as JSON; without a value only the counts."""
        found: dict[str, Any] = {"count": self.count, "missing": self.missing}
        if not self.count:
            return found
        return found | {
            "min": self.low,
            "max": self.high,
            "mean": self._mean,
            "std": math.sqrt(self._squares / self.count),
            "median": self.quantiles((0.5,))[0],
            "quantiles": dict(zip(map(str, QUANTILES), self.quantiles(QUANTILES), strict=True)),
            "quantiles_method": "estimated" if self._sampled() else "measured",
        }

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return values below which these shares lie; from a sample when there are many rows."""
        values, weights = np.concatenate(self._samples), np.concatenate(self._weights)
        order = np.argsort(values, kind="stable")
        below = np.cumsum(weights[order]) - weights[order] / 2
        return [float(v) for v in np.interp(np.array(shares) * weights.sum(), below, values[order])]

    def _sampled(self) -> bool:
        return sum(map(len, self._samples)) < self.count

    def _thin(self) -> None:
        """Replace all samples by one, so that memory does not grow with the data."""
        total = sum(float(weights.sum()) for weights in self._weights)
        shares = (np.arange(_SAMPLE_ROWS) + 0.5) / _SAMPLE_ROWS
        self._samples = [np.array(self.quantiles(shares.tolist()))]
        self._weights = [np.full(_SAMPLE_ROWS, total / _SAMPLE_ROWS)]


class Gaps:
    """The usual step between rows of one entity, and where rows are missing.

    The step is the median of the first piece, so that it stays what it is when data is added.
    """

    def __init__(self, entities: int) -> None:
        self.step_ms: int | None = None
        self.count = np.zeros(entities, dtype=np.int64)
        self.missing_steps = np.zeros(entities, dtype=np.int64)
        self.longest_ms = 0
        self.on_step = 0
        self.steps = 0
        self._last: Ints = np.full(entities, -1, dtype=np.int64)
        self._seen: Flags = np.zeros(entities, dtype=np.bool_)

    def add(self, code: Codes, time: Ints) -> None:
        """Take the rows of a piece."""
        begins = np.r_[True, code[1:] != code[:-1]]
        before = np.r_[np.int64(0), time[:-1]]
        before[begins] = self._last[code[begins]]
        known = ~begins
        known[begins] = self._seen[code[begins]]
        ends = np.r_[begins[1:], True]
        self._last[code[ends]] = time[ends]
        self._seen[code[ends]] = True
        pause, owner = (time - before)[known], code[known]
        if not len(pause):
            return
        if self.step_ms is None:
            self.step_ms = int(np.partition(pause, len(pause) // 2)[len(pause) // 2])
        gap = pause > self.step_ms * _GAP_STEPS
        lost = np.rint(pause[gap] / self.step_ms).astype(np.int64) - 1
        np.add.at(self.count, owner[gap], 1)
        np.add.at(self.missing_steps, owner[gap], lost)
        self.longest_ms = max(self.longest_ms, int(pause[gap].max(initial=0)))
        self.on_step += int(np.count_nonzero(pause == self.step_ms))
        self.steps += len(pause)

    def summary(self) -> dict[str, Any]:
        """Return the gaps as JSON."""
        return {
            "step_ms": self.step_ms,
            "regular_share": self.on_step / self.steps if self.steps else None,
            "gaps": int(self.count.sum()),
            "missing_steps": int(self.missing_steps.sum()),
            "longest_ms": self.longest_ms,
            "longer_than_steps": _GAP_STEPS,
        }


class Stuck:
    """Runs of one and the same value that are too long to be chance.

    How long is too long follows from the first piece: with p the share of rows equal to the row
    before, a healthy run longer than n has chance p**n, and n is set so that less than one
    healthy run in a hundred data sets would be taken for stuck. A value held that long three
    times or more is where the sensor rests (a pump that is off reads 0) and is counted apart.
    Nothing is rejected for it: what is a fault and what is rest, the line's checks may say.
    """

    def __init__(self, entities: int) -> None:
        self.limit: int | None = None
        self._value: Floats = np.full(entities, np.nan)
        self._length: Ints = np.zeros(entities, dtype=np.int64)
        self._held: defaultdict[float, list[int]] = defaultdict(list)  # value -> lengths
        self._other: list[int] = []

    def add(self, code: Codes, values: Floats) -> None:
        """Take the values of a piece."""
        new = np.r_[True, (values[1:] != values[:-1]) | (code[1:] != code[:-1])]
        starts = np.flatnonzero(new)
        lengths = np.diff(np.r_[starts, len(values)]).astype(np.int64)
        held, owner = values[starts], code[starts]
        if self.limit is None:
            self.limit = _limit(len(values), len(starts))
        first = np.r_[True, owner[1:] != owner[:-1]]
        last = np.r_[first[1:], True]
        mine = owner[first]
        goes_on = held[first] == self._value[mine]
        ended = ~goes_on
        self._note(self._value[mine][ended], self._length[mine][ended])
        lengths[first] += np.where(goes_on, self._length[mine], 0)
        self._note(held[~last], lengths[~last])
        self._value[owner[last]], self._length[owner[last]] = held[last], lengths[last]

    def summary(self) -> dict[str, Any]:
        """Return what was held too long as JSON; call it once, at the end."""
        self._note(self._value, self._length)
        self._length[:] = 0
        resting = {v: n for v, n in self._held.items() if len(n) >= _RESTING_RUNS}
        stuck = [n for v, n in self._held.items() if v not in resting] + [self._other]
        often = sorted(resting, key=lambda v: -sum(resting[v]))
        return {
            "longer_than_steps": self.limit,
            "runs": sum(map(len, stuck)),
            "rows": sum(map(sum, stuck)),
            "resting_runs": sum(map(len, resting.values())),
            "resting_rows": sum(map(sum, resting.values())),
            "resting_values": often[:5],
        }

    def _note(self, values: Floats, lengths: Ints) -> None:
        long = (lengths > (self.limit or 0)) & ~np.isnan(values)
        for value, length in zip(values[long].tolist(), lengths[long].tolist(), strict=True):
            known = value in self._held or len(self._held) < _MOST_VALUES
            (self._held[value] if known else self._other).append(length)


def _limit(rows: int, runs: int) -> int:
    """Return how many equal rows in a row are still healthy."""
    repeats = 1 - runs / rows
    if repeats <= 0:
        return _SHORTEST_STUCK
    return max(_SHORTEST_STUCK, math.ceil(math.log(_CHANCE / rows) / math.log(repeats)))


class Profile:
    """Everything the sheet says about the rows that were kept.

    Args:
        names: The columns that hold numbers, sensors first.
        sensors: How many of them are sensors.
        entities: How many entities there are.
        clock: Whether the rows have times.
    """

    def __init__(self, names: Sequence[str], sensors: int, entities: int, *, clock: bool) -> None:
        self.columns = {name: Column() for name in names}
        self.label = Column()
        self.gaps = Gaps(entities) if clock else None
        self.stuck = {name: Stuck(entities) for name in names[:sensors]} if clock else {}
        self.rows = np.zeros(entities, dtype=np.int64)
        self.first = np.full(entities, np.iinfo(np.int64).max, dtype=np.int64)
        self.last = np.full(entities, np.iinfo(np.int64).min, dtype=np.int64)

    def add(self, code: Codes, time: Ints, values: Mapping[str, Floats], label: Floats) -> None:
        """Take the rows of a piece, sorted by entity and time."""
        for name, column in self.columns.items():
            column.add(values[name])
        self.label.add(label)
        for name, stuck in self.stuck.items():
            stuck.add(code, values[name])
        if self.gaps:
            self.gaps.add(code, time)
        self.rows += np.bincount(code, minlength=len(self.rows))
        begins = np.flatnonzero(np.r_[True, code[1:] != code[:-1]])
        ends = np.r_[begins[1:], len(code)] - 1
        self.first[code[begins]] = np.minimum(self.first[code[begins]], time[begins])
        self.last[code[ends]] = np.maximum(self.last[code[ends]], time[ends])

    @property
    def step_ms(self) -> int | None:
        """The usual step between two rows of an entity, None without a clock."""
        return self.gaps.step_ms if self.gaps else None
