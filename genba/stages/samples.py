"""Samples of a split, for the stages that need some of them or all of them."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from genba.core.protocols import Array, JsonObject, Samples, Task, View

_ROWS: Final = 8_192  # in memory at a time: an exported graph's buffers grow with the batch


def in_chunks(task: Task, view: View, split: str, settings: JsonObject) -> Iterator[Samples]:
    """Yield every sample of a split, some thousands at a time."""
    for columns in view.chunks(split, rows=_ROWS):
        yield task.samples(columns, settings)


def spread(task: Task, view: View, split: str, settings: JsonObject, rows: int) -> dict[str, Array]:
    """Return a few samples spread evenly over a split, always the same ones.

    Args:
        task: Turns rows into samples.
        view: The dataset.
        split: "train", "calibrate" or "test".
        settings: Of the model.
        rows: How many samples, if there are so many.
    """
    total = view.count(split)
    wanted = np.unique(np.linspace(0, max(total - 1, 0), num=min(rows, total)).astype(np.int64))
    parts: list[dict[str, Array]] = []
    start = 0
    for samples in in_chunks(task, view, split, settings):
        count = len(samples.row)
        at = wanted[(wanted >= start) & (wanted < start + count)] - start
        parts.append({name: tensor[at] for name, tensor in samples.tensors.items()})
        start += count
    names = parts[0] if parts else {}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
