"""What samples look like: near each other = alike."""

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Tensors
from genba.tasks.sensor.anomaly import schema


def embed(tensors: Tensors, outputs: Tensors, settings: JsonObject) -> npt.NDArray[np.float64]:
    """Return the newest readings in units of their usual spread, and the logarithm of the score.

    A reading that is missing or implausible counts as the sensor's usual value.

    Args:
        tensors: `window`.
        outputs: `score`; left out where it is not known.
        settings: Of the package. One from before Genba kept the usual spread is taken in the
            units of its sensors.
    """
    now = np.asarray(tensors["window"], dtype=np.float64)[:, -1]
    low, high = schema.limits(settings)
    usual, spread = (
        np.array([settings.get(known, {}).get(name, other) for name in settings["sensors"]])
        for known, other in (("usual", 0.0), ("spread", 1.0))
    )
    plausible = (now >= low) & (now <= high)
    parts = [np.where(plausible, (np.where(plausible, now, 0.0) - usual) / spread, 0.0)]
    if "score" in outputs:
        score = np.asarray(outputs["score"], dtype=np.float64)
        parts.append(np.log1p(np.maximum(np.nan_to_num(score), 0.0))[:, None])
    return np.concatenate(parts, axis=1)
