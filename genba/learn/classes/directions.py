"""Where samples lie: few numbers instead of many features, for neighbours, novelty and noise."""

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.learn.classes.heads import moments

Floats = npt.NDArray[np.float32]


def directions(x: Floats, most: int) -> dict[str, Array]:
    """Return the map to the directions in which samples differ most, scaled to lengths near 1."""
    mean, scale = moments(x)
    scaled = (x - mean) / scale
    _, vectors = np.linalg.eigh((scaled.T @ scaled).astype(np.float64) / len(x))
    main = vectors[:, ::-1][:, :most]
    largest = np.abs(main).argmax(axis=0)
    main = main * np.sign(main[largest, np.arange(main.shape[1])])  # a sign of its own for each
    made = main / scale[:, None] / np.sqrt(x.shape[1])
    return {
        "embed.map": np.ascontiguousarray(made, dtype=np.float32),
        "embed.offset": (-mean @ made).astype(np.float32),
    }
