"""Which labelled samples of a split are looked at, and how they are divided for choosing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Columns, JsonObject, View

Ints = npt.NDArray[np.int64]

_FEWEST: Final = 20  # of a class are kept even where it is rare
_FOLDS: Final = 4
_HELD_OUT: Final = 0.2
_MANY: Final = 2_000  # samples from which one part held out says enough


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Which samples of a split are looked at."""

    split: str
    at: Ints  # positions among the rows of the split, ascending
    label: Ints  # class of each


def choose(view: View, split: str, settings: JsonObject, most: int, seed: int) -> Chosen:
    """Choose the labelled samples of a split that are looked at.

    With `shots`, so many of each class, drawn at random. Otherwise all, or as many as there is
    time for: evenly spread, each class in proportion, but of a rare one twenty where it has them.
    """
    labels = [np.asarray(c["label"], dtype=np.float64) for c in view.chunks(split)]
    label = np.concatenate(labels) if labels else np.zeros(0)
    known = np.flatnonzero(np.isfinite(label) & (label >= 0) & (label < len(view.classes)))
    number = label[known].astype(np.int64)
    rng, shots = np.random.default_rng(seed), int(settings["shots"])
    share = min(1.0, most / max(1, len(known)))
    taken: list[Ints] = []
    for kind in range(len(view.classes)):
        members = known[number == kind]
        if shots:
            taken.append(rng.permutation(members)[:shots])
            continue
        wanted = max(round(share * len(members)), min(_FEWEST, len(members)))
        taken.append(members[np.linspace(0, len(members) - 1, wanted).astype(np.int64)])
    at = np.sort(np.concatenate(taken)) if taken else np.zeros(0, dtype=np.int64)
    return Chosen(split=split, at=at, label=label[at].astype(np.int64))


def rows(view: View, chosen: Chosen) -> Iterator[Columns]:
    """Yield the rows of the chosen samples, chunk by chunk."""
    start = 0
    for chunk in view.chunks(chosen.split):
        count = len(chunk["row"])
        first, behind = np.searchsorted(chosen.at, [start, start + count])
        wanted = chosen.at[first:behind] - start
        start += count
        if len(wanted):
            yield {name: column[wanted] for name, column in chunk.items()}


def folds(label: Ints, seed: int) -> list[tuple[Ints, Ints]]:
    """Divide samples for choosing, each class evenly: one part held out, or each part in turn."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(label))
    part = np.empty(len(label), dtype=np.int64)
    parts = round(1 / _HELD_OUT) if len(label) >= _MANY else _FOLDS
    for kind in np.unique(label):
        members = shuffled[label[shuffled] == kind]
        part[members] = (np.arange(len(members)) + kind) % parts
    turns = 1 if len(label) >= _MANY else parts
    return [(shuffled[part[shuffled] != t], shuffled[part[shuffled] == t]) for t in range(turns)]
