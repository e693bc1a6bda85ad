"""Why a life is predicted to be short: sensors are set to what a healthy unit reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Predict, Tensors
from genba.core.task import Attribution, Explanation
from genba.tasks.sensor.remaining_life.features import expected, plausible

Floats = npt.NDArray[np.float64]


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
    """Say which sensors shorten one predicted life (a batch of one), by level or by trend.

    Each sensor is first flattened to its own mean deviation over the window: by how much the
    predicted life rises then is the share of its trend. Then it is set to what a healthy unit
    reads in the same operating conditions: that rise is the share of its level. The age counts by
    setting it to the usual age of the units trained on. Nothing but predictions is asked of the
    model, so every form of it can be explained.
    """
    window = np.asarray(tensors["window"], dtype=np.float32)[:1]
    usual, scale = (found[0] for found in usual_of(window, settings))
    at = [list(settings["sensors"]).index(s) for s in settings["used"]]
    changed, ages = _variants(window, tensors, settings, usual, scale)
    count = len(changed)
    given = {
        **{n: np.repeat(np.asarray(t)[:1], count, axis=0) for n, t in tensors.items()},
        "window": changed,
        "age": ages,
    }
    life = np.asarray(predict(given)["expected"], dtype=np.float64)
    now, flat, healthy, young = life[0], life[1 : 1 + len(at)], life[1 + len(at) : -1], life[-1]
    shares = _shares(np.concatenate([healthy - flat, flat - now, [young - now]]))
    found: list[Attribution] = []
    for place, name in enumerate(settings["used"]):
        reading, normal = float(window[0, -1, at[place]]), float(usual[-1, place])
        found.append(_named(f"{name} level", shares[place], reading, normal))
        moved = _change(window[0, :, at[place]] - usual[:, place])
        found.append(_named(f"{name} trend", shares[len(at) + place], moved, 0.0))
    age = float(np.asarray(tensors["age"], dtype=np.float64)[0])
    found.append(_named("age", shares[-1], age, float(settings["usual"]["age"])))
    kept = [a for a in found if a.share > 0.0]
    return Explanation(attributions=tuple(sorted(kept, key=lambda a: -a.share)))


def usual_of(window: npt.NDArray[np.float32], settings: JsonObject) -> tuple[Floats, Floats]:
    """Return what a healthy unit reads at each used sensor, and its spread, both [N, L, S]."""
    known: Mapping[str, Any] = settings["usual"]
    arrays: dict[str, Array] = {
        "usual": np.array(known["readings"]),
        "scale": np.array(known["spread"]),
        "centers": np.array(known["centers"]),
        "slopes": np.array(known["slopes"]),
        "condition_middle": np.array(known["condition_middle"]),
        "condition_spread": np.array(known["condition_spread"]),
    }
    usual, scale = expected(window, plausible(window, settings), settings, arrays)
    shape = (*window.shape[:2], len(settings["used"]))
    return np.broadcast_to(usual, shape), np.broadcast_to(scale, shape)


def _variants(
    window: npt.NDArray[np.float32],
    tensors: Tensors,
    settings: JsonObject,
    usual: Floats,
    scale: Floats,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the window as it is, with each sensor flat, with each healthy, and at another age."""
    at = [list(settings["sensors"]).index(s) for s in settings["used"]]
    there = plausible(window, settings)[0]
    changed = np.repeat(window, 2 + 2 * len(at), axis=0)
    for place, sensor in enumerate(at):
        rows = there[:, sensor]
        z = (window[0, rows, sensor] - usual[rows, place]) / scale[rows, place]
        level = float(z.mean()) if len(z) else 0.0
        changed[1 + place, rows, sensor] = usual[rows, place] + level * scale[rows, place]
        changed[1 + len(at) + place, rows, sensor] = usual[rows, place]
    ages = np.repeat(np.asarray(tensors["age"], dtype=np.float32)[:1], len(changed))
    ages[-1] = settings["usual"]["age"]
    return changed, ages


def _change(deviation: Floats) -> float:
    """Return by how much a reading has moved over the window, conditions left aside."""
    known = deviation[np.isfinite(deviation)]
    third = max(1, len(known) // 3)
    return float(known[-third:].mean() - known[:third].mean()) if len(known) else 0.0


def _named(name: str, share: float, value: float, usual: float) -> Attribution:
    return Attribution(name=name, share=float(share), value=value, usual=usual)


def _shares(rises: Floats) -> Floats:
    """Return the positive rises as shares; equal ones when nothing shortens the life."""
    positive = np.maximum(rises, 0.0)
    if positive.sum() <= 0.0:
        return np.full(len(rises), 1.0 / len(rises))
    return np.asarray(positive / positive.sum(), dtype=np.float64)
