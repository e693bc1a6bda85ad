"""Training one candidate on features of given rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.learn import linear, trees
from genba.learn.search import Space

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BODIES: Final = {"ridge": "hinges", "boosting": "trees"}
#: The first value is the default of a setting.
SPACE: Final[Space] = {
    "boosting": {
        "iterations": (200, 100, 400),
        "leaves": (15, 8, 31),
        "rate": (0.05, 0.03, 0.1),
        "min_rows": (40, 100, 20),
    },
    "ridge": {"knots": (3, 0, 8), "penalty": (0.01, 0.1, 0.001)},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Rows whose life is known, or known to be longer than the cap."""

    x: npt.NDArray[np.float32]  # [N, F]
    target: Floats  # capped life
    left: Floats  # raw life, NaN where the unit merely outlived the cap
    unit: Ints
    age: Floats
    top: float  # largest life that is learnt
    blind: npt.NDArray[np.float32] | None = None  # [N, F] of the same rows, a sensor missing each


def build(trial: Mapping[str, Any], data: Training, rows: Ints) -> dict[str, Array]:
    """Train one candidate on some rows and return its arrays."""
    chosen, x, target = trial["settings"], data.x[rows], data.target[rows, None]
    if data.blind is not None:
        x, target = np.concatenate([x, data.blind[rows]]), np.concatenate([target, target])
    arrays: dict[str, Array] = {"top": np.array([data.top])}
    if BODIES[trial["candidate"]] == "trees":
        most = max(2, len(x) // 10)  # of a small set, every leaf still has a few rows
        fitting = {**chosen, "min_rows": min(int(chosen["min_rows"]), most)}
        forest = trees.grow(x, target, fitting, [np.arange(x.shape[1], dtype=np.int64)])
        return {**arrays, **forest.to_arrays()}
    wide = x.astype(np.float64)
    center = wide.mean(axis=0).astype(np.float32).astype(np.float64)
    scale = np.maximum(wide.std(axis=0), 1e-6).astype(np.float32).astype(np.float64)
    u = (wide - center) / scale
    hinges = linear.make_hinges(u, int(chosen["knots"]))
    gram, moment = linear.normal_equations(hinges, u, target)
    allowed = np.ones((len(gram), 1), dtype=bool)
    return {
        **arrays,
        "feature_center": center,
        "feature_scale": scale,
        "floor": u.min(axis=0),
        "ceiling": u.max(axis=0),
        "weights": linear.solve(gram, moment, float(chosen["penalty"]), allowed),
        **{f"hinge.{n}": getattr(hinges, n) for n in linear.Hinges.__slots__},
    }
