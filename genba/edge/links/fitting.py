"""Whether a link file gives a package what it takes, in its units."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from genba.core.codec import nearest
from genba.edge.interface import Field, Interface
from genba.edge.links.settings import Column, Links, LinkSettings, reads, wrong
from genba.edge.links.units import conversion, known

_METHODS: Final = (":mean", ":last")  # of joined columns, made here from what a link gives
_NO_IMAGES: Final = frozenset({"opcua", "modbus"})


def fit(links: Links, interface: Interface) -> tuple[Links, tuple[str, ...]]:
    """Return the link file with every column in the unit that the model wants.

    Args:
        links: As it was read.
        interface: Of the release.

    Returns:
        The links, and sentences about what could not be checked.

    Raises:
        Problem: G691 when a column is none of the model's, a column of the model comes from
            nowhere, a unit cannot be converted, or an answer has no such output.
    """
    fields = {one.name: one for one in interface.fields}
    notes: list[str] = []
    made: dict[str, LinkSettings] = {}
    for name, link in links.links.items():
        columns = getattr(link, "columns", {})
        fitted = {n: _column(name, n, c, fields, notes) for n, c in columns.items()}
        made[name] = replace(link, columns=fitted) if fitted else link  # type: ignore[call-arg]  # of the kinds that have any
        _check_answers(name, getattr(link, "answers", None), interface)
    _check_complete(links, fields, notes)
    _check_images(links, interface)
    return replace(links, links=made), tuple(notes)


def _column(
    link: str, name: str, column: Any, fields: Mapping[str, Field], notes: list[str]
) -> Any:
    where = f"links.{link}.columns.{name}"
    base = {_base(field): one for field, one in fields.items()}
    field = fields.get(name) or base.get(name)
    if field is None:
        near = nearest(name, list(fields))
        raise wrong(
            f"{name} is no column of the model" + (f"; did you mean {near}?" if near else "."),
            where,
            [f"{near or next(iter(fields), 'name')} = {{ … }}"],
            f"Its columns: {', '.join(fields) or 'none, it takes images'}.",
        )
    if column.unit and not field.unit:
        notes.append(f"{name}: the model states no unit; {column.unit} is taken as it is")
    found = conversion(column.unit, field.unit)
    if found is None:
        unknown = column.unit not in known()
        near = nearest(column.unit, known()) if unknown else None
        raise wrong(
            f"{name} comes in {column.unit!r}; the model takes {field.unit!r}.",
            f"{where}.unit",
            [f'unit = "{near or field.unit}"'],
            f"{column.unit!r} is no unit that is known here."
            if unknown
            else "There is no way from one to the other.",
        )
    return _converted(column, *found)


def _converted(column: Column, factor: float, offset: float) -> Column:
    return replace(column, scale=column.scale * factor, offset=column.offset * factor + offset)


def _base(name: str) -> str:
    for method in _METHODS:
        name = name.removesuffix(method)
    return name


def _check_complete(links: Links, fields: Mapping[str, Field], notes: list[str]) -> None:
    open_links = [
        name
        for name, link in links.links.items()
        if reads(link) and not getattr(link, "columns", {})
    ]
    given = {n for link in links.links.values() for n in getattr(link, "columns", {})}
    for name in links.without:
        if name not in fields:
            near = nearest(name, list(fields))
            raise wrong(f"{name} is no column of the model.", "without", [f'without = ["{near}"]'])
    absent = [
        name
        for name in fields
        if name not in given and _base(name) not in given and name not in links.without
    ]
    if not absent:
        return
    if open_links and fields:
        notes.append(
            f"{', '.join(open_links)} names no columns; whether {', '.join(absent)} "
            "come is seen when readings do"
        )
        return
    raise wrong(
        f"No link gives {_listed(absent)}.",
        "links",
        [f"{absent[0]} = {{ … }}", f'without = ["{absent[0]}"]'],
        f"The model takes {_listed(list(fields))}.",
    )


def _check_images(links: Links, interface: Interface) -> None:
    wants = any(port.role == "image" for port in interface.inputs)
    kind = links.kinds[links.leader]
    if wants and kind in _NO_IMAGES:
        raise wrong(
            f"The model takes images; {links.leader} ({kind}) gives numbers.",
            "leader",
            ['kind = "files"', 'payload = "image"'],
        )


def _check_answers(link: str, answers: Any, interface: Interface) -> None:
    if not isinstance(answers, Mapping):
        return
    outputs = [port.name for port in interface.outputs]
    for name in answers:
        if name not in outputs and name != "action":
            near = nearest(name, [*outputs, "action"]) or outputs[0]
            raise wrong(
                f"The model has no output {name!r}; did you mean {near}?",
                f"links.{link}.answers.{name}",
                [f"{near} = {{ … }}"],
                f"Its outputs: {_listed([*outputs, 'action'])}.",
            )


def _listed(names: Sequence[str] | Iterable[str]) -> str:
    return ", ".join(names)
