"""The interface of a package: what its line, its dataset and its signature say of a reading."""

from collections.abc import Mapping
from typing import Any

from genba.core.line import Line
from genba.core.protocols import JsonObject
from genba.core.values import Manifest, Tensor
from genba.edge.interface import Field, Interface, Port, Span


def derive(line: Line, manifest: Manifest, package: str, sheet: JsonObject) -> Interface:
    """Derive the interface of a package.

    Args:
        line: As the package was made with.
        manifest: Of the package; `sensors`, `lags`, `step_ms`, `outputs` and `known` of its
            settings say how rows become tensors.
        package: Its id.
        sheet: Of the dataset it was made from.
    """
    settings = manifest.settings
    sensors = tuple(map(str, settings.get("sensors", ())))
    known = tuple(map(str, settings.get("known", ())))
    outputs = tuple(map(str, settings.get("outputs", ())))
    step = settings.get("step_ms") if settings.get("has_clock") else None
    gap = (sheet.get("time") or {}).get("longer_than_steps")
    fields = [_field(line, sheet, name, known) for name in dict.fromkeys((*sensors, *known))]
    return Interface(
        line=line.name,
        package=package,
        fields=tuple(fields),
        inputs=_inputs(manifest, sensors, known),
        outputs=tuple(_port(t, outputs) for t in manifest.signature.outputs),
        classes=manifest.classes,
        time=line.data.time,
        entity=line.data.entity,
        entities=manifest.entities if line.data.entity else (),
        step_ms=None if step is None else int(step),
        stale_ms=int(step * gap) if step and gap else None,
        tolerance_ms=int(step) // 2 if step else None,
        deadline_ms=line.target.limits.latency_ms_p99,
    )


def _field(line: Line, sheet: JsonObject, name: str, known: tuple[str, ...]) -> Field:
    check = line.data.checks.get(name)
    summary: Mapping[str, Any] = sheet.get("columns", {}).get(name, {})
    quantiles = summary.get("quantiles", {})
    return Field(
        name=name,
        role="output" if name == line.data.output else "known" if name in known else "input",
        required=check.required if check else False,
        limit=Span(min=check.min, max=check.max) if check else Span(),
        seen=Span(min=summary.get("min"), max=summary.get("max")),
        usual=Span(min=quantiles.get("0.01"), max=quantiles.get("0.99")),
    )


def _inputs(
    manifest: Manifest, sensors: tuple[str, ...], known: tuple[str, ...]
) -> tuple[Port, ...]:
    """Return the inputs; of two windows, the first holds what was read and the other what is known.

    A window has one number for each row and field, so its last axis is as long as they are many.
    """
    ports, left = [], [names for names in (sensors, known) if names]
    for tensor in manifest.signature.inputs:
        wide = len(tensor.shape) == 3 and tensor.role == "feature"
        names = next((n for n in left if wide and len(n) == tensor.shape[-1]), ())
        if names:
            left.remove(names)
        ports.append(_port(tensor, names))
    return tuple(ports)


def _port(tensor: Tensor, names: tuple[str, ...]) -> Port:
    """Return a tensor with what stands along its last axis, where that has the right length."""
    fits = len(tensor.shape) > 1 and bool(names) and tensor.shape[-1] == len(names)
    return Port(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        role=tensor.role,
        unit=tensor.unit,
        fields=names if fits else (),
        steps=tensor.shape[1] if fits and len(tensor.shape) == 3 else 0,
        default=tensor.default,
    )
