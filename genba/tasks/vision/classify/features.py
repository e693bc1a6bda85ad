"""Images of a dataset as features of a frozen network: chosen by class, kept small, read once."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Columns, JsonObject, View
from genba.edge.images import decode
from genba.learn.backbone import Backbone
from genba.runs.effort import Effort

Ints = npt.NDArray[np.int64]

_BATCH: Final = 256  # images decoded at a time
_KEPT_BYTES: Final = 160 << 20  # of the features of one network, for all images together
_HALF: Final = 2  # bytes: features are kept in half precision, of which heads notice nothing
_FEWEST: Final = 20  # of a class are kept even where it is rare
_MOST_CALIBRATION: Final = 0.25  # of the images the budget has time for


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Which images of a split are looked at."""

    split: str
    at: Ints  # positions among the rows of the split, ascending
    label: Ints  # class of each


class Bank:
    """Features of the chosen images of a split, by tap."""

    def __init__(self, label: Ints, backbone: Backbone, size: int, taps: Sequence[str]) -> None:
        self.label = label
        self._values = {
            tap: np.empty((len(label), *backbone.shape(tap, size)), dtype=np.float16)
            for tap in taps
        }

    def put(self, start: int, found: dict[str, npt.NDArray[np.float32]]) -> None:
        """Keep the features of the images from `start` on."""
        for tap, values in found.items():
            self._values[tap][start : start + len(values)] = values

    def matrix(self, taps: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the features of some taps next to each other [N, features]."""
        parts = [self._values[tap] for tap in taps]
        return np.concatenate(parts, axis=1, dtype=np.float32)


def choose(view: View, split: str, settings: JsonObject, most: int, seed: int) -> Chosen:
    """Choose the labelled images of a split that are looked at.

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


def room(settings: JsonObject, backbone: Backbone, taps: Sequence[str]) -> tuple[int, int]:
    """Return how many images there are time and memory for: to train on, to calibrate on."""
    size = int(settings["size"])
    bytes_each = _HALF * sum(int(np.prod(backbone.shape(tap, size))) for tap in taps)
    most = min(int(settings["images"]["most"]), _KEPT_BYTES // bytes_each)
    calibration = int(_MOST_CALIBRATION * most)
    return most - calibration, calibration


def look_at(
    view: View, chosen: Chosen, backbone: Backbone, taps: Sequence[str], size: int, effort: Effort
) -> Bank:
    """Return the features of the chosen images.

    Raises:
        Cancelled: When the user asked to stop.
    """
    bank = Bank(chosen.label, backbone, size, taps)
    threads = min(2, len(os.sched_getaffinity(0)))
    done = 0
    for images in _batches(view, chosen, size):
        effort.check()
        bank.put(done, backbone.features(images, taps, threads=threads))
        done += len(images)
        effort.progress.step(f"looking at images with {backbone.name}", done, len(chosen.at))
    return bank


def _batches(view: View, chosen: Chosen, size: int) -> Iterator[npt.NDArray[np.uint8]]:
    waiting: list[npt.NDArray[np.uint8]] = []
    for chunk in rows(view, chosen):
        for data in chunk["image"]:
            waiting.append(decode(data, size))
            if len(waiting) == _BATCH:
                yield np.stack(waiting)
                waiting = []
    if waiting:
        yield np.stack(waiting)


def rows(view: View, chosen: Chosen) -> Iterator[Columns]:
    """Yield the rows of the chosen images, chunk by chunk."""
    start = 0
    for chunk in view.chunks(chosen.split):
        count = len(chunk["row"])
        first, behind = np.searchsorted(chosen.at, [start, start + count])
        wanted = chosen.at[first:behind] - start
        start += count
        if len(wanted):
            yield {name: column[wanted] for name, column in chunk.items()}
