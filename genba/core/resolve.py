"""From a name in the catalog to the class behind it; the only place that imports by name."""

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from genba.catalog import EXTRAS, KINDS
from genba.core.codec import nearest
from genba.core.problem import Problem


@cache
def names(kind: str) -> dict[str, str]:
    """Return every name of a kind with its "module:Class", the catalog's and the installed ones.

    Example:
        >>> "sensor.anomaly" in names("task")
        True
    """
    table = dict(KINDS[kind])
    for entry in entry_points(group=f"genba.{kind}s"):
        table.setdefault(entry.name, entry.value)
    return table


def resolve(kind: str, name: str) -> Any:
    """Import and return the class behind a name.

    Raises:
        Problem: G105 when nothing has that name, G901 when its library is not installed.
    """
    table = names(kind)
    if name not in table:
        near = nearest(name, list(table))
        raise Problem(
            "G105",
            f"There is no {kind} {name!r}" + (f"; did you mean {near}?" if near else "."),
            why=f"Known: {', '.join(sorted(table))}.",
            tries=[f'{kind} = "{near or next(iter(table))}"', "genba doctor"],
        )
    module, _, attribute = table[name].partition(":")
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
