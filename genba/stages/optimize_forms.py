"""The forms of an exported graph: as it is, and lowered where an engine may gain by that."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from genba.codesign.values import AS_EXPORTED
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, Lowering, Tensors, View
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.stages.samples import affordable, by_label, chosen

_ROWS: Final = 64
_BYTES: Final = 8 << 20  # of all samples: some fifty images
_BATCH: Final = 4
_CLASS: Final = "class"  # role of an output
UNLABELLED: Final = "unlabelled"
#: Where samples are taken from: what the thresholds are set on, else what was learned from.
_SPLITS: Final = ("calibrate", "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What forms in integers take their scales from."""

    batches: Sequence[Tensors]
    split: str
    labels: Mapping[str, int]  # class -> samples; what is not labelled is "unlabelled"

    @property
    def sentence(self) -> str:
        """What a reader must know of it.

        Example:
            >>> Calibration(batches=(), split="calibrate", labels={"good": 64}).sentence
            '64 samples of the split calibrate, all of them good'
        """
        total = sum(self.labels.values())
        where = f"{total} samples of the split {self.split}"
        if len(self.labels) == 1 and UNLABELLED not in self.labels:
            return f"{where}, all of them {next(iter(self.labels))}"
        return f"{where}: {', '.join(f'{n} {name}' for name, n in self.labels.items())}"


class Forms:
    """The forms of one graph, each made when it is first asked for.

    Args:
        graph: As the task exported it.
        samples: Gives what a lowering is calibrated on.
    """

    def __init__(self, graph: bytes, samples: Callable[[], Calibration]) -> None:
        self._samples = cache(samples)
        self.calibrated = ""  # on what, once some form was
        self._made: dict[str, bytes | None] = {AS_EXPORTED: graph}

    def remade(self, graph: bytes) -> "Forms":
        """Return the forms of another graph of the same model, calibrated on the same samples."""
        return Forms(graph, self._samples)

    def of(self, form: str) -> bytes | None:
        """Return the graph in a form: "" or the name of a lowering; None where it gains nothing.

        Raises:
            Problem: G611 when the graph cannot be brought into that form, G621 when the samples
                to calibrate on show one class of several.
        """
        if form not in self._made:
            lowering: Lowering = resolve("lowering", form)
            graph = self._made[AS_EXPORTED] or b""
            batches: Sequence[Tensors] = ()
            if getattr(lowering, "calibrated", True):
                found = self._samples()
                batches, self.calibrated = found.batches, found.sentence
            self._made[form] = lowering.lower(graph, batches)
        return self._made[form]


def calibration(task: Task, view: View, settings: JsonObject) -> Calibration:
    """Return a few batches to calibrate on, of any split but the test set.

    They show every label there is, as evenly as there are samples for it: scales from one class
    cut off what only the others reach. A model that tells classes apart is not calibrated on one
    of them; one that learns from good parts alone is, and says so.

    Raises:
        Problem: G621 when a model that tells classes apart would be calibrated on one of them.
    """
    signature = task.signature(settings)
    rows = affordable(signature, _BYTES, _ROWS)
    tells = any(t.role == _CLASS for t in signature.outputs) and len(view.classes) > 1
    found = None
    for split in (name for name in _SPLITS if view.count(name)):
        found = _of_split(task, view, split, settings, rows)
        if not tells or len(found.labels) > 1:
            return found
    if found is None:
        return Calibration(batches=(), split=_SPLITS[-1], labels={})
    raise Problem(
        "G621",
        f"The graph is not calibrated: {found.sentence}.",
        where="data.split",
        why="Scales taken from one class cut off what only the others reach, and the decisions "
        "about those would be others.",
        tries=["genba data LINE  # what each split holds", "genba explain G621"],
    )


def _of_split(task: Task, view: View, split: str, settings: JsonObject, rows: int) -> Calibration:
    wanted = by_label(view, (split,), rows)[split]
    parts = [s for s in chosen(task, view, split, settings, wanted) if len(s.row)]
    if not parts:
        return Calibration(batches=(), split=split, labels={})
    whole = {n: np.concatenate([p.tensors[n] for p in parts]) for n in parts[0].tensors}
    label = np.concatenate([p.label for p in parts])
    starts = range(0, len(label), _BATCH)
    return Calibration(
        batches=[{n: tensor[at : at + _BATCH] for n, tensor in whole.items()} for at in starts],
        split=split,
        labels=dict(Counter(_name(value, view.classes) for value in label.tolist())),
    )


def _name(label: float, classes: Sequence[str]) -> str:
    if not math.isfinite(label):
        return UNLABELLED
    place = int(label)
    return str(classes[place]) if 0 <= place < len(classes) else f"label {label:g}"
