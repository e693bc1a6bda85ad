"""What watching compares new samples with: a few plain looks, and how sure the model is of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Columns, JsonObject, Predict, View
from genba.core.task import Samples
from genba.learn.drift import null_quantile, reference

FALSE_ALARM_RATE: Final = 0.001
_WINDOW: Final = 500  # predictions
_SMALLEST: Final = 50  # predictions, below which a window says nothing
_FEWEST_WINDOWS: Final = 5  # that the reference samples should hold
_BLOCK_MS: Final = 3_600_000  # with a clock, what happens within an hour belongs together

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What of a kind of sample is watched."""

    looks: tuple[str, ...]  # names, in the order of the output `look`
    samples: Callable[[Columns, JsonObject], Samples]  # turns rows into what a package takes
    most: int  # samples that are predicted for the reference
    block: int  # samples that belong together where there is no clock


def drift_reference(
    predict: Predict, view: View, settings: JsonObject, watched: Watched
) -> dict[str, Any]:
    """Return the reference of the looks and of the score: JSON.

    Calibration samples, because on those it was trained on a model is surer than it will be;
    training samples where there are none.

    Returns:
        {"window": predictions, "false_alarm_rate": of one check, "columns": {name: {"tensor",
        "index", "kind", "edges", "p", "null_q", "missing"}}}
    """
    split = "calibrate" if view.count("calibrate") else "train"
    looks, score, time = _values(predict, view, split, settings, watched)
    window = max(_SMALLEST, min(_WINDOW, len(time) // _FEWEST_WINDOWS))
    block = _BLOCK_MS if view.has_clock else watched.block
    columns = {
        name: ("look", index, "input", looks[:, index]) for index, name in enumerate(watched.looks)
    }
    columns["score"] = ("score", 0, "output", score)
    return {
        "window": window,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "columns": {
            name: {
                "tensor": tensor,
                "index": index,
                "kind": kind,
                **reference(values),
                "null_q": null_quantile(values, time, window, FALSE_ALARM_RATE, block=block),
                "missing": 0.0,
            }
            for name, (tensor, index, kind, values) in columns.items()
        },
    }


def _values(
    predict: Predict, view: View, split: str, settings: JsonObject, watched: Watched
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    stride = -(-view.count(split) // watched.most) or 1
    looks, scores = [np.zeros((0, len(watched.looks)))], [np.zeros(0)]
    time, start = [np.zeros(0, dtype=np.int64)], 0
    for chunk in view.chunks(split):
        at = np.arange(-start % stride, len(chunk["row"]), stride)
        start += len(chunk["row"])
        if not len(at):
            continue
        samples = watched.samples({name: column[at] for name, column in chunk.items()}, settings)
        found = predict(samples.tensors)
        looks.append(np.asarray(found["look"], dtype=np.float64))
        scores.append(np.asarray(found["score"], dtype=np.float64))
        # Without a clock, neighbours are neighbours in the order of the rows that were taken.
        place = np.arange(len(at)) + sum(map(len, time))
        time.append(samples.time if view.has_clock else place.astype(np.int64))
    return np.concatenate(looks), np.concatenate(scores), np.concatenate(time)
