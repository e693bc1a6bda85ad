"""Which columns a reader reads, and where in a file it stands. Nothing heavy is imported here.

A run that reuses its dataset makes a source, asks for its fingerprint and reads no row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from genba.core.codec import nearest
from genba.core.line import Data
from genba.core.problem import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The columns that a line names; with `rest`, also every other column of the file."""

    texts: tuple[str, ...]  # read as they are: time, entity, label, checks of allowed values
    numbers: tuple[str, ...]
    rest: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that must be there."""
        return self.texts + self.numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where in one file a reader stands."""

    offset: int = 0  # bytes, or rows for formats without lines
    line: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The columns that are read from every file of a source, settled by the first one."""

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every column, texts first."""
        return self.texts + self.numbers


def wanted(data: Data) -> Wanted:
    """Return which columns a line needs and how to read them.

    Example:
        >>> wanted(Data(source="files:x.csv", time="t", inputs=("a",), output="b")).names
        ('t', 'a', 'b')
    """
    sensors = [*data.inputs, *([data.output] if data.output else [])]
    roles = [name for name in (data.time, data.entity, data.label) if name]
    checked = [name for name in data.checks if name not in sensors and name not in roles]
    words = [name for name in checked if data.checks[name].allowed is not None]
    numbers = [*sensors, *(name for name in checked if name not in words)]
    return Wanted(
        texts=tuple(dict.fromkeys([*roles, *words])),
        numbers=tuple(n for n in dict.fromkeys(numbers) if n not in roles),
        rest=not data.inputs,
    )


def require(names: Sequence[str], present: Sequence[str], file: str, why: str = "") -> None:
    """Check that a file has the columns a line names.

    Raises:
        Problem: G204 naming the file, the column and the nearest column it does have.
    """
    missing = [name for name in names if name not in present]
    if not missing:
        return
    spare = [name for name in present if name not in names]
    near = nearest(missing[0], spare) or nearest(missing[0].lower(), [n.lower() for n in spare])
    near = next((n for n in spare if near and n.lower() == near.lower()), None)
    shown = ", ".join(present[:20]) + (", …" if len(present) > 20 else "")
    raise Problem(
        "G204",
        f"{file} has no column {missing[0]!r}" + (f"; did you mean {near!r}?" if near else "."),
        where=file,
        why=f"Its columns are: {shown}.{' ' + why if why else ''}",
        tries=[
            f"rename the column {near or '…'} to {missing[0]} in {file}",
            f"name {near or 'another column'} in the line file instead of {missing[0]}",
            f"head -1 {file}",
        ],
    )
