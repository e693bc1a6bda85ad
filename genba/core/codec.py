"""Plain data to frozen dataclasses and back, strictly: what is not known is refused by name."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from genba.core.problem import Problem

T = TypeVar("T")


def encode(value: Any) -> Any:
    """Return a dataclass tree as plain JSON data; None fields are left out.

    Example:
        >>> from genba.core.values import Measure
        >>> encode(Measure(value=1.5, unit="s", method="measured"))
        {'value': 1.5, 'unit': 's', 'method': 'measured'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: encode(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, frozenset, set)):
        return [encode(v) for v in value]
    return value


def decode(kind: type[T], data: Any, *, where: str = "") -> T:
    """Build a frozen dataclass from plain data.

    Args:
        kind: The dataclass to build.
        data: Mapping as read from TOML or JSON.
        where: Dotted path of `data` in its file, for error messages.

    Raises:
        Problem: G102 for an unknown key (with the nearest right one), G103 for a wrong type or a
            missing value.

    Example:
        >>> from genba.core.line import Budget
        >>> decode(Budget, {"minutes": 2})
        Budget(minutes=2.0, trials=12)
    """
    if not isinstance(data, Mapping):
        raise _wrong_type(where, "a table", data)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # T is a dataclass
    for key in data:
        if key not in fields:
            raise _unknown_key(str(key), list(fields), where)
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        path = f"{where}.{name}" if where else name
        if name in data:
            values[name] = decode_value(hints[name], data[name], path)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise Problem(
                "G103",
                f"{path} is missing.",
                where=path,
                why=f"It must be {describe(hints[name])}.",
                tries=[f"{name} = …", "genba explain G103"],
            )
    return kind(**values)


def decode_value(hint: Any, value: Any, where: str) -> Any:
    """Convert one plain value to the type a field asks for, or raise G103."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _decode_union(arguments, value, where)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise _wrong_choice(where, [str(a) for a in arguments], value)
    if origin in (tuple, list, Sequence) or (origin and issubclass(origin, Sequence)):
        return _decode_sequence(arguments, value, where)
    if origin and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong_type(where, "a table", value)
        return {str(k): decode_value(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type[Any], hint), value, where=where)
    return _decode_scalar(hint, value, where)


def _decode_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    choices = [a for a in arguments if a is not type(None)]
    problem: Problem | None = None
    for choice in choices:
        try:
            return decode_value(choice, value, where)
        except Problem as caught:
            problem = caught
    if problem is None or len(choices) > 1:
        raise _wrong_type(where, " or ".join(describe(c) for c in choices), value)
    raise problem


def _decode_sequence(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong_type(where, "a list", value)
    return tuple(decode_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise _wrong_type(where, "a number below 1e308", value) from error
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _wrong_type(where, describe(hint), value)


def describe(hint: Any) -> str:
    """Say in words what a field accepts, for error messages and the schema."""
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if hint in names:
        return names[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(describe(a) for a in arguments if a is not type(None))
    if origin is not None and issubclass(origin, Mapping):
        return "a table"
    return "a list" if origin is not None else "a table"


def nearest(word: str, choices: Sequence[str]) -> str | None:
    """Return the choice that a misspelt word most likely meant, if any is near.

    Example:
        >>> nearest("epoch", ["epochs", "seed"])
        'epochs'
    """
    found = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return found[0] if found else None


def _unknown_key(key: str, known: list[str], where: str) -> Problem:
    path = f"{where}.{key}" if where else key
    near = nearest(key, known)
    return Problem(
        "G102",
        f"{path} is not a setting" + (f"; did you mean {near}?" if near else "."),
        where=path,
        why=f"{where or 'The line file'} knows: {', '.join(known)}.",
        tries=[f"{near} = …" if near else f"remove {key}", "genba check LINE"],
    )


def _wrong_type(where: str, wanted: str, value: Any) -> Problem:
    return Problem(
        "G103",
        f"{where or 'The value'} must be {wanted}, not {value!r}.",
        where=where,
        tries=[f"change {where or 'it'} to {wanted}", "genba explain G103"],
    )


def _wrong_choice(where: str, choices: list[str], value: Any) -> Problem:
    near = nearest(str(value), choices)
    return Problem(
        "G103",
        f"{where} must be one of {', '.join(choices)}, not {value!r}.",
        where=where,
        tries=[f'{where.rsplit(".", 1)[-1]} = "{near or choices[0]}"'],
    )
