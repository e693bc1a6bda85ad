"""Thresholds from the calibration rows: one for every entity with enough of them, one for all."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import Array, View
from genba.core.task import Model
from genba.learn.bootstrap import DAY_MS
from genba.learn.conformal import (
    Threshold,
    episodes_per_unit,
    quantile_threshold,
    risk_threshold,
)
from genba.tasks.sensor.anomaly import absent, schema
from genba.tasks.sensor.anomaly.model import Detector

#: Episodes of one day beyond these count no more: conformal risk control needs a bounded loss.
_MOST_PER_DAY: Final = 4.0
#: The correction cap / (units + 1) may take at most so much of the budget of an entity's own
#: threshold; with fewer days the threshold of all entities together is used.
_CORRECTION: Final = 0.25
_FEWEST_ROWS: Final = 20

Scored = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def calibrate(draft: Model, view: View) -> Model:
    """Return the model with its thresholds.

    Rows labelled as anomalies are left out; unlabelled ones are all taken for normal, which errs
    on the side of fewer alarms.

    Raises:
        Problem: G503 when there are too few calibration rows.
    """
    scored = _scores(draft, view)
    if len(scored[0]) < _FEWEST_ROWS:
        raise Problem(
            "G503",
            f"There are {len(scored[0])} complete normal rows to calibrate on; at least "
            f"{_FEWEST_ROWS} are needed.",
            where="data.split.calibrate",
            tries=["raise data.split.calibrate", "genba explain G503"],
        )
    budget = draft.settings["alarm_budget"]
    pooled = threshold(scored, draft.settings)
    missing = _missing(draft, view, pooled.value)
    values, facts = [], []
    for index, name in enumerate(view.entities):
        own = _own(scored, index, draft.settings)
        used = own or pooled
        values.append(used.value)
        facts.append(_fact(name, used, "own" if own else "pooled"))
    facts.append(_fact("*", pooled, "pooled"))
    values.append(pooled.value)
    settings = {
        **draft.settings,
        **({"without": absent.told(draft.settings, missing["guess.extra"])} if missing else {}),
        "entities": list(view.entities),
        "alarm_budget": {**budget, "days_counted": _MOST_PER_DAY},
        "thresholds": facts,
        **{
            known: {n: float(v) for n, v in zip(view.sensors, draft.arrays[array], strict=True)}
            for known, array in (("usual", "usual"), ("spread", "scale"))
        },
    }
    arrays = {**draft.arrays, **missing, "thresholds": np.array(values)}
    return Model(candidate=draft.candidate, settings=settings, arrays=arrays, trials=draft.trials)


def threshold(scored: Scored, settings: Any) -> Threshold:
    """Return the threshold that keeps the false-alarm budget on scored calibration rows."""
    scores, entity, time = scored
    budget = float(settings["alarm_budget"]["value"])
    if not settings["has_clock"]:
        return quantile_threshold(scores, budget)
    loss = episodes_per_unit(
        scores, entity, time, day=DAY_MS, merge=int(settings["merge"]), cap=_MOST_PER_DAY
    )
    return risk_threshold(scores, loss, budget, _MOST_PER_DAY)


def _own(scored: Scored, index: int, settings: Any) -> Threshold | None:
    scores, entity, time = scored
    mine = entity == index
    budget = float(settings["alarm_budget"]["value"])
    if settings["has_clock"]:
        units, cap = len(np.unique(time[mine] // DAY_MS)), _MOST_PER_DAY
    else:
        units, cap = int(mine.sum()), 1.0
    if cap / (units + 1) > _CORRECTION * budget:
        return None
    return threshold((scores[mine], entity[mine], time[mine]), settings)


def _missing(draft: Model, view: View, full: float) -> dict[str, Array]:
    """Learn how much wider the statistic is without each sensor, and without each joined source."""
    if "guess.at" not in draft.arrays:
        return {}
    places = [int(place) for place in draft.arrays["guess.at"]]
    sensors = list(draft.settings["sensors"])
    alone, together = np.full(len(places), full), {}
    for members in schema.absences(draft.settings).values():
        at = tuple(sensors.index(name) for name in members)
        value = threshold(_scores(draft, view, at), draft.settings).value
        if len(at) == 1:
            alone[places.index(at[0])] = value
        else:
            together[tuple(places.index(one) for one in at)] = value
    return {"guess.extra": absent.widths(full, alone, together)}


def _scores(draft: Model, view: View, blank: tuple[int, ...] = ()) -> Scored:
    """Return how unusual the normal calibration rows are, those where every sensor was read.

    Args:
        draft: The model without thresholds.
        view: Whose rows.
        blank: Places of sensors that are taken away.
    """
    arrays = {**draft.arrays, "thresholds": np.ones(len(view.entities) + 1)}
    if blank:
        arrays["guess.extra"] = np.zeros(len(arrays["guess.at"]))
    detector = Detector(Model(candidate="", settings=draft.settings, arrays=arrays))
    low, high = schema.limits(draft.settings)
    scores, entity, time = [], [], []
    for samples in schema.read(view, "calibrate", draft.settings):
        window = np.array(samples.tensors["window"], dtype=np.float32)
        complete = ((window[:, -1] >= low) & (window[:, -1] <= high)).all(axis=1)
        if blank:
            window[:, :, list(blank)] = np.nan
        statistic, _, judged = detector.statistic(window)
        keep = judged & complete & (samples.label != 1.0)
        scores.append(statistic[keep])
        entity.append(samples.entity[keep].astype(np.int64))
        time.append(samples.time[keep])
    if not scores:
        return np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(scores), np.concatenate(entity), np.concatenate(time)


def _fact(name: str, used: Threshold, source: str) -> dict[str, Any]:
    return {
        "entity": name,
        "value": used.value,
        "source": source,
        "units": used.units,
        "guaranteed": used.guaranteed,
    }
