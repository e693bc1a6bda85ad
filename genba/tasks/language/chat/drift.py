"""What watching compares new conversations with: how long they are and how sure the model is."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, View
from genba.learn.drift import null_quantile, reference
from genba.tasks.language.chat import schema

FALSE_ALARM_RATE: Final = 0.001
_WINDOW: Final = 500  # predictions
_SMALLEST: Final = 50  # predictions, below which a window says nothing
_FEWEST_WINDOWS: Final = 3  # that the reference questions should hold
_MOST: Final = 128  # questions that are answered for it
_BLOCK: Final = 16  # questions that belong together where there is no clock
_BLOCK_MS: Final = 3_600_000

#: Name of a column of the reference -> tensor, place in it, whether it is given or answered.
COLUMNS: Final = {
    "prompt_tokens": ("tokens", 0, "input"),
    "answer_tokens": ("tokens", 1, "output"),
    "log_probability": ("log_probability", 0, "output"),
}


def drift_reference(predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
    """Return the reference of lengths and of confidence, as answers are written in service: JSON.

    Questions for calibration, because of those it was trained on a model is surer than it will
    be; training questions where there are none.
    """
    split = "calibrate" if view.count("calibrate") else "train"
    values, time = _values(predict, view, split, settings)
    window = max(_SMALLEST, min(_WINDOW, len(time) // _FEWEST_WINDOWS))
    block = _BLOCK_MS if view.has_clock else _BLOCK
    return {
        "window": window,
        "false_alarm_rate": FALSE_ALARM_RATE,
        "columns": {
            name: {
                "tensor": tensor,
                "index": index,
                "kind": kind,
                **reference(values[name]),
                "null_q": null_quantile(values[name], time, window, FALSE_ALARM_RATE, block=block),
                "missing": 0.0,
            }
            for name, (tensor, index, kind) in COLUMNS.items()
        },
    }


def _values(
    predict: Predict, view: View, split: str, settings: JsonObject
) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    stride = -(-view.count(split) // _MOST) or 1
    parts: list[dict[str, npt.NDArray[np.float64]]] = []
    time: list[npt.NDArray[np.int64]] = []
    start = 0
    for chunk in view.chunks(split):
        at = np.arange(-start % stride, len(chunk["row"]), stride)
        start += len(chunk["row"])
        if not len(at):
            continue
        samples = schema.samples({name: column[at] for name, column in chunk.items()}, settings)
        made = predict(schema.unanswered(samples.tensors))
        flat = {t: np.asarray(made[t], dtype=np.float64).reshape(len(at), -1) for t in made_of()}
        parts.append({name: flat[tensor][:, index] for name, (tensor, index, _) in COLUMNS.items()})
        place = np.arange(len(at)) + sum(map(len, time))
        time.append(samples.time if view.has_clock else place.astype(np.int64))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    return whole, np.concatenate(time)


def made_of() -> frozenset[str]:
    """Return the tensors that the reference is made of."""
    return frozenset(tensor for tensor, _, _ in COLUMNS.values())
