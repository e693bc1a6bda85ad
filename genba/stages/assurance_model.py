"""Models that have gone bad: garbled weights, one answer for everything, answers turned round."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.edge.package import MODEL_FILE, LoadedPackage
from genba.stages.assurance_rows import Outputs

_FEWEST: Final = 4  # numbers in a weight, to have an order that can be lost
_MOST_SCORE: Final = 1e6

Answer = Callable[[Any], dict[str, Array]]


def garbled(package: LoadedPackage, seed: int) -> Any | None:
    """Return an engine with the package's graph in which the numbers of every weight are shuffled.

    Returns:
        The engine; None where there is no graph of weights, or the runtime refuses it, which is
        the best that can happen to a garbled model.
    """
    if MODEL_FILE not in package.files:
        return None
    chance = np.random.default_rng(seed)
    model = onnx.load_from_string(package.files[MODEL_FILE])
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype.kind == "f" and values.size >= _FEWEST:
            weight.CopyFrom(numpy_helper.from_array(_shuffled(values, chance), weight.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if len(attribute.floats) >= _FEWEST:
                mixed = _shuffled(np.array(attribute.floats, dtype=np.float32), chance)
                del attribute.floats[:]
                attribute.floats.extend(mixed.tolist())
    choice = package.manifest.engine
    try:
        return resolve("engine", choice.name)(model.SerializeToString(), choice.settings)
    except Problem:
        return None


def constant(outputs: Mapping[str, Array], row: int) -> Outputs:
    """Return the same answer for every sample."""
    return {name: np.repeat(o[row : row + 1], len(o), axis=0) for name, o in outputs.items()}


def inverted(outputs: Mapping[str, Array], roles: Mapping[str, str]) -> Outputs:
    """Return answers turned round: alarms for none, high for low; what they look like stays."""
    made = {}
    for name, values in outputs.items():
        role = roles.get(name, "")
        if values.dtype == np.bool_:
            made[name] = ~values
        elif role == "score":
            safe = np.maximum(np.nan_to_num(values, nan=0.0), 1.0 / _MOST_SCORE)
            made[name] = (1.0 / safe).astype(values.dtype)
        elif role == "probability":
            made[name] = (1.0 - values).astype(values.dtype)
        elif role in ("expected", "low", "high"):
            middle = np.nanmean(values, axis=0, keepdims=True)
            made[name] = (2.0 * middle - values).astype(values.dtype)
        elif role == "class":
            made[name] = (values.max() - values).astype(values.dtype)
        else:
            made[name] = values
    return made


def _shuffled(values: Array, chance: np.random.Generator) -> Array:
    return chance.permutation(values.ravel()).reshape(values.shape).astype(values.dtype)
