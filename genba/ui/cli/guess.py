"""What the columns of unknown data probably mean; a person reads the guess before it is used."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from genba.core.line import Check
from genba.core.problem import Problem
from genba.data.clock import Clock
from genba.data.roles import is_answer

_TIME: Final = re.compile(r"time|date|stamp|^ts$|^t$|datum|zeit", re.IGNORECASE)
_ENTITY: Final = re.compile(
    r"(^|_)(id|name|unit|machine|device|asset|station|turbine|pump|motor|robot|line|site|sensor)(_|$)",
    re.IGNORECASE,
)
_LABEL: Final = re.compile(
    r"^(is_?)?(label|anomaly|anomalous|outlier|fault|faulty|failure|defect|alarm|target|class|y)s?$",
    re.IGNORECASE,
)
_UNNAMED: Final = re.compile(r"column_\d+")
_BINARY: Final = frozenset(
    {"0", "1", "0.0", "1.0", "true", "false", "yes", "no", "normal", "anomaly", "ok", "fault"}
)
_EARLIEST_MS: Final = 631_152_000_000  # 1990-01-01
_MOST_ENTITIES: Final = 1_000
_ROWS_EACH: Final = 10  # an entity has at least so many rows, on average
_FEWEST_UNITS: Final = 3
_FAR: Final = 10.0  # widths of the middle 98 % that a value lies outside of it to look like a fault
_KEPT: Final = 3.0  # widths that the proposed check leaves


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """What the columns seem to mean, and why, by the dotted path of the setting."""

    kind: str = "table"  # of data: a key of `catalog.GUESSED_TASKS`
    time: str | None = None
    entity: str | None = None
    label: str | None = None
    inputs: tuple[str, ...] = ()
    checks: dict[str, Check] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def guess(frame: pl.DataFrame) -> Guess:
    """Guess the meaning of columns from their names and the first rows.

    Example:
        >>> rows = {"when": ["2026-01-01", "2026-01-02"], "flow": [1.0, 1.1], "fault": [0, 1]}
        >>> found = guess(pl.DataFrame(rows).rename({"when": "date"}))
        >>> found.time, found.label, found.inputs
        ('date', 'fault', ('flow',))
    """
    reasons: dict[str, str] = {}
    if frame.width and all(_UNNAMED.fullmatch(name) for name in frame.columns):
        reasons["data.source"] = "guessed: no header line, so columns are column_1, column_2, …"
    time = time_column(frame, reasons)
    label = _label(frame, [time], reasons)
    units = None if time else _units(frame, label, reasons)
    entity, time = units or (_entity(frame, [time, label], reasons), time)
    taken = {time, label, entity}
    sensors = [c.name for c in frame if c.name not in taken and _is_sensor(c)]
    inputs = tuple(name for name in sensors if not is_answer(name))
    if len(inputs) < len(sensors):
        told = ", ".join(name for name in sensors if name not in inputs)
        reasons["data.inputs"] = f"guessed: left out as answers, by their names: {told}"
    checks = {} if label else _checks(frame, inputs, reasons)  # what is far may be the anomaly
    kind = "run to failure" if units else "table"
    return Guess(
        kind=kind,
        time=time,
        entity=entity,
        label=label,
        inputs=inputs,
        checks=checks,
        reasons=reasons,
    )


def time_column(frame: pl.DataFrame, reasons: dict[str, str]) -> str | None:
    """Return the column whose values are times, and say why; None where there is none."""
    dated = [c for c in frame if isinstance(c.dtype, pl.Datetime) or c.dtype == pl.Date]
    named = [c for c in frame if _TIME.search(c.name) and not isinstance(c.dtype, pl.Boolean)]
    texts = [c for c in frame if c.dtype == pl.String]
    for column in dict.fromkeys(c.name for c in (*dated, *named, *texts)):
        values = frame[column]
        try:
            read = Clock(column).read(values)
        except Problem:
            continue
        if values.dtype.is_numeric() and (read.drop_nulls() < _EARLIEST_MS).any():
            continue  # a small number counts something else than time
        if read.null_count() - values.null_count() <= len(values) // 100:
            reasons["data.time"] = "guessed: its values are times"
            return column
    return None


def _units(
    frame: pl.DataFrame, label: str | None, reasons: dict[str, str]
) -> tuple[str, str] | None:
    """Return the columns of unit and cycle: a count that begins anew with every unit."""
    free = [c for c in _free(frame, [label]) if c.dtype.is_integer() or c.dtype == pl.String]
    for count in (c for c in free if c.dtype.is_integer()):
        begins = (count.diff().fill_null(0) != 1).sum()
        if not _FEWEST_UNITS <= begins <= min(_MOST_ENTITIES, len(count) // _ROWS_EACH):
            continue
        for unit in (c for c in free if c.name != count.name and 1 < c.n_unique() <= begins):
            same = (unit == unit.shift(1)).fill_null(value=False)
            if ((count.diff().fill_null(0) == 1) == same).all():
                if (named := unit.n_unique()) < begins:  # files that number their units alike
                    reasons["data.entity"] = (
                        f"guessed: none; {unit.name} names {named} units, but {begins} lives begin:"
                        " give one file, or make the names differ"
                    )
                    return None
                reasons["data.entity"] = f"guessed: {begins} units, one after the other"
                reasons["data.time"] = "guessed: it counts from the beginning of every unit"
                return unit.name, count.name
    return None


def _label(frame: pl.DataFrame, taken: Iterable[str | None], reasons: dict[str, str]) -> str | None:
    for column in _free(frame, taken):
        if not _LABEL.match(column.name):
            continue
        values = {str(v).strip().lower() for v in column.drop_nulls().unique()}
        if 0 < len(values) <= 2 and values <= _BINARY:
            share = _share_of_ones(column)
            reasons["data.label"] = f"guessed: two values, {100 * share:.2g} % are anomalies"
            return column.name
    return None


def _share_of_ones(column: pl.Series) -> float:
    texts = column.drop_nulls().cast(pl.String).str.to_lowercase()
    bad = texts.is_in(["1", "1.0", "true", "yes", "anomaly", "fault"])
    return int(bad.sum()) / max(len(bad), 1)


def _entity(
    frame: pl.DataFrame, taken: Iterable[str | None], reasons: dict[str, str]
) -> str | None:
    free = _free(frame, taken)
    texts = [c for c in free if c.dtype == pl.String or isinstance(c.dtype, pl.Categorical)]
    ids = [c for c in free if c.dtype.is_integer() and _ENTITY.search(c.name)]
    texts.sort(key=lambda c: not _ENTITY.search(c.name))
    for column in (*texts, *ids):
        count = column.n_unique()
        if 2 <= count <= min(_MOST_ENTITIES, len(column) // _ROWS_EACH):
            shown = ", ".join(map(str, column.unique().sort()[:3]))
            reasons["data.entity"] = f"guessed: {count} values ({shown}, …)"
            return column.name
    return None


def _free(frame: pl.DataFrame, taken: Iterable[str | None]) -> Sequence[pl.Series]:
    names = set(taken)
    return [c for c in frame if c.name not in names]


def _is_sensor(column: pl.Series) -> bool:
    """A number that changes; a running number of the row teaches nothing."""
    if not column.dtype.is_numeric() or column.n_unique() < 2:
        return False
    steps = column.drop_nulls().diff().drop_nulls()
    counts_up = column.dtype.is_integer() and len(steps) > 1 and bool((steps == 1).all())
    return not counts_up


def _checks(
    frame: pl.DataFrame, inputs: Sequence[str], reasons: dict[str, str]
) -> dict[str, Check]:
    """Propose a range where a few values lie absurdly far from all others."""
    found = {}
    for name in inputs:
        values = frame[name].cast(pl.Float64).fill_nan(None).drop_nulls()
        if not len(values):
            continue
        low, high = np.quantile(values.to_numpy(), [0.01, 0.99])
        width = high - low
        if width <= 0:
            continue
        below, above = values < low - _FAR * width, values > high + _FAR * width
        if not (below.any() or above.any()):
            continue
        found[name] = Check(
            min=_round(low - _KEPT * width) if below.any() else None,
            max=_round(high + _KEPT * width) if above.any() else None,
        )
        count = int(below.sum() + above.sum())
        reasons[f"data.checks.{name}"] = f"guessed: {count} of {len(values)} rows look impossible"
    return found


def _round(value: float) -> float:
    """Round to two figures, as people write limits."""
    return float(f"{value:.2g}")
