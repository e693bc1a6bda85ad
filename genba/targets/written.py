"""TOML as a person reads it: one line for each value, and one for each entry of a list."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def toml(values: Mapping[str, Any], *, comment: str = "", **tables: Mapping[str, Any]) -> str:
    """Return plain data as TOML.

    Args:
        values: Text, numbers, lists of them, tables, and lists of tables.
        comment: One line for the top.
        tables: Further tables for the end.

    Example:
        >>> print(toml({"name": "pi", "rates": [{"kind": "gemm", "value": 2.5}]}), end="")
        name = "pi"
        rates = [
          { kind = "gemm", value = 2.5 },
        ]
    """
    nested = {k: v for k, v in values.items() if isinstance(v, Mapping)}
    lines = [f"# {comment}"] if comment else []
    lines += [f"{_key(k)} = {_top(v)}" for k, v in values.items() if k not in nested]
    for name, content in {**nested, **tables}.items():
        lines += ["", f"[{_key(name)}]"]
        lines += [f"{_key(k)} = {_inline(v)}" for k, v in content.items()]
    return "\n".join(lines) + "\n"


def _top(value: Any) -> str:
    if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
        return "\n".join(["[", *(f"  {_inline(entry)}," for entry in value), "]"])
    return _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):  # TOML forbids one character more than JSON does
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)
