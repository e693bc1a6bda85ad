"""What each column means to a line, settled by the first batch of a source."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from genba.core.line import Data
from genba.core.problem import Problem
from genba.data.formats.batch import OWN
from genba.data.formats.layout import require

#: Columns of a segment that a sensor may not be named after.
RESERVED: Final = ("entity", "time", "label", "split", "row")
#: Columns named like this hold an answer, not a reading: no inputs unless the line names them.
_ANSWER: Final = re.compile(
    r"(is_?)?(label|anomaly|anomalous|outlier|change_?point|target|rul|ttf"
    r"|(remaining_?)?(useful_?)?life|time_?to_?failure|machine_?failure)s?",
    re.IGNORECASE,
)
#: The entity of every row where the line names no column for it.
ONLY_ENTITY: Final = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """The columns of a line by meaning."""

    time: str | None
    entity: str | None
    label: str | None
    inputs: tuple[str, ...]
    output: str | None
    extras: tuple[str, ...] = ()  # checked and kept as numbers, no sensors
    words: tuple[str, ...] = ()  # checked and kept as text
    answers: tuple[str, ...] = ()  # left out because of their names

    @property
    def sensors(self) -> tuple[str, ...]:
        """Inputs in the order of the line, then the output."""
        return self.inputs + ((self.output,) if self.output else ())

    @property
    def numbers(self) -> tuple[str, ...]:
        """Every column that is kept as a number."""
        return self.sensors + self.extras

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a segment."""
        return ("entity", "time", *self.sensors, "label", "split", "row", *self.extras, *self.words)


def settle(data: Data, schema: pa.Schema) -> Roles:
    """Return the roles of a source's columns; open inputs become every spare numeric column.

    Args:
        data: The `[data]` table of the line.
        schema: The schema of the first batch. A source may name columns that are no inputs unless
            the line says so, comma-separated, under `extras` in the schema's metadata.

    Raises:
        Problem: G204 for a column that is not there, G205 for a name that is taken, G215 when no
            column is left as an input.
    """
    metadata = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
    where = metadata.get("file", data.source)
    present = [name for name in schema.names if name not in OWN]
    named = [data.time, data.entity, data.label, data.output, *data.inputs, *data.checks]
    require([name for name in named if name], present, where)
    taken = {data.time, data.entity, data.label, data.output}
    aside = set(metadata.get("extras", "").split(","))
    spare = [n for n in present if n not in taken | aside and _is_numeric(schema.field(n).type)]
    answers = () if data.inputs else tuple(n for n in spare if is_answer(n))
    spare = [n for n in spare if n not in answers]
    inputs = data.inputs or tuple(n for n in spare if n not in data.checks or _ranged(data, n))
    if not inputs:
        raise Problem(
            "G215",
            f"{where} has no numeric column to learn from.",
            where="data.inputs",
            why=f"Its columns are: {', '.join(present)}.",
            tries=['inputs = ["column", "column"]', f"head -3 {where}"],
        )
    checked = [n for n in data.checks if n not in inputs and n not in taken]
    roles = Roles(
        time=data.time,
        entity=data.entity,
        label=data.label,
        inputs=tuple(inputs),
        output=data.output,
        extras=tuple(n for n in checked if data.checks[n].allowed is None),
        words=tuple(n for n in checked if data.checks[n].allowed is not None),
        answers=answers,
    )
    _check_names([*roles.numbers, *roles.words], where)
    return roles


def is_answer(name: str) -> bool:
    """Say whether a column, by its name, holds what a model should find out.

    Example:
        >>> is_answer("changepoint"), is_answer("RUL"), is_answer("life_jacket")
        (True, True, False)
    """
    return _ANSWER.fullmatch(name.strip()) is not None


def _check_names(names: Sequence[str], where: str) -> None:
    for name in names:
        if name in RESERVED or name.startswith("_"):
            raise Problem(
                "G205",
                f"A column named {name!r} cannot be an input.",
                where=where,
                why=f"Genba's own columns are {', '.join(RESERVED)} and names that begin with _.",
                tries=[f"rename the column {name} in the file", 'inputs = ["other", "columns"]'],
            )
        if names.count(name) > 1:
            raise Problem(
                "G205",
                f"The column {name!r} is named twice in the line file.",
                where="data.inputs",
                why="A column is an input or the output, and once.",
                tries=[f"remove one {name} from [data]"],
            )


def _ranged(data: Data, name: str) -> bool:
    return data.checks[name].allowed is None


def _is_numeric(kind: pa.DataType) -> bool:
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(test(kind) for test in numeric)
