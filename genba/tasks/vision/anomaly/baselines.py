"""Well-known methods on raw pixels, thresholded by the same rule, for the report."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors, View
from genba.core.task import Scores
from genba.learn.threads import one_thread
from genba.tasks.vision.anomaly import gallery, schema
from genba.tasks.vision.anomaly.calibrate import choose
from genba.tasks.vision.anomaly.score import SIMULATED, score

Floats = npt.NDArray[np.float64]

_SIDE: Final = 32  # pixels, to which an image is averaged
_COMPONENTS: Final = 32
_MOST_IMAGES: Final = 1_000
_KEPT: Final = ("auroc", "overkill", "recall", "recall_at_overkill_1")


class Pixels:
    """A score of small images, as a predict function.

    Args:
        unusual: Small images [n, numbers] -> how unusual each is.
        size: Working size.
    """

    def __init__(self, unusual: Callable[[Floats], Floats], size: int) -> None:
        self._unusual, self._size, self.threshold = unusual, size, 1.0

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        """Return score and alarm; the map is empty, it knows no places."""
        images = np.asarray(tensors["image"])
        scores = self._unusual(small(images)) / self.threshold
        side = self._size // schema.CELL
        return {
            "score": scores,
            "alarm": scores > 1.0,
            "map": np.zeros((len(images), side, side), dtype=np.float32),
        }


def baselines(view: View, settings: JsonObject) -> Mapping[str, Scores]:
    """Measure the nearest good image and principal components, both on raw pixels."""
    with one_thread():
        found, size = gallery.survey(view), int(settings["size"])
        good = _read(view, "train", found.good, settings)
        held = _read(view, "calibrate", found.calibration, settings)
        methods = {
            "nearest good image (pixels)": nearest(good),
            "principal components (pixels)": components(good),
        }
        return {name: _measured(u, size, held, view, settings) for name, u in methods.items()}


def nearest(good: Floats) -> Callable[[Floats], Floats]:
    """Return the distance to the nearest good image."""
    length = (good**2).sum(axis=1)

    def unusual(x: Floats) -> Floats:
        squares = (x**2).sum(axis=1) + (length - 2.0 * x @ good.T).min(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)) + 1e-9)

    return unusual


def components(good: Floats) -> Callable[[Floats], Floats]:
    """Return the error of a reconstruction from principal components."""
    mean = good.mean(axis=0)
    directions = np.linalg.svd(good - mean, full_matrices=False)[2]
    kept = directions[: min(_COMPONENTS, max(1, len(good) // 4))]

    def unusual(x: Floats) -> Floats:
        away = x - mean
        left = away - away @ kept.T @ kept
        return np.asarray(np.sqrt((left**2).sum(axis=1)) + 1e-9)

    return unusual


def small(images: Array) -> Floats:
    """Return images averaged to 32 x 32 pixels, as rows."""
    count, size = images.shape[:2]
    side = size // _SIDE
    blocks = images.reshape(count, _SIDE, side, _SIDE, side, 3).astype(np.float64)
    return np.asarray(blocks.mean(axis=(2, 4)).reshape(count, -1) / 255.0)


def _measured(
    unusual: Callable[[Floats], Floats],
    size: int,
    held: Floats,
    view: View,
    settings: JsonObject,
) -> Scores:
    method = Pixels(unusual, size)
    if len(held):
        rate = float(settings["overkill"]["value"])
        method.threshold = choose(unusual(held), np.zeros(0), rate).value
    made = score(method, view, "test", settings).measures
    wanted = (*_KEPT, *(f"{SIMULATED}{name}" for name in _KEPT))
    return Scores(measures={name: made[name] for name in wanted if name in made})


def _read(view: View, split: str, rows: npt.NDArray[np.int64], settings: JsonObject) -> Floats:
    parts = [small(i) for i in gallery.read(view, split, rows, _MOST_IMAGES, settings)]
    return np.concatenate([np.zeros((0, 3 * _SIDE * _SIDE)), *parts])
