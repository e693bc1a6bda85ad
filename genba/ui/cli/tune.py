"""`genba tune`: change a parameter of what is in production, without a new package."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cyclopts import Parameter as CommandParameter
from rich.console import RenderableType

from genba.core.codec import decode, encode
from genba.core.problem import Problem
from genba.core.values import Manifest
from genba.stages.tune import Parameter, estimate, parameters, unknown
from genba.stages.tune import tune as change
from genba.ui.cli.answer import Answer, facts, heading, table
from genba.ui.cli.figures import measure, moment, number, short
from genba.ui.cli.lookup import find_record, known_line, open_home, stable_of
from genba.ui.cli.options import DEFAULT, Options


@CommandParameter(name="*")
@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """What belongs to a change besides the change."""

    reason: str = ""
    """Why, for the ledger."""

    package: str = ""
    """Of this package (default: the one in production)."""

    me: str = ""
    """Who decides (default: your login name)."""


AS_USUAL: Final = How()


def tune(
    name: str,
    parameter: str = "",
    value: float | None = None,
    /,
    *,
    how: How = AS_USUAL,
    options: Options = DEFAULT,
) -> Answer:
    """Change a parameter in service, or show them.

    A running server follows within a second; nothing is trained or exported anew. Requests may
    still send a value of their own.

    Args:
        name: The line.
        parameter: Which one (default: show all).
        value: What it shall be (default: show it).
        how: Why, who, and of which package.
        options: Common options.
    """
    with open_home(options) as store:
        line = known_line(store, name)
        chosen = stable_of(store, line.name)
        if how.package:
            chosen = find_record(store, ("package",), how.package, "package").id
        manifest = decode(Manifest, store.ledger.get("package", chosen))
        before = parameters(store, chosen, manifest)
        if value is None:
            asked = [p for p in before if parameter in ("", p.name)]
            if parameter and not asked:
                raise unknown(manifest, parameter)
            return _shown(name, chosen, manifest, asked)
        if not how.reason:
            raise Problem(
                "G110",
                "A change in service needs a reason; it is kept in the ledger.",
                tries=[f'genba tune {name} {parameter} {value:g} --reason "too many good parts"'],
            )
        by = how.me or getpass.getuser()
        (event,) = change(store, manifest, chosen, {parameter: value}, reason=how.reason, by=by)
        after = parameters(store, chosen, manifest)
    return _changed(manifest, chosen, _one(before, parameter), _one(after, parameter), event.seq)


def _one(all_: Sequence[Parameter], name: str) -> Parameter:
    return next(p for p in all_ if p.name == name)


def _shown(name: str, package: str, manifest: Manifest, all_: Sequence[Parameter]) -> Answer:
    rows = [
        [
            p.name,
            f"{number(p.value)} {p.unit}".rstrip(),
            number(p.default),
            _expected(manifest, p.name, p.value) or "-",
            "as packaged" if p.time_ms is None else f"{p.reason} ({p.by}, {moment(p.time_ms)})",
        ]
        for p in all_
    ]
    blocks: list[RenderableType] = [heading(f"Parameters of {name}, package {short(package)}")]
    blocks.append(
        table(["parameter", "value", "packaged", "estimated", "why"], rows, right=("packaged",))
        if rows
        else facts([("", "This package has no parameter that can be changed in service.")])
    )
    return Answer(
        data={"line": name, "package": package, "parameters": [_plain(manifest, p) for p in all_]},
        blocks=blocks,
        next=tuple(f'genba tune {name} {p.name} {p.value:g} --reason "…"' for p in all_[:1]),
    )


def _changed(
    manifest: Manifest, package: str, before: Parameter, after: Parameter, seq: int
) -> Answer:
    line = manifest.line
    pairs = [
        ("before", f"{number(before.value)} {before.unit}".rstrip()),
        ("reason", after.reason),
        ("recorded", f"event {seq}, by {after.by}"),
        ("in force", "within a second where a server runs; else when it starts"),
    ]
    was, will = (_expected(manifest, p.name, p.value) for p in (before, after))
    if will:
        pairs.insert(1, ("expected", f"{will}; before {was}"))
    return Answer(
        data={
            "line": line,
            "package": package,
            "parameter": after.name,
            "value": after.value,
            "before": before.value,
            "event": seq,
            "expected": _plain(manifest, after)["expected"],
        },
        blocks=[
            heading(f"{after.name} of {line} is now {number(after.value)}", mark="yes"),
            facts(pairs),
        ],
        next=(
            f"genba status {line}",
            f'genba tune {line} {before.name} {before.value:g} --reason "back to before"',
        ),
    )


def _expected(manifest: Manifest, name: str, value: float) -> str:
    found = estimate(manifest, name, value)
    return f"{found[0]} {measure(found[1])}" if found else ""


def _plain(manifest: Manifest, parameter: Parameter) -> dict[str, Any]:
    found = estimate(manifest, parameter.name, parameter.value)
    expected = {found[0]: encode(found[1])} if found else None
    return {**encode(parameter), "expected": expected}
