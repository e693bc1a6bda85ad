"""Whether an answer is the JSON that was promised: the part of JSON Schema that answers need.

What a schema says that is not understood here is refused when the rails are opened, so that no
promise is left unchecked. Words and meaning are those of JSON Schema draft 2020-12.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from genba.core.problem import Problem

#: What may be said besides, and asserts nothing.
_NOTES: Final = frozenset({"$schema", "$id", "title", "description", "default", "examples"})
_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: type(v) is int or (isinstance(v, float) and v.is_integer()),
}
_MOST_DEPTH: Final = 32


def _has_type(value: Any, types: Any) -> bool:
    names = [types] if isinstance(types, str) else types
    return any(_TYPES[name](value) for name in names)


def _sized(
    kind: type[str] | type[list[Any]], good: Callable[[int, Any], bool]
) -> Callable[[Any, Any], bool]:
    return lambda value, limit: not isinstance(value, kind) or good(len(value), limit)


def _numeric(good: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, limit: not _TYPES["number"](value) or good(value, limit)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON, in which true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


#: keyword -> whether a value is as it says; of values of another type most say nothing.
_SAYS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "type": _has_type,
    "enum": lambda value, options: any(_same(value, option) for option in options),
    "const": _same,
    "required": lambda value, names: not isinstance(value, dict) or all(n in value for n in names),
    "minLength": _sized(str, lambda n, limit: n >= limit),
    "maxLength": _sized(str, lambda n, limit: n <= limit),
    "minItems": _sized(list, lambda n, limit: n >= limit),
    "maxItems": _sized(list, lambda n, limit: n <= limit),
    "minimum": _numeric(lambda value, limit: value >= limit),
    "maximum": _numeric(lambda value, limit: value <= limit),
}
_INSIDE: Final = ("properties", "additionalProperties", "items")


def read_schema(text: str) -> Mapping[str, Any]:
    """Read a schema.

    Raises:
        Problem: G661 when it is no JSON object or says what is not understood.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"The schema is not JSON: {error}.") from error
    _check(schema, "schema", 0)
    return dict(schema)


def fits(answer: str, schema: Mapping[str, Any]) -> bool:
    """Say whether an answer is JSON that a schema allows.

    Example:
        >>> wanted = read_schema('{"type": "object", "required": ["city"]}')
        >>> fits('{"city": "Ube"}', wanted), fits('{"town": "Ube"}', wanted), fits("Ube", wanted)
        (True, False, False)
    """
    try:
        value = json.loads(answer, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return _fits(value, schema)


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _fits(value: Any, schema: Any) -> bool:
    if isinstance(schema, bool):
        return schema
    if not all(_SAYS[word](value, said) for word, said in schema.items() if word in _SAYS):
        return False
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return all(_fits(v, known.get(name, others)) for name, v in value.items())
    if isinstance(value, list):
        return all(_fits(v, schema.get("items", True)) for v in value)
    return True


def _check(schema: Any, where: str, depth: int) -> None:
    if isinstance(schema, bool) and depth:
        return
    if not isinstance(schema, dict) or depth > _MOST_DEPTH:
        raise _wrong(f"{where} is no schema.")
    for word, said in schema.items():
        if word not in _NOTES and word not in _INSIDE and word not in _SAYS:
            raise _wrong(f"{where} says {word!r}, which is not checked here.")
        if word in _SAYS:
            _check_word(word, said, where)
    inside = schema.get("properties", {})
    if not isinstance(inside, dict):
        raise _wrong(f"{where}.properties is no object.")
    for name, one in inside.items():
        _check(one, f"{where}.{name}", depth + 1)
    for word in ("additionalProperties", "items"):
        if word in schema:
            _check(schema[word], f"{where}.{word}", depth + 1)


def _check_word(word: str, said: Any, where: str) -> None:
    if word == "type":
        names = [said] if isinstance(said, str) else said
        good = isinstance(names, list) and all(isinstance(n, str) and n in _TYPES for n in names)
    elif word in ("enum", "required"):
        good = isinstance(said, list)
    else:
        good = word == "const" or _TYPES["number"](said)
    if not good:
        raise _wrong(f"{where}.{word} is {said!r}.")


def _wrong(what: str) -> Problem:
    return Problem(
        "G661",
        what,
        where="rails.schema",
        why=f"Understood are {', '.join((*_SAYS, *_INSIDE))}.",
        tries=['schema = \'{"type": "object", "required": ["answer"]}\'', "leave schema out"],
    )
