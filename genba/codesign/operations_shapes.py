"""The shapes of a graph's tensors for a batch of a given size."""

import math
from collections.abc import Mapping
from typing import Any, Final

import onnx
from onnx import helper, shape_inference

_OTHER: Final = 1  # of a free dimension that is not the batch
_WIDTH: Final = 4  # bytes of a number whose type is not known


class Shapes:
    """What is known of each tensor.

    Args:
        known: Name to shape and bytes per number.
    """

    def __init__(self, known: Mapping[str, tuple[tuple[int, ...], int]]) -> None:
        self._known = known

    def of(self, name: str) -> tuple[int, ...] | None:
        """Return a shape, None when it is not known."""
        found = self._known.get(name)
        return found[0] if found else None

    def size(self, name: str) -> int | None:
        """Return how many numbers there are, None when that is not known."""
        found = self._known.get(name)
        return math.prod(found[0]) if found else None

    def rows(self, name: str) -> int | None:
        """Return the first dimension, None when it is not known."""
        found = self._known.get(name)
        return found[0][0] if found and found[0] else None

    def bytes(self, name: str) -> int:
        """Return how many bytes it takes, 0 when that is not known."""
        found = self._known.get(name)
        return math.prod(found[0]) * found[1] if found else 0


def shapes_for(model: Any, rows: int) -> Shapes:
    """Return the shapes for a batch of so many rows.

    Args:
        model: An `onnx.ModelProto`; it is not changed.
        rows: What the first dimension of every input is, where it is free.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    del sized.graph.value_info[:]  # what was inferred for another batch
    for value in (*sized.graph.input, *sized.graph.output):
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") or dim.dim_value <= 0:
                dim.dim_value = rows if place == 0 else _OTHER
    try:
        inferred = shape_inference.infer_shapes(sized, data_prop=True)
    except shape_inference.InferenceError:
        inferred = sized  # what is declared is all there is
    known = {}
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        if kind.HasField("shape") and all(size > 0 for size in shape):
            known[value.name] = (shape, _width(kind.elem_type))
    for tensor in graph.initializer:
        known[tensor.name] = (tuple(tensor.dims), _width(tensor.data_type))
    return Shapes(known)


def _width(kind: int) -> int:
    try:
        return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except (KeyError, TypeError):
        return _WIDTH
