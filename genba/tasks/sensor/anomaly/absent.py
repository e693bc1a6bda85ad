"""A sensor that is not there: its reading is guessed from the others, and less is concluded.

Without this a model that lacks one sensor either judges nothing or raises an alarm nearly always:
on the shuttle set 66 to 86 % of the normal rows, for six of the nine sensors. Now the missing
reading of now becomes what the other sensors make likely (a closed-form ridge, trained on the
same rows), and the statistic is divided by how much wider it was, on the calibration rows, with
that sensor blanked. So the budget of false alarms holds, and what is lost is what can be seen:
`worst_without_one_sensor` says how much. With every sensor there, nothing changes at all.

The output of a regression is never guessed, nor guessed from: it would explain itself.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject
from genba.learn import linear

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Arrays = Mapping[str, Array]

KNOTS: Final = 8
_PENALTY: Final = 1e-4
#: A sensor that is missing makes alarms at most so many times less sensitive; beyond that there
#: is nothing left to see, and a larger number says no more.
_WIDEST: Final = 1e3


def guessed(settings: JsonObject) -> list[int]:
    """Return the places of the sensors that may be guessed, and guessed from."""
    sensors = list(settings["sensors"])
    if settings["mode"] == "regression":
        return [i for i, name in enumerate(sensors) if name not in settings["outputs"]]
    return list(range(len(sensors)))


def train(now: Floats, usual: Array, settings: JsonObject) -> dict[str, Array]:
    """Learn what each sensor reads, given the others.

    Args:
        now: Complete rows [N, S].
        usual: What stands for a missing reading among the others [S].
        settings: With `sensors`, `outputs` and `mode`.

    Returns:
        Arrays of the model, names beginning with `guess.`; {} where there is nothing to guess from.
    """
    at = guessed(settings)
    if len(at) < 2:
        return {}
    center, scale = np.asarray(usual, dtype=np.float64)[at], now[:, at].std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    u = (now[:, at] - center) / scale
    hinges = linear.make_hinges(u, KNOTS)
    gram, moment = linear.normal_equations(hinges, u, u)
    source = hinges.sources(len(at))
    allowed = source[:, None] != np.arange(len(at))
    return {
        "guess.at": np.array(at, dtype=np.int64),
        "guess.center": center,
        "guess.scale": scale,
        "guess.lowest": u.min(axis=0),
        "guess.highest": u.max(axis=0),
        "guess.weights": linear.solve(gram, moment, _PENALTY, allowed),
        "guess.source": hinges.source,
        "guess.knot": hinges.knot,
    }


def guess(arrays: Arrays, now: npt.NDArray[np.float32]) -> Floats:
    """Return what each sensor is likely to read [N, S], given rows with usual readings for gaps."""
    at, made = arrays["guess.at"], now.astype(np.float64)
    lowest, highest = arrays["guess.lowest"], arrays["guess.highest"]
    u = np.clip((made[:, at] - arrays["guess.center"]) / arrays["guess.scale"], lowest, highest)
    hinges = linear.Hinges(source=arrays["guess.source"], knot=arrays["guess.knot"])
    found = np.clip(linear.apply(hinges, arrays["guess.weights"], u), lowest, highest)
    made[:, at] = found * arrays["guess.scale"] + arrays["guess.center"]
    return made


def wide(arrays: Arrays, valid_now: Bools) -> Floats:
    """Return by how much the statistic is wider than usual [N], given which readings are there."""
    missing = ~valid_now[:, arrays["guess.at"]]
    return np.asarray(1.0 + missing @ arrays["guess.extra"], dtype=np.float64)


def widths(full: float, alone: Floats, together: Mapping[tuple[int, ...], float]) -> Floats:
    """Return how much each missing sensor adds to the width, from thresholds.

    Args:
        full: The threshold with every sensor.
        alone: The threshold without each sensor [S].
        together: The threshold without several at once, by their places.

    Example:
        >>> widths(1.0, np.array([2.0, 1.5]), {(0, 1): 4.0}).tolist()
        [2.0, 1.0]
    """
    added = np.clip(alone / max(full, 1e-12) - 1.0, 0.0, _WIDEST)
    for places, threshold in together.items():
        members = list(places)
        wanted, have = threshold / max(full, 1e-12) - 1.0, float(added[members].sum())
        if wanted > have:  # they stand in for each other, so that both missing is worse
            share = added[members] / have if have > 0.0 else np.full(len(members), 1 / len(members))
            added[members] = np.minimum(share * wanted, _WIDEST)
    return added


def told(settings: JsonObject, added: Floats) -> dict[str, Any]:
    """Return, for the settings of a package, what it answers without and how much wider."""
    sensors = list(settings["sensors"])
    return {
        sensors[place]: {"sensors": [sensors[place]], "wide": float(1.0 + value)}
        for place, value in zip(guessed(settings), added, strict=True)
    }
