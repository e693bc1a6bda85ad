"""From a name in the catalog to the class behind it; the only place that imports by name."""

import importlib
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any, cast

from genba.catalog import EXTRAS, KINDS
from genba.core.codec import nearest
from genba.core.problem import Problem


@cache
def _entry_points() -> EntryPoints:
    return cast(EntryPoints, entry_points())  # reads the metadata of all that is installed


@cache
def names(kind: str) -> dict[str, str]:
    """Return every name of a kind with its "module:Class", the catalog's and the installed ones.

    Example:
        >>> "sensor.anomaly" in names("task")
        True
    """
    table = dict(KINDS[kind])
    for entry in _entry_points().select(group=f"genba.{kind}s"):
        table.setdefault(entry.name, entry.value)
    return table


def address(kind: str, name: str) -> str:
    """Return the "module:Class" behind a name without importing it.

    Raises:
        Problem: G105 when nothing has that name.

    Example:
        >>> address("source", "files")
        'genba.data.sources.files:FileSource'
    """
    table = names(kind)
    if name in table:
        return table[name]
    near = nearest(name, list(table))
    raise Problem(
        "G105",
        f"There is no {kind} {name!r}" + (f"; did you mean {near}?" if near else "."),
        why=f"Known: {', '.join(sorted(table))}.",
        tries=[f'{kind} = "{near or next(iter(table))}"', "genba doctor"],
    )


def resolve(kind: str, name: str) -> Any:
    """Import and return the class behind a name.

    Raises:
        Problem: G105 when nothing has that name, G901 when its library is not installed.
    """
    module, _, attribute = address(kind, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as missing:
        root = (missing.name or "").partition(".")[0]
        if root == "genba":
            raise
        raise Problem(
            "G901",
            f"The {kind} {name} needs the library {root}, which is not installed.",
            tries=[
                f'pip install "genba[{EXTRAS[root]}]"' if root in EXTRAS else f"pip install {root}"
            ],
        ) from missing


def installed(kind: str) -> tuple[str, ...]:
    """Return the names of a kind whose libraries are present, in catalog order."""
    found = []
    for name in names(kind):
        try:
            resolve(kind, name)
        except Problem:
            continue
        found.append(name)
    return tuple(found)
