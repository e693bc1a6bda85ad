"""Batches: their size, their rows, and long ones in slices so that memory stays bounded."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors

#: A runtime keeps the memory of the largest batch it has seen, so larger ones are cut.
SLICE_ROWS: Final = 4096


def row_count(tensors: Tensors) -> int:
    """Return the number of rows, which all tensors must share.

    Raises:
        Problem: G602 when the tensors differ in length or there are none.

    Example:
        >>> row_count({"window": np.zeros((3, 6, 4)), "entity": np.zeros(3)})
        3
    """
    rows = {name: len(tensor) if tensor.ndim else -1 for name, tensor in tensors.items()}
    if len(set(rows.values())) != 1 or -1 in rows.values():
        raise Problem(
            "G602",
            "The input tensors do not have the same number of rows.",
            why=", ".join(f"{n}: {t.shape}" for n, t in tensors.items()) or "There are none.",
            tries=["give every tensor one row per sample", "genba explain G602"],
        )
    return next(iter(rows.values()))


def take(tensors: Tensors, start: int, stop: int) -> dict[str, Array]:
    """Return rows `start` to `stop` of every tensor, without copying."""
    return {name: tensor[start:stop] for name, tensor in tensors.items()}


def conform(tensors: Tensors, kinds: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """Return the tensors a graph takes in its own types, contiguous, copied only when they differ.

    Args:
        tensors: What was given.
        kinds: Name and type of every input of the graph.

    Raises:
        Problem: G602 when one is missing, unknown or of a type that would lose information.
    """
    if tensors.keys() != kinds.keys():
        raise Problem(
            "G602",
            f"The graph takes {', '.join(sorted(kinds))}, not {', '.join(sorted(tensors))}.",
            tries=["name the tensors as the signature does", "genba explain G602"],
        )
    ready = {}
    for name, kind in kinds.items():
        tensor = np.asarray(tensors[name])
        if tensor.dtype != kind:
            tensor = _cast(name, tensor, kind)
        ready[name] = tensor if tensor.flags.c_contiguous else np.ascontiguousarray(tensor)
    return ready


def in_slices(run: Callable[[Tensors], dict[str, Array]], tensors: Tensors) -> dict[str, Array]:
    """Run a batch of any length in slices of at most `SLICE_ROWS` rows."""
    rows = row_count(tensors)
    if rows <= SLICE_ROWS:
        return run(tensors)
    parts = [run(take(tensors, at, at + SLICE_ROWS)) for at in range(0, rows, SLICE_ROWS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _cast(name: str, tensor: Array, kind: np.dtype[Any]) -> Array:
    if not np.can_cast(tensor.dtype, kind, casting="same_kind"):
        raise Problem(
            "G602",
            f"The tensor {name} must be {kind}, not {tensor.dtype}.",
            tries=[f"convert {name} to {kind}", "genba explain G602"],
        )
    return tensor.astype(kind)
