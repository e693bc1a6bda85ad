"""Measures on the test set as a person reads them: the gated ones first, families in one line."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text

from genba.ui.cli.answer import facts, table
from genba.ui.cli.figures import measure, number

_FAMILY: Final = 3  # names with one first word that are told in one line instead of as many
_HEAD_WIDTH: Final = 12  # of a baseline: its name is longer than its figures
_HEAD: Final = "on the test set"
_ROLE: Final = "this model"

Measures = Mapping[str, Mapping[str, Any]]


def measures_report(evaluated: Mapping[str, Any]) -> RenderableType | None:
    """Return what was measured of the model and of the methods it is compared with.

    A table has the measures that gates ask for, then those that stand alone, with intervals;
    those that come by class, by horizon or simulated follow in a line for each family, without.

    Args:
        evaluated: The result of the stage `evaluate`.
    """
    measures: Measures = evaluated.get("measures") or {}
    if not measures:
        return None
    gates = [gate["name"] for gate in (evaluated.get("verdict") or {}).get("gates", [])]
    first = [name for name in gates if name in measures]
    families = _families([name for name in measures if name not in first])
    told = {name for family in families.values() for name in family}
    alone = [name for name in measures if name not in told and name not in first]
    found = _table([*first, *alone], measures, evaluated.get("baselines") or {})
    if not families:
        return found
    lines = [_family(word, names, measures) for word, names in families.items()]
    return Group(found, Text(""), facts([*lines, ("", Text("intervals: --json", style="dim"))]))


def _table(
    names: Iterable[str], measures: Measures, baselines: Mapping[str, Mapping[str, Any]]
) -> RenderableType:
    """One figure is enough of a baseline; its interval is in the JSON."""
    rows: list[list[RenderableType]] = [
        [
            name,
            Text(measure(measures[name]), style="bold"),
            *(
                _value(baseline.get("measures", baseline).get(name))
                for baseline in baselines.values()
            ),
        ]
        for name in names
    ]
    heads = ["\n".join(wrap(name, _HEAD_WIDTH)) for name in baselines]
    return table([_HEAD, _ROLE, *heads], rows, right=heads, whole=[_HEAD, _ROLE])


def _value(found: Mapping[str, Any] | None) -> str:
    return "-" if found is None else number(found["value"])


def _families(names: Sequence[str]) -> dict[str, list[str]]:
    """Gather names by their first word, where enough share it; the bare word is none of them.

    Example:
        >>> _families(["mae", "mae_h8", "mae_h48", "mae_h1", "skill", "interval_width"])
        {'mae': ['mae_h1', 'mae_h8', 'mae_h48']}
    """
    shared = Counter(name.partition("_")[0] for name in names if "_" in name)
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=_by_number):
        word, _, rest = name.partition("_")
        if rest and shared[word] >= _FAMILY:
            found.setdefault(word, []).append(name)
    return found


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort h8 before h48."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _family(word: str, names: Sequence[str], measures: Measures) -> tuple[str, Columns]:
    """Tell the value of each member; the unit and method that all share are said once, in front."""
    members = [measures[name] for name in names]
    shared = {(str(m.get("unit", "")), str(m.get("method", "measured"))) for m in members}
    figures = [number(m["value"]) if len(shared) == 1 else _plain(m) for m in members]
    said = (
        [text for text in shared.pop() if text not in ("", "measured")] if len(shared) == 1 else []
    )
    cells = (
        f"{name.removeprefix(f'{word}_')} {figure}"
        for name, figure in zip(names, figures, strict=True)
    )
    return f"{word} ({', '.join(said)})" if said else word, Columns(cells, padding=(0, 3))


def _plain(found: Mapping[str, Any]) -> str:
    return measure({**found, "low": None, "high": None})
