"""Why a part was rejected: the map, and the regions that the excess lies in."""

from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Predict, Tensors
from genba.core.task import Attribution, Explanation

Floats = npt.NDArray[np.float64]

_GRID: Final = 3
_ROWS: Final = ("top", "middle", "bottom")
_COLUMNS: Final = ("left", "centre", "right")
REGIONS: Final = tuple(f"{row} {column}" for row in _ROWS for column in _COLUMNS)


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
    """Return the map of one image, and each ninth's share of what exceeds the usual.

    A region's value is the highest point of the map in it, its usual value the mean of that over
    good parts.
    """
    chart = np.asarray(predict(tensors)["map"], dtype=np.float32)[:1]
    value = cells(chart)[0]
    usual = np.asarray(settings["usual"], dtype=np.float64)
    excess = np.maximum(value - usual, 0.0)
    weight = excess if excess.sum() > 0 else np.maximum(value, 1e-9)
    share = weight / weight.sum()
    order = np.argsort(-share, kind="stable")
    found = tuple(
        Attribution(
            name=REGIONS[i], share=float(share[i]), value=float(value[i]), usual=float(usual[i])
        )
        for i in order
    )
    return Explanation(attributions=found, heat=chart[0])


def cells(chart: Array) -> Floats:
    """Return the highest value in each ninth of every map [images, 9].

    Example:
        >>> cells(np.arange(36.0).reshape(1, 6, 6))[0].tolist()
        [7.0, 9.0, 11.0, 19.0, 21.0, 23.0, 31.0, 33.0, 35.0]
    """
    rows = np.array_split(np.asarray(chart, dtype=np.float64), _GRID, axis=1)
    parts = [part.max(axis=(1, 2)) for row in rows for part in np.array_split(row, _GRID, axis=2)]
    return np.stack(parts, axis=1)
