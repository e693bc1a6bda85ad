"""Intervals and the alarm point, from predictions for units that the model had not seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, View
from genba.core.task import Model
from genba.learn.grouped import GroupQuantile, group_quantile
from genba.tasks.sensor.remaining_life import schema
from genba.tasks.sensor.remaining_life.features import features
from genba.tasks.sensor.remaining_life.lives import Lives, capped
from genba.tasks.sensor.remaining_life.model import predict
from genba.tasks.sensor.remaining_life.policy import (
    Prices,
    Run,
    choose_alarm,
    fates,
    first_alarms,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BINS: Final = 10  # levels of predicted life that have an error of their own
_MOST_UNITS: Final = 400  # kept to estimate what another alarm point would miss
_NARROWEST: Final = 0.01  # of the largest life, on either side of a prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Predictions for rows of units that took no part in the training."""

    expected: Floats
    target: Floats  # capped life
    left: Floats  # raw life, NaN where unknown
    unit: Ints
    age: Floats

    def runs(self) -> list[Run]:
        """Return the units that ran to failure."""
        found = []
        for unit in np.unique(self.unit):
            mine = np.flatnonzero((self.unit == unit) & np.isfinite(self.left))
            if not len(mine):
                continue
            mine = mine[np.argsort(self.age[mine], kind="stable")]
            end = float(self.age[mine[-1]] + self.left[mine[-1]])
            found.append(Run(age=self.age[mine], expected=self.expected[mine], end=end))
        return found


def spread(held_out: Seen, coverage: float, top: float) -> dict[str, Array]:
    """Return how far lives lie below and above predictions, by the level of the prediction.

    Args:
        held_out: Predictions for training rows, each by a model that had not seen the unit.
        coverage: Share of lives that should lie between the two.
        top: Largest life that is learnt.
    """
    order = np.argsort(held_out.expected, kind="stable")
    groups = [g for g in np.array_split(order, _BINS) if len(g)]
    error = held_out.target - held_out.expected
    tail = (1.0 - coverage) / 2
    at = np.array([held_out.expected[g].mean() for g in groups])
    ends = np.array([np.quantile(error[g], [tail, 1.0 - tail]) for g in groups])
    keep = [0]
    for i in range(1, len(at)):
        if at[i] - at[keep[-1]] > 0.01 * top:
            keep.append(i)
    least = _NARROWEST * top
    return {
        "spread.at": at[keep],
        "spread.below": np.maximum(-ends[keep, 0], least),
        "spread.above": np.maximum(ends[keep, 1], least),
    }


def calibrate(draft: Model, view: View, lives: Lives, held_out: Seen) -> Model:
    """Return the model with intervals that hold on the calibration units, and its alarm point.

    The widths are multiplied by what a new unit exceeds with probability 1 - coverage at most;
    once for the rows whose life is below the cap and once for the others, and the larger counts:
    a young unit is always right to have "125 or more" left, and must not pay for an old one.
    """
    settings, top = draft.settings, float(draft.arrays["top"][0])
    seen = predictions(draft, view, "calibrate", lives)
    factor, facts = _factor(seen, draft, float(settings["coverage"]), top)
    arrays = {
        **draft.arrays,
        "spread.below": np.asarray(draft.arrays["spread.below"]) * factor,
        "spread.above": np.asarray(draft.arrays["spread.above"]) * factor,
    }
    runs = [*held_out.runs(), *seen.runs()]
    prices = Prices.of(settings)
    at = float(np.float32(choose_alarm(runs, prices, top)))
    return Model(
        candidate=draft.candidate,
        settings={
            **settings,
            "alarm_at": at,
            "interval": {"coverage": settings["coverage"], "factor": factor, **facts},
            "alarm": _alarm_facts(runs, at, prices),
            "calibration": {
                "parameter": "alarm_at",
                "measure": "missed_failures",
                "quantiles": in_time(runs, prices.lead, top),
                "units": len(runs),
            },
        },
        arrays=arrays,
        trials=draft.trials,
    )


def predictions(draft: Model, view: View, split: str, lives: Lives) -> Seen:
    """Predict the rows of a split whose life is known, or known to be longer than the cap."""
    parts: list[Seen] = []
    for samples in schema.read(view, split, draft.settings, lives):
        unit = int(samples.entity[0])
        target = capped(
            samples.truth[:, 0], lives.at_least(unit, samples.time), float(draft.settings["cap"])
        )
        keep = np.isfinite(target)
        if not keep.any():
            continue
        some = schema.part(samples, keep)
        x = features(some.tensors, draft.settings, draft.arrays).astype(np.float32)
        parts.append(
            Seen(
                expected=predict(draft.settings, draft.arrays, x),
                target=target[keep],
                left=some.truth[:, 0],
                unit=some.entity.astype(np.int64),
                age=lives.age(unit, some.time),
            )
        )
    return _joined(parts)


def _joined(parts: Sequence[Seen]) -> Seen:
    nothing = np.zeros(0)
    return Seen(
        **{
            name: np.concatenate([nothing, *(getattr(p, name) for p in parts)])
            for name in ("expected", "target", "left", "age")
        },
        unit=np.concatenate([np.zeros(0, dtype=np.int64), *(p.unit for p in parts)]),
    )


def _factor(seen: Seen, draft: Model, coverage: float, top: float) -> tuple[float, dict[str, Any]]:
    arrays = draft.arrays
    below = np.interp(seen.expected, arrays["spread.at"], arrays["spread.below"])
    above = np.interp(seen.expected, arrays["spread.at"], arrays["spread.above"])
    error = seen.target - seen.expected
    score = np.maximum(-error / below, error / above)
    wearing = seen.target < top
    found = [
        group_quantile(score[rows], seen.unit[rows], coverage)
        for rows in (wearing, ~wearing)
        if rows.any()
    ]
    found = found or [GroupQuantile(value=1.0, groups=0, guaranteed=False)]
    return max(q.value for q in found), {
        "units": max(q.groups for q in found),
        "guaranteed": all(q.guaranteed for q in found),
    }


def in_time(runs: Sequence[Run], lead: float, top: float) -> list[float]:
    """Return the alarm point above which each unit would have been stopped in time, ascending.

    The share of units that lie above an alarm point is the share of failures it would have missed:
    that is what is told to whoever moves it in service.

    Example:
        >>> run = Run(age=np.arange(1.0, 4.0), expected=np.array([9.0, 7.0, 2.0]), end=4.0)
        >>> in_time([run], 1.0, 20.0)
        [7.0]
    """
    found = [float(run.expected[run.age + lead < run.end].min(initial=top)) for run in runs]
    if len(found) > _MOST_UNITS:
        found = np.quantile(found, np.linspace(0.0, 1.0, _MOST_UNITS)).tolist()
    return sorted(found)


def _alarm_facts(runs: Sequence[Run], at: float, prices: Prices) -> JsonObject:
    """Return what the alarm point was chosen on, and what it should cost."""
    end = np.array([run.end for run in runs])
    chosen = fates(first_alarms(runs, at), end, prices.lead)
    return {
        "units": len(runs),
        "cost_per_unit": chosen.per_life(prices),
        "missed": float(chosen.missed.mean()),
        "lost_life": float(chosen.lost.mean()),
    }
