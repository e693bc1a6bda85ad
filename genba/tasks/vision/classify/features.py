"""Images of a dataset as features of a frozen network: chosen by class, kept small, read once."""

import os
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, View
from genba.edge.images import decode
from genba.learn.backbone import Backbone
from genba.learn.classes.chosen import Chosen, rows
from genba.runs.effort import Effort

Ints = npt.NDArray[np.int64]

_BATCH: Final = 256  # images decoded at a time
_KEPT_BYTES: Final = 160 << 20  # of the features of one network, for all images together
_HALF: Final = 2  # bytes: features are kept in half precision, of which heads notice nothing
_MOST_CALIBRATION: Final = 0.25  # of the images the budget has time for


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
