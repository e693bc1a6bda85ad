"""Times as people write them, turned into milliseconds since 1970 UTC; counts stay counts."""

from collections import Counter
from datetime import UTC, datetime
from typing import Final

import polars as pl
import pyarrow as pa

from genba.core.problem import Problem

_UTC: Final = pa.timestamp("ms", tz="UTC")
_NAIVE: Final = pa.timestamp("ms")
# Tried in this order on what is left; texts are normalised first (see `_normal`).
_WITH_OFFSET: Final = ("%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%d %H:%M%z", "%Y%m%d %H%M%S%z")
_YEAR_FIRST: Final = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y%m%d %H%M%S",
    "%Y%m%d%H%M%S",
    "%Y%m%d%H%M",
    "%Y%m%d",
)
_DAY_FIRST: Final = ("%d-%m-%Y %H:%M:%S%.f", "%d-%m-%Y %H:%M", "%d-%m-%Y", "%d-%m-%Y %I:%M:%S %p")
_MONTH_FIRST: Final = tuple(f.replace("%d-%m", "%m-%d") for f in _DAY_FIRST)
#: Whole numbers that are dates, not counts: with days, minutes or seconds as their last digits.
_COMPACT: Final = (
    (19_000_101, 21_001_231),
    (19_000_101_0000, 21_001_231_2359),
    (19_000_101_000000, 21_001_231_235959),
)
#: A format reads 31.03.26 as a day in the year 31; a year of two digits is not guessed.
_YEAR_1000_MS: Final = -30_610_224_000_000
_AMBIGUOUS: Final = r"^\s*(\d{1,2})[/-](\d{1,2})[/-]\d{4}"
#: Whole numbers below this are a count of cycles or rows: as seconds they would lie before 1973.
_MOST_COUNTED: Final = 100_000_000
_UNREADABLE: Final = 0.1  # of the first batch; with more, the column is no count
#: Largest count since 1970 that is still read in a unit, smallest unit last.
_EPOCH_UNITS: Final = (("s", 10**11, 1000.0), ("ms", 10**14, 1.0), ("us", 10**17, 1e-3))


