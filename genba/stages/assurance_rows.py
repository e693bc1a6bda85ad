"""Rows as the safety envelope is fitted and tried on: readings, answers and decisions.

Only roles of the signature are known here: what a decision is follows from the outputs there are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Columns, Predict, Tensors, View
from genba.core.task import Samples, Task
from genba.core.values import Manifest, Signature, Tensor
from genba.learn.safety.series import Bools, Floats, Ints, Series
from genba.stages.samples import chosen, in_chunks

MOST_ROWS: Final = 300_000  # of a split
MOST_IMAGES: Final = 600
_BATCH: Final = 8_192
_BATCH_IMAGES: Final = 32
_FORGETTABLE: Final = frozenset({"map", "mask"})  # large, and no monitor looks at them

Outputs = dict[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensors:
    """Where the newest reading of each sensor stands."""

    names: tuple[str, ...] = ()
    tensor: str = ""
    first: int = 0  # in the flattened tensor; the others follow

    def values(self, tensors: Tensors) -> Floats:
        """Return the newest readings of a batch, [N, sensors]."""
        if not self.names:
            return np.zeros((len(next(iter(tensors.values()))), 0))
        flat = np.asarray(tensors[self.tensor]).reshape(len(tensors[self.tensor]), -1)
        return flat[:, self.first : self.first + len(self.names)].astype(np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """A split with what the package answers to it."""

    series: Series
    outputs: Outputs
    row: Ints
    label: Floats

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.row)


def sensors_of(signature: Signature, names: tuple[str, ...]) -> Sensors:
    """Find the sensors: the last columns of the first input that has one for each of them."""
    for tensor in signature.inputs:
        if tensor.role == "feature" and len(tensor.shape) > 1 and tensor.shape[-1] == len(names):
            size = int(np.prod(tensor.shape[1:]))
            return Sensors(names=names, tensor=tensor.name, first=size - len(names))
    return Sensors()


def output_of(signature: Signature, role: str) -> str:
    """Return the name of the first output with a role, "" where there is none."""
    return next((t.name for t in signature.outputs if t.role == role), "")


def tensor_of(signature: Signature, role: str) -> Tensor | None:
    """Return the first input with a role."""
    return next((t for t in signature.inputs if t.role == role), None)


def gather(
    task: Task, predict: Predict, view: View, manifest: Manifest, split: str, sensors: Sensors
) -> Gathered:
    """Read a split, ask for the answers, and keep what the monitors look at.

    Of images no more than some hundreds, spread over the split.
    """
    step = int(manifest.settings.get("step_ms") or 0) if view.has_clock else 0
    parts: list[tuple[Samples, Floats, Outputs]] = []
    count = 0
    for samples in _read(task, view, manifest, split):
        if not len(samples.row):
            continue
        outputs = answered(predict, samples.tensors, view.modality)
        parts.append((samples, sensors.values(samples.tensors), outputs))
        count += len(samples.row)
        if count >= MOST_ROWS:
            break
    label = _joined([s.label for s, _, _ in parts])
    anomalous = (label == 1.0) & (view.modality == "table")
    series = Series(
        values=np.concatenate([np.zeros((0, len(sensors.names))), *(v for _, v, _ in parts)]),
        entity=_joined([s.entity for s, _, _ in parts]).astype(np.int64),
        time=_joined([s.time for s, _, _ in parts]).astype(np.int64),
        normal=~anomalous,
        step=step,
    )
    names = parts[0][2] if parts else {}
    return Gathered(
        series=series,
        outputs={name: np.concatenate([o[name] for _, _, o in parts]) for name in names},
        row=_joined([s.row for s, _, _ in parts]).astype(np.int64),
        label=label,
    )


def answered(predict: Predict, tensors: Tensors, modality: str = "table") -> Outputs:
    """Return what a package answers to many samples, a batch at a time, without its maps."""
    count = len(next(iter(tensors.values())))
    size = _BATCH_IMAGES if modality == "image" else _BATCH
    parts = [
        kept(predict({name: t[at : at + size] for name, t in tensors.items()}))
        for at in range(0, count, size)
    ]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if parts else {}


def kept(outputs: Mapping[str, Array]) -> Outputs:
    """Leave out what is large and watched by nobody."""
    return {n: np.asarray(o) for n, o in outputs.items() if n not in _FORGETTABLE}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What an answer decides, by roles: the alarm, else the class, else where the number lies.

    A forecast decides otherwise when it leaves the interval that the clean answer promised.
    """

    by: str  # "alarm", "class", "expected" or ""
    name: str = ""
    low: str = ""
    high: str = ""

    def differs(self, clean: Mapping[str, Array], other: Mapping[str, Array]) -> Bools:
        """Say for each sample whether another answer decides otherwise than the clean one."""
        if not self.by:
            return np.zeros(len(next(iter(clean.values()), ())), dtype=np.bool_)
        mine, theirs = np.asarray(clean[self.name]), np.asarray(other[self.name])
        if self.by != "expected":
            return np.asarray((mine != theirs).reshape(len(mine), -1).any(axis=1))
        mine, theirs = (a.reshape(len(mine), -1).astype(np.float64) for a in (mine, theirs))
        if not self.low:
            return np.asarray(~(np.abs(theirs - mine) <= 0.1 * np.abs(mine)).all(axis=1))
        low, high = (np.asarray(clean[n]).reshape(mine.shape) for n in (self.low, self.high))
        return np.asarray(~((theirs >= low) & (theirs <= high)).all(axis=1))

    def raised(self, outputs: Mapping[str, Array]) -> Bools:
        """Say which answers are the rarer, weightier ones: alarms; of other kinds none."""
        count = len(next(iter(outputs.values()), ()))
        if self.by != "alarm":
            return np.zeros(count, dtype=np.bool_)
        return np.asarray(outputs[self.name], dtype=np.bool_).reshape(count)


def decision_of(signature: Signature) -> Decision:
    """Return what decides, by the roles of the outputs."""
    for role in ("alarm", "class"):
        if name := output_of(signature, role):
            return Decision(by=role, name=name)
    if name := output_of(signature, "expected"):
        low, high = output_of(signature, "low"), output_of(signature, "high")
        return Decision(by="expected", name=name, low=low if high else "", high=high)
    return Decision(by="")


def in_words(decision: Decision) -> str:
    """Say what a failure is."""
    words = {
        "alarm": "the alarm differs from that on the clean input",
        "class": "the class differs from that on the clean input",
        "expected": "the value leaves the interval that was promised on the clean input",
        "": "nothing: the package has no output that decides",
    }
    return words[decision.by]


def stretch(columns: Columns, rows: slice | npt.NDArray[Any]) -> dict[str, Array]:
    """Return some rows of columns, as copies that may be changed."""
    return {name: np.array(column[rows]) for name, column in columns.items()}


def _read(task: Task, view: View, manifest: Manifest, split: str) -> Iterator[Samples]:
    if view.modality != "image":
        yield from in_chunks(task, view, split, manifest.settings)
        return
    total = view.count(split)
    wanted = np.unique(np.linspace(0, max(total - 1, 0), min(MOST_IMAGES, total)).astype(np.int64))
    yield from chosen(task, view, split, manifest.settings, wanted)


def _joined(parts: list[Array]) -> Array:
    return np.concatenate([np.zeros(0), *parts])
