"""What a line file may hold, as JSON Schema for editors, and a `Line` written back as TOML."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Final

from genba.core.codec import encode
from genba.core.line import Line
from genba.core.resolve import names

_SCALARS: Final = {str: "string", int: "integer", float: "number", bool: "boolean"}
_EXACT: Final = 1e15  # below it, a whole float is written without its ".0" and read back the same
# Where the catalog knows the choices, so that an editor can offer them.
_CHOICES: Final = {
    "task": ("enum", "task"),
    "target.engines": ("items", "engine"),
    "retrain.when": ("propertyNames", "trigger"),
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a line file, made from the dataclasses themselves.

    Example:
        >>> json_schema()["required"]
        ['name', 'task', 'data']
    """
    schema = _table(Line, "")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Genba line file",
        **schema,
    }


def _table(kind: type[Any], path: str) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    properties, required = {}, []
    for field in dataclasses.fields(kind):
        inner = f"{path}.{field.name}" if path else field.name
        properties[field.name] = _schema(hints[field.name], inner)
        default = _default(field)
        if default is dataclasses.MISSING:
            required.append(field.name)
        elif default is not None and not isinstance(default, dict):
            properties[field.name]["default"] = default
    table = {
        "type": "object",
        "description": (kind.__doc__ or "").strip().splitlines()[0],
        "properties": properties,
        "additionalProperties": False,
    }
    return {**table, "required": required} if required else table


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return encode(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return encode(field.default_factory())
    return dataclasses.MISSING


def _schema(hint: Any, path: str) -> dict[str, Any]:
    schema = _type(hint, path)
    if path in _CHOICES:
        key, kind = _CHOICES[path]
        choices = sorted(names(kind))
        schema[key] = choices if key == "enum" else {"enum": choices}
    return schema


def _type(hint: Any, path: str) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        (inner,) = (a for a in arguments if a is not type(None))
        return _schema(inner, path)
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], f"{path}[]")}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], f"{path}.*")}
    return _table(hint, path)


def line_text(line: Line, comments: Mapping[str, str] | None = None) -> str:
    """Write a line as TOML; what has its default value is left out.

    Args:
        line: What to write.
        comments: Remarks by dotted path, written behind the key or section they belong to.

    Example:
        >>> from genba.core.line import Data
        >>> data = Data(source="files:pump.csv")
        >>> print(line_text(Line(name="pump", task="sensor.anomaly", data=data)))
        name = "pump"
        task = "sensor.anomaly"
        <BLANKLINE>
        [data]
        source = "files:pump.csv"
        <BLANKLINE>
    """
    sections: list[list[str]] = []
    _write_table(line, "", comments or {}, sections)
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _write_table(
    value: Any, path: str, comments: Mapping[str, str], sections: list[list[str]]
) -> None:
    lines = [_with_comment(f"[{path}]", comments.get(path))] if path else []
    later: list[tuple[str, Any]] = []
    for field in dataclasses.fields(value):
        item, inner = getattr(value, field.name), f"{path}.{field.name}" if path else field.name
        if encode(item) == _default(field):
            continue
        if _is_section(item, path):
            later.append((inner, item))
        else:
            lines.append(_with_comment(f"{field.name} = {_toml(item)}", comments.get(inner)))
    if len(lines) > bool(path):
        sections.append(lines)
    for inner, item in later:
        if isinstance(item, Mapping):
            head = [_with_comment(f"[{inner}]", comments.get(inner))]
            sections.append(head + [_row(inner, key, item[key], comments) for key in item])
        else:
            _write_table(item, inner, comments, sections)


def _row(path: str, key: str, value: Any, comments: Mapping[str, str]) -> str:
    return _with_comment(f"{_toml_key(key)} = {_toml(value)}", comments.get(f"{path}.{key}"))


def _is_section(item: Any, path: str) -> bool:
    if isinstance(item, Mapping):
        return not path or any(dataclasses.is_dataclass(v) for v in item.values())
    return dataclasses.is_dataclass(item) and not path


def _with_comment(text: str, comment: str | None) -> str:
    return f"{text}  # {comment}" if comment else text


def _toml_key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    return key if bare else _toml(key)


def _toml(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        kept = {f.name: getattr(value, f.name) for f in fields}
        value = {f.name: kept[f.name] for f in fields if encode(kept[f.name]) != _default(f)}
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(int(value) if abs(value) < _EXACT and value == int(value) else value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{{ {', '.join(f'{_toml_key(k)} = {_toml(v)}' for k, v in value.items())} }}"
