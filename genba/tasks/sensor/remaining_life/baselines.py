"""What is known without a model of wear: the age of a unit, and its newest readings.

And what maintenance costs without any prediction: running every unit to failure, and stopping
every unit at the age that was cheapest on the units trained on.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors, View
from genba.core.task import Samples, Scores
from genba.learn import linear
from genba.learn.threads import one_thread
from genba.tasks.sensor.remaining_life import schema
from genba.tasks.sensor.remaining_life.calibrate import Seen
from genba.tasks.sensor.remaining_life.lives import Lives, capped
from genba.tasks.sensor.remaining_life.policy import Prices, choose_age, choose_alarm
from genba.tasks.sensor.remaining_life.score import score

Floats = npt.NDArray[np.float64]

_KEPT: Final = ("rmse", "rmse_raw", "mae", "phm08", "cost_per_unit", "missed_failures", "lost_life")
_COSTS: Final = ("cost_per_unit", "missed_failures", "lost_life")
_PENALTY: Final = 1e-3
_NEVER: Final = 1e12


def baselines(view: View, settings: JsonObject) -> Mapping[str, Scores]:
    """Measure methods that need no window on the test split."""
    with one_thread():
        lives = Lives.of(view, settings)
        ends = _ends(view, settings, lives)
        if not len(ends):
            return {}
        prices = Prices.of(settings)
        age = choose_age(ends, prices)
        methods: dict[str, Any] = {
            "age only": _ByAge(ends, float(settings["cap"])),
            "linear on the newest readings": _Linear(view, settings, lives),
        }
        for method in methods.values():
            method.alarm_at = alarm_point(method, view, settings, lives)
        found = {name: _kept(m, view, settings, _KEPT) for name, m in methods.items()}
        found["run to failure"] = _kept(_StopAt(_NEVER), view, settings, _COSTS)
        found[f"stop at age {age:.0f}"] = _kept(_StopAt(age), view, _now(settings), _COSTS)
    return found


class _ByAge:
    """The mean remaining life of units that reached an age."""

    def __init__(self, ends: Floats, cap: float) -> None:
        self.alarm_at = 0.0
        ages = np.arange(0.0, ends.max() + 1.0)
        left = [np.maximum(ends[ends >= age] - age, 0.0) for age in ages]
        self._mean = np.array([(np.minimum(x, cap) if cap else x).mean() for x in left])

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        age = np.nan_to_num(np.asarray(tensors["age"], dtype=np.float64))
        at = np.clip(age.round().astype(np.int64), 0, len(self._mean) - 1)
        return _answer(self._mean[at], self.alarm_at)


class _Linear:
    """Ridge regression on the newest reading of each sensor."""

    def __init__(self, view: View, settings: JsonObject, lives: Lives) -> None:
        self.alarm_at = 0.0
        parts = [
            (_newest(some), target) for some, target in known_rows(view, "train", settings, lives)
        ]
        x = np.concatenate([x for x, _ in parts])
        target = np.concatenate([t for _, t in parts])
        self._usual = np.nan_to_num(np.nanmedian(np.where(np.isfinite(x), x, np.nan), axis=0))
        x = self._filled(x)
        self._center, self._scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
        self._top = float(target.max())
        u = (x - self._center) / self._scale
        self._hinges = linear.make_hinges(u, 0)
        gram, moment = linear.normal_equations(self._hinges, u, target[:, None])
        allowed = np.ones((len(gram), 1), dtype=bool)
        self._weights = linear.solve(gram, moment, _PENALTY, allowed)

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        newest = np.asarray(tensors["window"], dtype=np.float64)[:, -1]
        u = (self._filled(newest) - self._center) / self._scale
        made = linear.apply(self._hinges, self._weights, u)[:, 0]
        return _answer(np.clip(made, 0.0, self._top), self.alarm_at)

    def _filled(self, x: Floats) -> Floats:
        return np.where(np.isfinite(x), x, self._usual)


class _StopAt:
    """Alarm at an age, whatever is measured."""

    def __init__(self, age: float) -> None:
        self.age = age

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        age = np.nan_to_num(np.asarray(tensors["age"], dtype=np.float64))
        made = _answer(np.zeros(len(age)), 0.0)
        return {**made, "alarm": age >= self.age}


def _answer(expected: Floats, alarm_at: float) -> dict[str, Array]:
    return {
        "expected": expected,
        "low": expected,
        "high": expected,
        "score": alarm_at / np.maximum(expected, 0.1),
        "alarm": expected < alarm_at,
    }


def _kept(method: Any, view: View, settings: JsonObject, names: tuple[str, ...]) -> Scores:
    made = score(method, view, "test", settings)
    return Scores(measures={n: m for n, m in made.measures.items() if n in names})


def _now(settings: JsonObject) -> dict[str, Any]:
    """Return settings in which an alarm stops the unit at once: a planned age needs no warning."""
    return {**settings, "lead": 0}


def alarm_point(method: Any, view: View, settings: JsonObject, lives: Lives) -> float:
    """Choose the alarm point of a method by the rule every model of this task is calibrated by."""
    parts: list[Seen] = []
    for split in ("train", "calibrate"):
        for some, target in known_rows(view, split, settings, lives):
            parts.append(
                Seen(
                    expected=method(some.tensors)["expected"],
                    target=target,
                    left=some.truth[:, 0],
                    unit=some.entity.astype(np.int64),
                    age=lives.age(int(some.entity[0]), some.time),
                )
            )
    runs = [run for seen in parts for run in seen.runs()]
    top = max(float(seen.target.max()) for seen in parts)
    return choose_alarm(runs, Prices.of(settings), top) if runs else 0.0


def known_rows(
    view: View, split: str, settings: JsonObject, lives: Lives
) -> Iterator[tuple[Samples, Floats]]:
    """Yield the samples of a split whose capped life is known, unit by unit, with that life."""
    for samples in schema.read(view, split, settings, lives):
        unit = int(samples.entity[0])
        target = capped(
            samples.truth[:, 0], lives.at_least(unit, samples.time), float(settings["cap"])
        )
        keep = np.isfinite(target)
        if keep.any():
            yield schema.part(samples, keep), target[keep]


def _newest(samples: Samples) -> Floats:
    return np.asarray(samples.tensors["window"], dtype=np.float64)[:, -1]


def _ends(view: View, settings: JsonObject, lives: Lives) -> Floats:
    """Return the ages at which the units ended that a line may learn from."""
    found: dict[int, float] = {}
    for split in ("train", "calibrate"):
        for chunk in view.chunks(split):
            unit = int(chunk["entity"][0]) if len(chunk["entity"]) else -1
            if unit >= 0 and np.isfinite(lives.end[unit]):
                found[unit] = float(lives.age(unit, lives.end[unit : unit + 1])[0])
    del settings
    return np.array(sorted(found.values()))
