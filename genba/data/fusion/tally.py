"""How well a source aligned: counted per row, and explained where it hardly did."""

import math
from collections import Counter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.data.fusion.pieces import NEVER, Floats, Found, Ints
from genba.data.fusion.said import BEFORE, ENDED, STALE, STRANGER, sentence
from genba.data.fusion.side import Side

#: Rows with a partner below this share: the line cannot mean it.
FEWEST: Final = 0.01
#: Below this share it is said while the data are read, not only in the sheet.
TELL: Final = 0.95
_STEP: Final = math.log(1.01)  # ages are counted in bins 1 % wide

Bools = npt.NDArray[np.bool_]


class Tally:
    """Counts for one joined source, over all rows of the line that are asked for."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.rows = 0
        self.found = 0
        self.columns: Counter[str] = Counter()  # rows that found a value, by column
        self.before = 0  # the source begins later
        self.ended = 0  # the source ended before
        self.stale = 0  # its newest value was too old
        self.strangers = 0  # of a machine that the source does not have
        self._ages: Counter[int] = Counter()
        self._span: tuple[int, int] | None = None  # of the rows of the line

    def add(self, time: Ints, code: Ints, asked: Bools, found: Found, values: Floats) -> None:
        """Count a batch.

        Args:
            time: Of the rows.
            code: Of their machines, -1 where the source does not know it.
            asked: Which rows the line asks for.
            found: What was known then.
            values: What was put in: [rows, columns], NaN where it is missing.
        """
        side, within = self.side, self.side.within_ms
        assert side.pieces is not None
        some = np.isfinite(values).any(axis=1) & asked
        lost = asked & ~some
        self.rows += int(asked.sum())
        self.found += int(some.sum())
        for joined, column in zip(side.asked, values.T, strict=True):
            self.columns[joined.name] += int((np.isfinite(column) & asked).sum())
        stranger = lost & (code < 0)
        before = lost & ~stranger & (found.row == NEVER)
        last = side.pieces.last[np.maximum(code, 0)]
        ended = lost & ~stranger & ~before & (time > last + within)
        self.strangers += int(stranger.sum())
        self.before += int(before.sum())
        self.ended += int(ended.sum())
        self.stale += int((lost & ~stranger & ~before & ~ended).sum())
        newest = found.seen.max(axis=1)
        ages = (time - newest)[some & (newest > NEVER)]
        bins, counts = np.unique((np.log1p(ages) / _STEP).astype(np.int64), return_counts=True)
        self._ages.update(dict(zip(bins.tolist(), counts.tolist(), strict=True)))
        if asked.any():
            low, high = int(time[asked].min()), int(time[asked].max())
            known = self._span or (low, high)
            self._span = (min(known[0], low), max(known[1], high))

    def age_s(self, share: float) -> float | None:
        """Return the age that a share of the partners does not exceed, within 1 %."""
        total = sum(self._ages.values())
        if not total:
            return None
        below = 0
        for place in sorted(self._ages):
            below += self._ages[place]
            if below >= share * total:
                # A bin stands for its middle; the first one holds ages of 0 ms.
                age = math.expm1((place + 0.5) * _STEP) if place else 0.0
                return min(age, self.side.within_ms) / 1000
        return None

    def summary(self) -> dict[str, Any]:
        """Return the counts for the dataset sheet."""
        side, pieces = self.side, self.side.pieces
        assert pieces is not None
        assert side.clock is not None
        return {
            "within_s": side.join.within_s,
            "per_machine": side.by_machine,
            "source": {
                "rows": side.read,
                "unreadable": side.unreadable,
                "same_moment": pieces.duplicates,
                "same_moment_different": pieces.different,
                "machines": len(side.machines),
                "from_ms": pieces.first,
                "to_ms": int(pieces.last.max()),
                "step_ms": pieces.step_ms,
                "clock_ahead_ms": side.offset_ms,
                **side.clock.notes(),
            },
            "rows": self.rows,
            "found": self.found,
            "columns": dict(self.columns),
            "missing": {
                name: count
                for name, count in (
                    (BEFORE, self.before),
                    (STALE, self.stale),
                    (ENDED, self.ended),
                    (STRANGER, self.strangers),
                )
                if count
            },
            "age_s_p50": self.age_s(0.5),
            "age_s_p99": self.age_s(0.99),
        }

    def sentence(self) -> str:
        """Say how well it aligned, in one line."""
        return sentence(self.side.name, self.summary())

    def check(self) -> None:
        """Refuse a source that hardly a row finds a partner in.

        Raises:
            Problem: G223 with the numbers and what would help.
        """
        if not self.rows or self.found >= FEWEST * self.rows:
            return
        why, fix = self._reason()
        raise Problem(
            "G223",
            f"Only {self.found:,} of {self.rows:,} rows find a value in the joined source "
            f"{self.side.name!r} that is at most {self.side.join.within_s:g} s old.",
            where=self.side.place,
            why=why,
            tries=[*fix, "genba explain G223"],
        )

    def _reason(self) -> tuple[str, list[str]]:
        side, pieces = self.side, self.side.pieces
        assert pieces is not None
        assert pieces.first is not None
        assert self._span is not None
        first, last, within = pieces.first, int(pieces.last.max()), side.within_ms
        if self.strangers > self.rows / 2:
            names = ", ".join(sorted(side.machines)[:5])
            why = f"Its machines are called otherwise: {names}."
            return why, [f"call the machines in {side.join.source} as in data.source"]
        if first > self._span[1] or last + within < self._span[0]:
            ahead = first - self._span[0]
            why = (
                f"It holds {moment_text(first)} to {moment_text(last)}, the rows "
                f"{moment_text(self._span[0])} to {moment_text(self._span[1])}: its clock is "
                f"{abs(ahead) / 1000:,.0f} s {'ahead' if ahead > 0 else 'behind'} at the start."
            )
            return why, [
                f'time = "{side.clock.column if side.clock else "ts"} {clock_text(ahead)}"'
            ]
        step = pieces.step_ms
        if step and step > within:
            most = within / step
            why = (
                f"It has a row every {step / 1000:g} s, so with {side.join.within_s:g} s at most "
                f"{most:.0%} of the rows can find one."
            )
            return why, [f"within_s = {2 * step / 1000:g}"]
        missing: dict[str, int] = self.summary()["missing"]
        told = ", ".join(f"{count:,} rows: {why}" for why, count in missing.items())
        return f"{told}.", [f"within_s = {10 * side.join.within_s:g}"]


def moment_text(time_ms: int) -> str:
    """Return a time as people write it.

    Example:
        >>> moment_text(0)
        '1970-01-01T00:00:00'
    """
    return str(np.datetime64(time_ms, "ms").astype("datetime64[s]"))


def clock_text(ahead_ms: int) -> str:
    """Return how `time` in the line file states that a clock is ahead.

    Example:
        >>> clock_text(3_600_000), clock_text(-7_000)
        ('+01:00', '-00:00:07')
    """
    seconds = round(abs(ahead_ms) / 1000)
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    sign = "-" if ahead_ms < 0 else "+"
    return f"{sign}{hours:02d}:{minutes:02d}" + (f":{rest:02d}" if rest else "")
