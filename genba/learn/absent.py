"""A sensor that is not there: which may be missing, and samples as if they had not been read."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.joins import joined_of
from genba.core.line import Line
from genba.core.protocols import Array, JsonObject, Tensors

#: More are not measured one by one; it would take longer than the training.
MOST: Final = 32


def sources(line: Line) -> dict[str, Any]:
    """Return, as a setting, the inputs of each joined source that has several: they go together.

    Example:
        >>> from genba.core.line import Data, Join
        >>> data = Data(source="files:a.csv", inputs=("x", "plc.a", "plc.b"),
        ...     join={"plc": Join(source="files:b.csv", within_s=5)})
        >>> sources(Line(name="a", task="sensor.anomaly", data=data))
        {'sources': {'plc': ['plc.a', 'plc.b']}}
    """
    found: dict[str, list[str]] = {}
    for name in line.data.inputs:
        if joined := joined_of(name, line.data.join):
            found.setdefault(joined[0], []).append(name)
    several = {name: inputs for name, inputs in found.items() if len(inputs) > 1}
    return {"sources": several} if several else {}


def absences(sensors: Sequence[str], settings: JsonObject) -> dict[str, tuple[str, ...]]:
    """Return what may be missing by name: every sensor, then every source with several.

    Example:
        >>> absences(["x", "y"], {"sources": {"plc": ["y", "z"]}})
        {'x': ('x',), 'y': ('y',)}
    """
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in sensors[:MOST]}
    for source, names in (settings.get("sources") or {}).items():
        inside = tuple(name for name in names if name in found)
        if len(inside) > 1:
            found[f"all of {source}"] = inside
    return found


def blanked(
    tensors: Tensors, sensors: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> dict[str, Array]:
    """Return tensors in which these sensors were never read.

    Args:
        tensors: What a package is given.
        sensors: Which are missing.
        columns: By tensor, the sensor of each place of its last axis.
    """
    made = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    for name, order in columns.items():
        at = [list(order).index(sensor) for sensor in sensors if sensor in order]
        if at and name in made:
            made[name] = made[name].copy()
            made[name][..., at] = np.nan
    return made
