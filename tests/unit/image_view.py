"""A dataset of images in memory, as a task reads it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from genba.core.line import Line
from genba.core.protocols import Array, Columns
from genba.edge.images import encode_png

_CHUNK = 64


class ImageView:
    """Images with labels; every fifth is a test image, every fifth a calibration image.

    Args:
        line: The line.
        images: Pixels [height, width, 3] each.
        label: Class of each, NaN where it is not known.
        classes: Names.
    """

    digest = "generated"
    entities: tuple[str, ...] = ("all",)
    sensors: tuple[str, ...] = ()
    has_clock = False
    modality = "image"

    def __init__(
        self,
        line: Line,
        images: Sequence[npt.NDArray[np.uint8]],
        label: npt.ArrayLike,
        classes: Sequence[str],
        split: Array | None = None,
    ) -> None:
        self.line = line
        self.classes = tuple(classes)
        self.image = np.empty(len(images), dtype=object)
        self.image[:] = [encode_png(image) for image in images]
        self.label = np.asarray(label, dtype=np.float64)
        turn = np.array(["train", "train", "test", "train", "calibrate"])
        self.split = turn[np.arange(len(images)) % 5] if split is None else split
        self.entity = np.zeros(len(images), dtype=np.int32)

    def chunks(self, split: str, *, rows: int = _CHUNK) -> Iterator[Columns]:
        at = np.flatnonzero(self.split == split)
        for start in range(0, len(at), min(rows, _CHUNK)):
            chosen = at[start : start + min(rows, _CHUNK)]
            yield {
                "entity": self.entity[chosen],
                "time": chosen.astype(np.int64),
                "row": chosen.astype(np.int64),
                "label": self.label[chosen],
                "image": self.image[chosen],
                "mask": np.full(len(chosen), None, dtype=object),
                "name": np.array([f"{i}.png" for i in chosen], dtype=object),
            }

    def count(self, split: str) -> int:
        return int((self.split == split).sum())

    def ends(self) -> Array:
        return np.full(len(self.entities), np.nan)

    def sheet(self) -> dict[str, Any]:
        return {}