class Clock:
    """Reads one time column, batch by batch, and remembers how it was written.

    A time without an offset is taken as UTC; how many there were is in `naive`. Whether 03/04/2026
    is in March or April is decided by the first batch, for the whole source, and so is whether the
    column counts something else than time (cycles, rows), which is then kept as it is.

    Args:
        column: The name of the column, for error messages.

    Example:
        >>> clock = Clock("t")
        >>> texts = pl.Series(["2014-01-01T01:00:00+01:00", "2014-01-01 00:00", "soon"])
        >>> clock.read(texts).to_list()
        [1388534400000, 1388534400000, None]
        >>> clock.naive
        1
        >>> cycles = Clock("cycle")
        >>> cycles.read(pl.Series([1, 2, 3])).to_list(), cycles.counts
        ([1, 2, 3], True)
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.naive = 0
        self.formats: Counter[str] = Counter()
        self._month_first: bool | None = None
        self._epoch: tuple[str, float] | None = None
        self._counting: bool | None = None

    @property
    def counts(self) -> bool:
        """Whether the column holds a count, such as of cycles, and not a time."""
        return bool(self._counting)

    def read(self, values: pl.Series) -> pl.Series:
        """Return milliseconds since 1970 UTC or the count, null where it is missing or unreadable.

        Raises:
            Problem: G207 when no value of the first batch is a time, or day and month of a date
                cannot be told apart.
        """
        first = not self.formats
        read = self._read(values).cast(pl.Int64).alias(values.name)
        if first and read.null_count() == len(read) and values.null_count() < len(values):
            raise self._not_times(values)
        return read

    def notes(self) -> dict[str, object]:
        """Return how the times were written, for the dataset sheet."""
        return {
            "formats": sorted(self.formats),
            "without_offset_taken_as_utc": self.naive,
            "is_count": self.counts,
        }

    def _read(self, values: pl.Series) -> pl.Series:
        kind = values.dtype
        if self._counting is None and values.null_count() < len(values):
            self._counting = self._is_count(values)
        if self._counting:
            self.formats["count"] += 1
            numbers = _finite(_numbers(values))
            return numbers.set(numbers != numbers.round(), None).cast(pl.Int64)
        if isinstance(kind, pl.Datetime) or kind == pl.Date:
            if kind == pl.Date or getattr(kind, "time_zone", None) is None:
                self.naive += len(values) - values.null_count()
            self.formats[str(kind)] += 1
            return values.cast(pl.Datetime("ms")).dt.epoch("ms")
        if kind.is_integer() and not self._counts(values):
            return self._texts(values.cast(pl.String))
        if kind.is_numeric():
            return self._since_1970(values.cast(pl.Float64 if kind.is_float() else pl.Int64))
        return self._texts(values.cast(pl.String))

    def _is_count(self, values: pl.Series) -> bool:
        """Say whether these are small whole numbers: the cycles or rows of a unit."""
        if not (values.dtype.is_numeric() or values.dtype == pl.String):
            return False
        numbers = _numbers(values.drop_nulls())
        known = _finite(numbers).drop_nulls()
        if not len(known) or numbers.null_count() > len(numbers) * _UNREADABLE:
            return False
        whole = bool(((known == known.round()) & (known >= 0)).all())
        return whole and float(known.max()) < _MOST_COUNTED and self._counts(known)  # type: ignore[arg-type]  # a float column

    def _since_1970(self, values: pl.Series) -> pl.Series:
        counts = _finite(values.cast(pl.Float64))
        if self._epoch is None:
            middle = counts.abs().median()
            size = middle if isinstance(middle, float) else 0.0
            units = [(unit, scale) for unit, largest, scale in _EPOCH_UNITS if size < largest]
            self._epoch = units[0] if units else ("ns", 1e-6)
        unit, scale = self._epoch
        self.formats[f"{unit} since 1970"] += 1
        return (counts * scale).round().cast(pl.Int64)

    def _texts(self, texts: pl.Series) -> pl.Series:
        """Read texts: all at once by Arrow where they are ISO 8601, else format by format."""
        arrow = texts.to_arrow()
        for kind in (_UTC, _NAIVE):
            try:
                read = arrow.cast(kind)
            except pa.ArrowInvalid:
                continue
            if kind is _NAIVE:
                self.naive += len(texts) - texts.null_count()
            self.formats["ISO 8601"] += 1
            return pl.Series(read.cast(pa.int64()))
        return self._one_by_one(texts)

    def _one_by_one(self, texts: pl.Series) -> pl.Series:
        normal = _normal(texts)
        found = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(texts))
        numbers = _finite(normal.cast(pl.Float64, strict=False))
        if self._counts(numbers):  # before the formats, some of which take such digits for a date
            found = self._since_1970(numbers)
            normal = normal.set(numbers.is_not_null(), None)
        for form in self._candidates(texts):
            left = found.is_null() & normal.is_not_null()
            if not left.any():
                break
            some = normal.filter(left)
            zone = "UTC" if form.endswith("%z") else None
            read = some.str.to_datetime(
                form, time_unit="ms", time_zone=zone, strict=False, exact=True, ambiguous="null"
            ).dt.epoch("ms")
            read = read.set(read < _YEAR_1000_MS, None)
            hits = len(read) - read.null_count()
            if hits:
                self.formats[form] += hits
                self.naive += 0 if zone else hits
                found = found.scatter(left.arg_true(), read)
        return found

    def _counts(self, numbers: pl.Series) -> bool:
        """Say whether these are counts since 1970, not dates such as 20260131 or 20260131235959."""
        middle = numbers.median()
        if not isinstance(middle, float):  # there is no number
            return False
        dates = any(low <= middle <= high for low, high in _COMPACT)
        return self._epoch is not None or not dates

    def _candidates(self, texts: pl.Series) -> tuple[str, ...]:
        if self._month_first is None:
            self._month_first = self._is_month_first(texts)
        return _WITH_OFFSET + _YEAR_FIRST + (_MONTH_FIRST if self._month_first else _DAY_FIRST)

    def _is_month_first(self, texts: pl.Series) -> bool | None:
        first = texts.str.extract(_AMBIGUOUS, 1).cast(pl.Int64, strict=False)
        second = texts.str.extract(_AMBIGUOUS, 2).cast(pl.Int64, strict=False)
        if first.null_count() == len(first):
            return None
        day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
        if day_first != month_first:
            return month_first
        example = texts.filter(first.is_not_null())[0]
        raise Problem(
            "G207",
            f"It cannot be told whether {example!r} begins with the day or the month.",
            where=self.column,
            why="The first rows hold both."
            if day_first
            else "No number in the first rows is over 12.",
            tries=["write times as 2026-03-04T05:06:07Z", "genba explain G207"],
        )

    def _not_times(self, values: pl.Series) -> Problem:
        example = values.drop_nulls()[0]
        return Problem(
            "G207",
            f"The column {self.column!r} does not hold times: {example!r} is not one.",
            where=self.column,
            why="Known: ISO 8601, 2026-03-04 05:06, 04.03.2026 05:06, 04/03/2026 05:06, seconds or "
            "milliseconds since 1970.",
            tries=['time = "the column with the times"', "write times as 2026-03-04T05:06:07Z"],
        )


def _numbers(values: pl.Series) -> pl.Series:
    """Return numbers, null for texts that are none."""
    texts = values.str.strip_chars() if values.dtype == pl.String else values
    return texts.cast(pl.Float64, strict=False)


def _finite(numbers: pl.Series) -> pl.Series:
    return numbers.set(~numbers.is_finite().fill_null(False), None)


def _normal(texts: pl.Series) -> pl.Series:
    """Write dates with dashes, one space before the time, and an offset without a space."""
    return (
        texts.str.strip_chars()
        .str.replace(r"^(\d{1,4})[./-](\d{1,2})[./-](\d{1,4})", "$1-$2-$3")
        .str.replace(r"^([0-9-]+)[Tt]\s*", "$1 ")
        .str.replace(r"\s*(?:[Zz]|UTC|GMT)$", "+0000")
        .str.replace(r"(:\d{2}(?:[.,]\d+)?)\s+([+-]\d{2}:?\d{2})$", "$1$2")
        .str.replace(r"(:\d{2}),(\d+)", "$1.$2")
    )


def moment(text: str, where: str) -> int:
    """Return milliseconds since 1970 UTC of an ISO 8601 time in the line file.

    Raises:
        Problem: G217 when it is not one.

    Example:
        >>> moment("1970-01-02", "data.since")
        86400000
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise Problem(
            "G217",
            f"{where} is not a time: {text!r}.",
            where=where,
            why="Times in a line file are ISO 8601; without an offset they are UTC.",
            tries=[f'{where.rsplit(".", 1)[-1]} = "2026-01-31T00:00:00Z"'],
        ) from error
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
