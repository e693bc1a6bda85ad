"""Where in the image an answer comes from: regions are hidden and the probability watched.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. Nothing but
predictions is asked of the model, so every form and every candidate can be explained.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, Tensors
from genba.core.task import Attribution, Explanation

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

_REGIONS: Final = (
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
_SIDE: Final = 3
_CELLS: Final = 8  # of the heat map, each way
_HIDDEN: Final = 2  # cells each way that are hidden at a time
_LEAST: Final = 1e-3  # of a probability: what a drop is measured against at least


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:  # noqa: ARG001  the task's seam
    """Say which regions of an image speak for the likeliest class (batch of one).

    A region is hidden under the median colour of the image's rim. Its share is its part of the
    drops in probability; `value` is its brightness, 0 to 1, and `usual` that of the rim. In the
    heat map 1.0 means: with this hidden, the model would be no surer than the bar.
    """
    image = np.asarray(tensors["image"], dtype=np.uint8)
    bar = np.asarray(tensors["abstain_below"], dtype=np.float32)
    before = np.asarray(predict(tensors)["probability"], dtype=np.float64)[0]
    best, rim = int(before.argmax()), _rim(image[0])
    size = image.shape[1]
    boxes = [*_boxes(size, _SIDE, 1), *_boxes(size, _CELLS, _HIDDEN)]
    hidden = np.repeat(image, len(boxes), axis=0)
    for copy, (rows, columns) in zip(hidden, boxes, strict=True):
        copy[rows, columns] = rim
    found = predict({**tensors, "image": hidden, "abstain_below": np.repeat(bar, len(hidden))})
    drops = before[best] - np.asarray(found["probability"], dtype=np.float64)[:, best]
    regions = drops[: len(_REGIONS)]
    shares = _shares(regions)
    return Explanation(
        attributions=tuple(
            Attribution(
                name=_REGIONS[i],
                share=float(shares[i]),
                value=float(image[0][boxes[i]].mean() / 255.0),
                usual=float(rim.mean() / 255.0),
            )
            for i in np.argsort(-shares, kind="stable")
        ),
        heat=_heat(drops[len(_REGIONS) :], before[best] - float(bar[0])),
    )


def _rim(image: Pixels) -> Pixels:
    edges = (image[0], image[-1], image[:, 0], image[:, -1])
    return np.asarray(np.median(np.concatenate(edges), axis=0), dtype=np.uint8)


def _boxes(size: int, cells: int, wide: int) -> list[tuple[slice, slice]]:
    """Return squares of `wide` cells each way, one beginning at each cell where it fits."""
    edges = [cell * size // cells for cell in range(cells + 1)]
    ranges = [slice(edges[at], edges[at + wide]) for at in range(cells - wide + 1)]
    return [(rows, columns) for rows in ranges for columns in ranges]


def _heat(drops: Floats, room: float) -> npt.NDArray[np.float32]:
    """Average, in each cell, the drops of all squares that covered it."""
    total, times = np.zeros((_CELLS, _CELLS)), np.zeros((_CELLS, _CELLS))
    places = _CELLS - _HIDDEN + 1
    for number, drop in enumerate(drops):
        row, column = divmod(number, places)
        square = (slice(row, row + _HIDDEN), slice(column, column + _HIDDEN))
        total[square] += max(float(drop), 0.0)
        times[square] += 1.0
    return np.asarray(total / times / max(room, _LEAST), dtype=np.float32)


def _shares(drops: Floats) -> Floats:
    """Return the positive drops as shares; equal ones when nothing lowers the probability."""
    positive = np.maximum(drops, 0.0)
    if positive.sum() <= 0.0:
        return np.full(len(drops), 1.0 / len(drops))
    return np.asarray(positive / positive.sum(), dtype=np.float64)
