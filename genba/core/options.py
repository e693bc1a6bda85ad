"""The `[options]` table of a line: what a task declares, checked as strictly as the rest."""

from collections.abc import Mapping
from typing import Any

from genba.core.codec import decode_value, nearest
from genba.core.problem import Problem
from genba.core.task import Option


def read_options(declared: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every declared option with the value that holds.

    Args:
        declared: By name; the type of a default is the type that is asked for.
        given: As written in the line file.

    Raises:
        Problem: G102 for a name that is not declared (with the nearest that is), G103 for a value
            of the wrong type or out of range.

    Example:
        >>> read_options({"horizon": Option(about="steps ahead", default=48, low=1)}, {})
        {'horizon': 48}
    """
    for name in given:
        if name not in declared:
            raise _unknown(name, list(declared))
    found = {name: option.default for name, option in declared.items()}
    for name, value in given.items():
        found[name] = _value(name, declared[name], value)
    return found


def _value(name: str, option: Option, value: Any) -> Any:
    where = f"options.{name}"
    if isinstance(option.default, list):
        kind = type(option.default[0])
        values = [*decode_value(tuple[kind, ...], value, where)]  # type: ignore[valid-type]  # known at run time only
        if not values:
            raise _wrong(where, "must have at least one element", option)
    else:
        values = [decode_value(type(option.default), value, where)]
    for one in values:
        _check(where, option, one)
    return values if isinstance(option.default, list) else values[0]


def _check(where: str, option: Option, value: Any) -> None:
    if option.choices and value not in option.choices:
        raise _wrong(where, f"must be one of {', '.join(option.choices)}, not {value!r}", option)
    if option.low is not None and not value >= option.low:
        raise _wrong(where, f"must be at least {option.low:g}, not {value!r}", option)
    if option.high is not None and not value <= option.high:
        raise _wrong(where, f"must be at most {option.high:g}, not {value!r}", option)


def _wrong(where: str, what: str, option: Option) -> Problem:
    return Problem(
        "G103",
        f"{where} {what}.",
        where=where,
        why=f"It is: {option.about}.",
        tries=[f"--set {where}={option.default}", "genba explain G103"],
    )


def _unknown(name: str, known: list[str]) -> Problem:
    near = nearest(name, known)
    return Problem(
        "G102",
        f"options.{name} is not an option of this task"
        + (f"; did you mean {near}?" if near else "."),
        where=f"options.{name}",
        why=f"It has: {', '.join(known) or 'none'}.",
        tries=[f"{near} = …" if near else f"remove {name}", "genba explain G102"],
    )
