"""Row checks: what the line asks for and what follows from the meaning of the columns.

A row that fails is rejected with one reason, the first that applies, so that the counts add up:
rows read = rows kept + rows rejected. A missing sensor value is no failure unless the column is
`required`; it is kept as NaN and counted in the sheet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from genba.core.line import Check
from genba.data.formats.batch import DETAIL, MISSING, REASON, to_numbers
from genba.data.roles import Roles

DUPLICATE: Final = "duplicate"
DIFFERENT_DUPLICATE: Final = "duplicate with other values"
NO_TIME: Final = "time is missing or unreadable"
NO_ENTITY: Final = "entity is missing"
_FIRST: Final = "_first"  # the rule that fails first
_NORMAL: Final = ("normal", "ok", "good", "healthy", "no", "false")
_ANOMALY: Final = (
    *("anomaly", "anomalous", "fault", "faulty", "bad", "ng", "yes", "true"),
    *("failed", "failure"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A reason and the expression that says which rows fail for it."""

    reason: str
    fails: pl.Expr
    shows: str | None = None  # the column whose value explains it


def rules(roles: Roles, checks: Mapping[str, Check]) -> tuple[Rule, ...]:
    """Return every rule of a line, in the order in which they are applied.

    Example:
        >>> from genba.core.line import Check
        >>> roles = Roles(time=None, entity=None, label=None, inputs=("x",), output=None)
        >>> [rule.reason for rule in rules(roles, {"x": Check(min=0.0)})]
        ['x is not finite', 'x is below 0']
    """
    found = [Rule(f"{n} is not finite", pl.col(n).is_infinite(), n) for n in roles.numbers]
    for name, check in checks.items():
        found += _column_rules(_stored(roles, name), name, check)
    return tuple(found)


def _column_rules(column: str, name: str, check: Check) -> list[Rule]:
    value, found = pl.col(column), []
    if check.required:
        found.append(Rule(f"{name} is missing", value.is_null(), None))
    if check.min is not None:
        found.append(Rule(f"{name} is below {check.min:g}", value < check.min, name))
    if check.max is not None:
        found.append(Rule(f"{name} is above {check.max:g}", value > check.max, name))
    if check.allowed is not None:
        text = value.cast(pl.String)
        found.append(Rule(f"{name} is not allowed", ~text.is_in(list(check.allowed)), name))
    return found


def _stored(roles: Roles, name: str) -> str:
    """Return the name a column has while it is checked; columns with a role carry its name."""
    for role, column in (("entity", roles.entity), ("label", roles.label), ("time", roles.time)):
        if name == column:
            return role
    return name


def apply(frame: pl.DataFrame, rules: tuple[Rule, ...]) -> pl.DataFrame:
    """Fill `_reason` and `_detail` of every row that fails; the others keep null.

    Rows that the reader refused keep the reader's reason.
    """
    if not rules:
        return frame
    fails = pl.any_horizontal(*(rule.fails.fill_null(False) for rule in rules))
    if not frame.select(fails.any()).item():
        return frame
    # The first rule that fails, found flat: nested conditions would double with every rule.
    first = pl.coalesce(
        [pl.when(rule.fails.fill_null(False)).then(pl.lit(n)) for n, rule in enumerate(rules)]
    )
    frame = frame.with_columns(
        pl.when(pl.col(REASON).is_null()).then(first).cast(pl.Int64).alias(_FIRST)
    )
    shown = [
        pl.when(pl.col(_FIRST) == n).then(pl.col(rule.shows).cast(pl.String))
        for n, rule in enumerate(rules)
        if rule.shows in frame.columns
    ]
    told = pl.lit(pl.Series([rule.reason for rule in rules])).gather(pl.col(_FIRST))
    return frame.with_columns(
        pl.coalesce([pl.col(REASON), told]).alias(REASON),
        pl.coalesce([*shown, pl.col(DETAIL)]).alias(DETAIL),
    ).drop(_FIRST)


def labels(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Turn the label column into `label`: 0 normal, 1 anomaly or class number, null unknown.

    Words for normal and faulty are understood; any other text rejects the row.
    """
    if frame.schema[column].is_numeric() or frame.schema[column] == pl.Boolean:
        return frame.with_columns(pl.col(column).cast(pl.Float64).fill_nan(None).alias("label"))
    word = pl.col(column).str.strip_chars().str.to_lowercase()
    known = (
        pl.when(word.is_in(_NORMAL))
        .then(pl.lit("0"))
        .when(word.is_in(_ANOMALY))
        .then(pl.lit("1"))
        .when(word.is_in([text.lower() for text in MISSING]))
        .then(None)
        .otherwise(pl.col(column))
    )
    return to_numbers(frame.with_columns(known.alias("label")), ["label"])
