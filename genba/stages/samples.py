"""Samples of a split, for the stages that need some of them or all of them."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Columns, JsonObject, View
from genba.core.task import Samples, Task
from genba.core.values import Signature

_ROWS: Final = 8_192  # in memory at a time: an exported graph's buffers grow with the batch
_BYTES: Final = {"BOOL": 1, "UINT8": 1, "INT8": 1, "INT32": 4, "FP32": 4, "INT64": 8, "FP64": 8}
_TEXT_BYTES: Final = 64
_MOST_CLASSES: Final = 200
_EMPTY: Final = np.zeros(0)
_FIELDS: Final = ("entity", "time", "row", "label", "truth")

Ints = npt.NDArray[np.int64]


@dataclass(kw_only=True, slots=True)
class _Open:
    """The newest rows of an entity: those still to be answered, and those they look back on."""

    columns: Columns
    answered: int  # so many of the first rows were samples already


def in_chunks(task: Task, view: View, split: str, settings: JsonObject) -> Iterator[Samples]:
    """Yield every sample of a split once, some thousands at a time, images by the few.

    Rows that a sample looks back on (`context` of the settings) or ahead to (`ahead`) are kept
    from one chunk to the next, so a sample is the same wherever chunks end.
    """
    context, ahead = int(settings.get("context") or 0), int(settings.get("ahead") or 0)
    if not context and not ahead:
        for columns in view.chunks(split, rows=_ROWS):
            yield task.samples(columns, settings)
        return
    waiting: dict[int, _Open] = {}
    for columns in view.chunks(split, rows=_ROWS):
        if not len(columns["row"]):
            continue
        entity = int(columns["entity"][0])
        before = waiting.get(entity)
        joined = _joined(before, columns)
        known = before.answered if before else 0
        ready = max(known, len(joined["row"]) - ahead)
        yield _between(task.samples(joined, settings), joined["row"], known, ready)
        first = max(0, ready - context)
        waiting[entity] = _Open(
            columns={n: c[first:] for n, c in joined.items()}, answered=ready - first
        )
    if ahead:  # what an entity's last rows look ahead to does not exist
        for rest in waiting.values():
            if rest.answered < (count := len(rest.columns["row"])):
                samples = task.samples(rest.columns, settings)
                yield _between(samples, rest.columns["row"], rest.answered, count)


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
    parts = [s.tensors for s in chosen(task, view, split, settings, wanted)]
    names = parts[0] if parts else {}
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def chosen(
    task: Task, view: View, split: str, settings: JsonObject, wanted: Ints
) -> Iterator[Samples]:
    """Yield the samples at some positions of a split; an image that is not wanted is not decoded.

    Args:
        task: Turns rows into samples.
        view: The dataset.
        split: "train", "calibrate" or "test".
        settings: Of the model.
        wanted: Positions among the samples of the split, ascending.
    """
    alone = not (settings.get("context") or settings.get("ahead"))
    parts = view.chunks(split, rows=_ROWS) if alone else in_chunks(task, view, split, settings)
    start = 0
    for found in parts:
        count = len(found.row if isinstance(found, Samples) else found["row"])
        at = wanted[(wanted >= start) & (wanted < start + count)] - start
        start += count
        if not len(at):
            continue
        if isinstance(found, Samples):
            yield part(found, at)
        else:
            yield task.samples({n: c[at] for n, c in found.items()}, settings)


def by_label(view: View, splits: Collection[str], rows: int) -> Mapping[str, Ints]:
    """Choose rows that show every label there is, as evenly as there are rows for it.

    Args:
        view: The dataset.
        splits: Where to look.
        rows: Most rows in all.

    Returns:
        For each split the positions of the rows that were chosen, ascending.
    """
    labels = {s: np.concatenate([_EMPTY, *(c["label"] for c in view.chunks(s))]) for s in splits}
    split = np.repeat(np.arange(len(labels)), [len(found) for found in labels.values()])
    at = np.concatenate([np.arange(len(found)) for found in labels.values()])
    label = np.concatenate(list(labels.values()))
    values = np.unique(label[np.isfinite(label)])
    groups = [np.flatnonzero(np.isnan(label))]
    if len(values) <= _MOST_CLASSES:
        groups += [np.flatnonzero(label == value) for value in values]
    else:  # plain numbers
        groups.append(np.flatnonzero(np.isfinite(label)))
    picked: list[Ints] = []
    left = rows
    for place, group in enumerate(sorted(groups, key=len)):  # what the rare leave, the others share
        quota = left // (len(groups) - place)
        taken = np.linspace(0, len(group) - 1, num=min(quota, len(group))).astype(np.int64)
        picked.append(group[np.unique(taken)])
        left -= len(picked[-1])
    found = np.sort(np.concatenate(picked))
    return {name: at[found[split[found] == place]] for place, name in enumerate(labels)}


def affordable(signature: Signature, most_bytes: int, most_rows: int) -> int:
    """Return how many samples fit into so many bytes: at least one.

    Example:
        >>> from genba.core.values import Tensor
        >>> image = Tensor(name="image", datatype="UINT8", shape=(-1, 224, 224, 3), role="image")
        >>> affordable(Signature(inputs=(image,), outputs=()), 2**20, 8)
        6
    """
    tensors = (*signature.inputs, *signature.outputs)
    one = sum(
        _BYTES.get(t.datatype, _TEXT_BYTES) * math.prod(abs(n) for n in t.shape[1:])
        for t in tensors
    )
    return max(1, min(most_rows, most_bytes // max(1, one)))


def part(whole: Samples, rows: Array | slice) -> Samples:
    """Return some of the samples."""
    return replace(
        whole,
        tensors={name: tensor[rows] for name, tensor in whole.tensors.items()},
        **{name: getattr(whole, name)[rows] for name in _FIELDS},
    )


def _joined(before: _Open | None, columns: Columns) -> Columns:
    if before is None or not len(before.columns["row"]):
        return columns
    return {name: np.concatenate([before.columns[name], columns[name]]) for name in columns}


def _between(samples: Samples, row: Array, first: int, behind: int) -> Samples:
    """Return the samples of some of the rows; a task may leave out rows that it cannot use."""
    if first == 0 and behind == len(row):
        return samples
    return part(samples, np.isin(samples.row, row[first:behind]))
