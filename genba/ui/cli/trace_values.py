"""What a package was given and what it answered, in words, whatever its task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from genba.ui.cli.figures import number, short, size

_SHOWN_VALUES: Final = 6
_SHOWN_SENSORS: Final = 12
_SHOWN_CLASSES: Final = 3

Package = Mapping[str, Any]
Values = Mapping[str, Any]


def given(values: Values, package: Package) -> Iterator[tuple[str, str]]:
    """Yield what was given: readings under the names of their sensors, files by their digest."""
    sensors = [str(s) for s in (package.get("settings") or {}).get("sensors") or ()]
    answered = {t["name"] for t in _signature(package, "outputs")}
    inputs = {t["name"]: t for t in _signature(package, "inputs")}
    for name, value in values.items():
        if name in answered:
            continue
        shape = inputs.get(name, {}).get("shape") or ()
        if sensors and isinstance(value, list) and shape[-1:] == [len(sensors)]:
            yield name, _readings(value, sensors)
        else:
            yield name, plain(value)


def answers(values: Values, package: Package) -> Iterator[tuple[str, str]]:
    """Yield what was answered, classes by their names."""
    classes = [str(c) for c in package.get("classes") or ()]
    for tensor in _signature(package, "outputs"):
        value = values.get(tensor["name"])
        if value is None or tensor.get("role") == "embedding":  # says nothing to a person
            continue
        yield tensor["name"], _answer(value, tensor, classes)


def _answer(value: Any, tensor: Mapping[str, Any], classes: Sequence[str]) -> str:
    role, unit = tensor.get("role"), tensor.get("unit") or ""
    if role == "class":
        named = 0 <= int(value) < len(classes)
        return classes[int(value)] if named else "no class: the model abstains"
    if role == "probability" and isinstance(value, list) and len(value) == len(classes):
        ranked = sorted(zip(value, classes, strict=True), key=lambda pair: -pair[0])
        more = len(ranked) - _SHOWN_CLASSES
        shown = ", ".join(f"{name} {number(share)}" for share, name in ranked[:_SHOWN_CLASSES])
        return shown + (f" and {more} more" if more > 0 else "")
    if role == "alarm":
        return "yes" if value else "no"
    return f"{plain(value)} {unit}".strip()


def _readings(value: Sequence[float | None], sensors: Sequence[str]) -> str:
    """Return the newest row of a window by sensor, and how many rows lie before it."""
    newest = value[-len(sensors) :]
    shown = [
        f"{sensor} {_number(reading)}"
        for sensor, reading in list(zip(sensors, newest, strict=True))[:_SHOWN_SENSORS]
    ]
    more = len(sensors) - len(shown)
    before = len(value) // len(sensors) - 1
    text = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return f"{text}; {before} earlier rows" if before > 0 else text


def plain(value: Any) -> str:
    """Return any captured value in a line; a file by its size and digest.

    Example:
        >>> plain([1.0, None, 2.5]), plain({"digest": "0f" * 32, "bytes": 2048}), plain(True)
        ('1, missing, 2.5', '2.0 KiB, sha256 0f0f0f0f0f0f', 'True')
    """
    if isinstance(value, Mapping):
        return f"{size(value['bytes'])}, sha256 {short(value['digest'])}"
    if isinstance(value, list):
        more = f" … ({len(value)} values)" if len(value) > _SHOWN_VALUES else ""
        return ", ".join(map(_number, value[:_SHOWN_VALUES])) + more
    return number(value) if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "missing" if value is None else number(float(value))


def _signature(package: Package, side: str) -> Sequence[Mapping[str, Any]]:
    return (package.get("signature") or {}).get(side) or ()
