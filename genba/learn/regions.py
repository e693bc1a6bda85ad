"""Regions of an image, and how well a map finds them: per-region overlap and pixel AUROC.

AUPRO is the area under the per-region overlap up to a false-positive rate of 0.3 (Bergmann et
al., "The MVTec Anomaly Detection Dataset", IJCV 2021): every connected defect counts the same,
large or small. Scores are counted in fixed bins, so that a set of any size needs little memory
and a bootstrap replicate is a weighted sum of images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.values import Measure, Method
from genba.learn.ranking import bounded, draws

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LARGEST_RATE: Final = 0.3
_BINS: Final = 800
_LOWEST, _HIGHEST = 0.02, 50.0  # scores in units of the threshold; a bin is 1 % wide
_EDGES: Final = np.geomspace(_LOWEST, _HIGHEST, _BINS - 1)


def label_regions(mask: Bools) -> Ints:
    """Number the connected regions (eight neighbours) of a mask 1, 2, ...; 0 is outside.

    Every pixel takes the smallest number among its neighbours, and then the number which that
    pixel has, until nothing changes: rows of numpy operations instead of a loop over pixels.

    Example:
        >>> corners = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
        >>> int(label_regions(corners).max())
        2
    """
    height, width = mask.shape
    outside = height * width
    number = np.where(mask.ravel(), np.arange(outside), outside)
    number = np.append(number, outside)  # where the number of "outside" leads
    while True:
        grid = np.pad(number[:-1].reshape(height, width), 1, constant_values=outside)
        shifted = [grid[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        least = np.where(mask, np.minimum.reduce(shifted), outside).ravel()
        found = np.append(least, outside)
        found = np.minimum(found, found[found])
        if np.array_equal(found, number):
            break
        number = found
    roots = np.unique(number[:-1][mask.ravel()])
    result = np.searchsorted(roots, number[:-1]) + 1
    return np.where(mask.ravel(), result, 0).reshape(height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """What one image adds: pixels and region shares per bin of the score."""

    normal: Floats  # [bins] pixels that are not defective
    defective: Floats  # [bins]
    overlap: Floats  # [bins] shares of regions, added up over the regions
    regions: int


def count_pixels(scores: npt.ArrayLike, mask: Bools) -> Counted:
    """Count one image.

    Args:
        scores: Map [h, w]; each cell stands for a block of pixels of the mask.
        mask: Where the defect is [H, W]; H and W are multiples of h and w.
    """
    values = np.asarray(scores, dtype=np.float64)
    bins = np.searchsorted(_EDGES, values.ravel(), side="right")
    regions = label_regions(mask) if mask.any() else np.zeros(mask.shape, dtype=np.int64)
    blocks = _blocks(regions, values.shape)
    outside = (blocks == 0).sum(axis=1).astype(np.float64)
    overlap = np.zeros(_BINS)
    count = int(regions.max())
    for number in range(1, count + 1):
        inside = (blocks == number).sum(axis=1).astype(np.float64)
        overlap += _histogram(bins, inside / inside.sum())
    return Counted(
        normal=_histogram(bins, outside),
        defective=_histogram(bins, blocks.shape[1] - outside),
        overlap=overlap,
        regions=count,
    )


def pixel_measures(images: list[Counted], method: Method = "measured") -> dict[str, Measure]:
    """Return `aupro` and `pixel_auroc` over images with intervals; nothing without a defect."""
    regions = np.array([float(c.regions) for c in images])
    if not regions.sum():
        return {}
    normal, defective, overlap = (
        np.stack([getattr(c, name) for c in images]) for name in ("normal", "defective", "overlap")
    )
    weights = draws(len(images))
    weights = weights[(weights @ regions) > 0]

    def measured(statistic: Callable[[Floats], Floats]) -> Measure:
        value = statistic(np.ones((1, len(images))))[0]
        return bounded(value, statistic(weights), n=len(images), method=method)

    def aupro(weight: Floats) -> Floats:
        return _aupro(_above(weight @ normal), _above(weight @ overlap))

    def pixel_auroc(weight: Floats) -> Floats:
        return _area(_above(weight @ normal), _above(weight @ defective))

    return {"aupro": measured(aupro), "pixel_auroc": measured(pixel_auroc)}


def _blocks(regions: Ints, grid: tuple[int, ...]) -> Ints:
    """Return the pixels of each cell of the grid as rows."""
    high, wide = regions.shape[0] // grid[0], regions.shape[1] // grid[1]
    cells = regions.reshape(grid[0], high, grid[1], wide).transpose(0, 2, 1, 3)
    return cells.reshape(grid[0] * grid[1], high * wide)


def _histogram(bins: Ints, weights: Floats) -> Floats:
    return np.bincount(bins, weights, minlength=_BINS).astype(np.float64)


def _above(counts: Floats) -> Floats:
    """Return the share at or above each bar, from the highest bar (nothing) to the lowest (all)."""
    total = np.cumsum(counts[:, ::-1], axis=1)
    total = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
    return np.asarray(total / total[:, -1:])


def _area(x: Floats, y: Floats) -> Floats:
    return np.asarray((np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1]) / 2).sum(axis=1))


def _aupro(rate: Floats, overlap: Floats) -> Floats:
    """Integrate the overlap over the rate up to the largest rate, as a share of that rate."""
    found = np.empty(len(rate))
    for i, (x, y) in enumerate(zip(rate, overlap, strict=True)):
        end = np.interp(LARGEST_RATE, x, y)
        inside = x <= LARGEST_RATE
        xs, ys = np.append(x[inside], LARGEST_RATE), np.append(y[inside], end)
        found[i] = np.trapezoid(ys, xs) / LARGEST_RATE
    return found
