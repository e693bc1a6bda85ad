"""The model as arrays, and what they compute: the reference of every exported form.

    image -> feature maps of a frozen backbone -> one vector per patch (patches.py)
          -> how far it is from good ones -> map -> how unusual that is at its place
          -> score = mean of the highest cells / threshold

Two heads say how far: "gaussian" is the Mahalanobis distance to the Gaussian of the patch's place
(PaDiM), "nearest" the distance to the nearest vector of a coreset (PatchCore). The backbone runs
in ONNX Runtime in every form; everything behind it is numpy here and plain operators in the graph.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.task import Model
from genba.learn.backbone import Backbone, load
from genba.tasks.vision.anomaly import patches, schema

Floats = npt.NDArray[np.float32]
Arrays = Mapping[str, Array]

GREY: Final = (0.299, 0.587, 0.114)
BLOCKS: Final = 4  # each way, whose brightness is compared for `unevenness`
OFFSET: Final = 5.0  # of a levelled map; what lies so many deviations below the mean is 0
_BLOCK_NUMBERS: Final = 1 << 23  # distances held at a time


class Detector:
    """A model ready to predict.

    Args:
        model: Its `settings` and `arrays` come from `fit`.

    Raises:
        Problem: As for `load_as_trained`.
    """

    def __init__(self, model: Model) -> None:
        self.settings, self.arrays = model.settings, model.arrays
        self.backbone = load_as_trained(model.settings)

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return every output of the signature."""
        images = np.asarray(tensors["image"], dtype=np.uint8)
        taps = self.backbone.features(images, self.settings["taps"])
        vectors = patches.vectors(taps, self.arrays, self.settings["taps"])
        limit = np.float32(self.settings["limit"])
        chart = chart_of(distances(vectors, self.settings, self.arrays), self.arrays) / limit
        score = pooled(chart, self.settings)
        return {
            "score": score,
            "alarm": score > np.asarray(tensors["threshold"], dtype=np.float32),
            "map": chart,
            "mask": chart > np.float32(self.settings["pixel_threshold"]),
            "embedding": embedding(vectors, self.arrays),
            "look": look(images),
        }


def load_as_trained(settings: JsonObject) -> Backbone:
    """Return the backbone of a model.

    Raises:
        Problem: G912 when its weights are not those the model was trained with, and as for
            `genba.learn.backbone.load`.
    """
    return load(str(settings["backbone"]), version=str(settings["backbone_version"]))


def distances(vectors: Floats, settings: JsonObject, arrays: Arrays) -> Floats:
    """Return how far every patch is from good ones [images, places]."""
    return (_gaussian if settings["head"] == "gaussian" else _nearest)(vectors, arrays)


def _gaussian(vectors: Floats, arrays: Arrays) -> Floats:
    away = (vectors - arrays["mean"]).transpose(1, 0, 2)
    white = away @ arrays["whiten"].transpose(0, 2, 1)
    squares = np.einsum("pnd,pnd->np", white, white) / np.float32(vectors.shape[2])
    return np.asarray(np.sqrt(squares), dtype=np.float32)


def _nearest(vectors: Floats, arrays: Arrays) -> Floats:
    bank = arrays["bank"]
    images, places, dims = vectors.shape
    length = np.einsum("kd,kd->k", bank, bank)
    flat = (vectors - arrays["mean"]).reshape(-1, dims)
    squares = np.empty(len(flat), dtype=np.float32)
    step = max(1, _BLOCK_NUMBERS // len(bank))
    for start in range(0, len(flat), step):
        part = flat[start : start + step]
        least = (length - 2.0 * (part @ bank.T)).min(axis=1)
        squares[start : start + step] = least + np.einsum("nd,nd->n", part, part)
    found = np.sqrt(np.maximum(squares, 0.0) / np.float32(dims))
    return np.asarray(found.reshape(images, places), dtype=np.float32)


def chart_of(found: Floats, arrays: Arrays) -> Floats:
    """Return distances as a smoothed map, levelled [images, cells, cells]."""
    return levelled(smoothed(found, arrays), arrays)


def levelled(chart: Floats, arrays: Arrays) -> Floats:
    """Return a map in standard deviations of good parts at each place, from `OFFSET` on.

    Good parts are farther from each other at edges and where they are printed on than on a plain
    surface, and so is every image at its border: there it takes more to be unusual.
    """
    away = (chart - arrays["level.mean"]) * arrays["level.gain"] + np.float32(OFFSET)
    return np.asarray(np.maximum(away, 0.0), dtype=np.float32)


def smoothed(found: Floats, arrays: Arrays) -> Floats:
    """Return distances as a smoothed map [images, cells, cells]."""
    matrix = np.asarray(arrays["spread"])
    grid = matrix.shape[1]
    shaped = found.reshape(len(found), grid, grid)
    return np.asarray(np.matmul(np.matmul(matrix, shaped), matrix.T), dtype=np.float32)


def pooled(chart: Floats, settings: JsonObject) -> Floats:
    """Return the mean of the highest cells of each map."""
    flat = chart.reshape(len(chart), -1)
    highest = highest_cells(flat.shape[1], settings)
    return np.asarray(np.partition(flat, -highest, axis=1)[:, -highest:].mean(axis=1))


def highest_cells(cells: int, settings: JsonObject) -> int:
    """Return how many cells of the map the score is the mean of."""
    return max(1, round(float(settings["top"]) * cells))


def embedding(vectors: Floats, arrays: Arrays) -> Floats:
    """Return what the whole image looks like [images, 64]."""
    whole = vectors.mean(axis=1) - arrays["embed.mean"]
    return np.asarray(whole @ arrays["embed.map"], dtype=np.float32)


def look(images: npt.NDArray[np.uint8]) -> Floats:
    """Return the plain statistics of `schema.LOOKS`, in units of the largest pixel value."""
    pixels = images.astype(np.float32) / np.float32(255.0)
    grey = pixels @ np.array(GREY, dtype=np.float32)
    mean = grey.mean(axis=(1, 2))
    side = grey.shape[1] // BLOCKS
    blocks = grey.reshape(len(grey), BLOCKS, side, BLOCKS, side).mean(axis=(2, 4))
    found = {
        "brightness": mean,
        "contrast": np.sqrt(((grey - mean[:, None, None]) ** 2).mean(axis=(1, 2))),
        "sharpness": np.abs(grey[:, 1:] - grey[:, :-1]).mean(axis=(1, 2))
        + np.abs(grey[:, :, 1:] - grey[:, :, :-1]).mean(axis=(1, 2)),
        "saturation": (pixels.max(axis=3) - pixels.min(axis=3)).mean(axis=(1, 2)),
        "warmth": (pixels[..., 0] - pixels[..., 2]).mean(axis=(1, 2)),
        "unevenness": np.sqrt(((blocks - mean[:, None, None]) ** 2).mean(axis=(1, 2))),
    }
    return np.stack([found[name] for name in schema.LOOKS], axis=1).astype(np.float32)
