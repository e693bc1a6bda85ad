"""Whole-sensor dropout: the model is also shown each row as if one sensor had not been read.

A model that always saw every sensor takes what is masked for "as usual", and a worn unit looks
young. So every training row comes a second time with one sensor blanked over its whole window,
each sensor in turn, where that does not cost anything: held-out units with all their sensors must
be predicted as well as before, within `MARGIN`.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject
from genba.core.task import Samples
from genba.learn.absent import blanked
from genba.tasks.sensor.remaining_life.features import features

#: How much worse, as a share of its error, a model may become with all its sensors.
MARGIN: Final = 0.01


def watched(settings: JsonObject) -> list[str]:
    """Return the sensors that the model looks at, in the order of the line."""
    looked_at = {*settings["used"], *settings["regimes"]["conditions"]}
    return [sensor for sensor in settings["sensors"] if sensor in looked_at]


def blind_features(
    samples: Samples, settings: JsonObject, arrays: Mapping[str, Array]
) -> npt.NDArray[np.float32]:
    """Return the features of samples, each with one sensor missing, in turn."""
    names = watched(settings)
    turn = np.arange(len(samples.row)) % max(1, len(names))
    made: Any = None
    for place, name in enumerate(names):
        rows = np.flatnonzero(turn == place)
        if not len(rows):
            continue
        some = {n: np.asarray(t)[rows] for n, t in samples.tensors.items()}
        some = blanked(some, (name,), {"window": settings["sensors"]})
        found = features(some, settings, arrays).astype(np.float32)
        if made is None:
            made = np.zeros((len(turn), found.shape[1]), dtype=np.float32)
        made[rows] = found
    return np.asarray(made, dtype=np.float32)
