"""What the model can do without: a sensor, the readings before, itself (rules in its place)."""

from typing import Final

import numpy as np

from genba.core.line import Line
from genba.core.protocols import Array, Predict, Tensors
from genba.edge.safety.plan import Fallback, Rule
from genba.learn.safety.rules import decided, fit_rule
from genba.learn.safety.series import Bools
from genba.stages.assurance_plan import Found, Ground
from genba.stages.assurance_rows import Outputs, Sensors, answered

_TOLERATED: Final = (0.995, 0.95)  # agreement of all decisions, and of alarms
_RULE: Final = (0.8, 0.02)  # alarms that a rule must find, and false ones that it may raise
_FEWEST: Final = 20  # alarms, to say anything about them
_DEFAULT: Final = ("last_good_model", "rule", "abstain")
_DEFAULT_PICTURES: Final = ("last_good_model", "abstain")


def look(ground: Ground, predict: Predict) -> Found:
    """Try the model without each of its sensors and without its history, and fit rules."""
    sensors = ground.sensors
    if not sensors.names:
        return Found(
            tolerated=np.zeros(0, dtype=np.bool_),
            looks_back=0,
            fallback=Fallback(chain=_chain(ground.line, {}), value=dict(ground.line.safety.value)),
        )
    whole = answered(predict, ground.tensors)
    tolerated = np.array(
        [
            _same(ground, whole, answered(predict, without(ground.tensors, sensors, i)))
            for i in range(len(sensors.names))
        ]
    )
    rules = _rules(ground)
    return Found(
        tolerated=tolerated,
        looks_back=_looks_back(ground, predict, whole),
        fallback=Fallback(
            chain=_chain(ground.line, rules), value=dict(ground.line.safety.value), rules=rules
        ),
    )


def without(tensors: Tensors, sensors: Sensors, i: int) -> dict[str, Array]:
    """Return samples in which one sensor has given no reading, now and before."""
    window = np.array(tensors[sensors.tensor], dtype=np.float32)
    window[..., i] = np.nan
    return {**tensors, sensors.tensor: window}


def _looks_back(ground: Ground, predict: Predict, whole: Outputs) -> int:
    window = np.array(ground.tensors[ground.sensors.tensor], dtype=np.float32)
    if window.ndim < 3 or window.shape[1] < 2:
        return 0
    window[:, :-1] = np.nan
    alone = answered(predict, {**ground.tensors, ground.sensors.tensor: window})
    return 0 if _same(ground, whole, alone) else window.shape[1] - 1


def _same(ground: Ground, whole: Outputs, other: Outputs) -> bool:
    """Say whether decisions stay as they are; with too few alarms that is not known, so no."""
    differs = ground.decision.differs(whole, other)
    raised = ground.decision.raised(whole)
    if not len(differs) or 1.0 - differs.mean() < _TOLERATED[0]:
        return False
    if ground.decision.by != "alarm":
        return True
    return raised.sum() >= _FEWEST and 1.0 - float(differs[raised].mean()) >= _TOLERATED[1]


def _rules(ground: Ground) -> dict[str, Rule]:
    """Return by the sensor that they do without the rules that decide nearly as the model does.

    The one by "" reads every sensor and stands in for a model that has failed.
    """
    if ground.decision.by != "alarm":
        return {}
    names, found = ground.sensors.names, {}
    for left_out in ("", *names):
        columns = [i for i, name in enumerate(names) if name != left_out]
        rule = _rule(ground, columns) if columns else None
        if rule is not None:
            found[left_out] = rule
    return found


def _rule(ground: Ground, columns: list[int]) -> Rule | None:
    train, later = ground.train, ground.calibrate
    whole = train.series.whole
    raised = ground.decision.raised(train.outputs)
    rule = fit_rule(
        train.series.values[whole][:, columns],
        raised[whole],
        [ground.sensors.names[i] for i in columns],
        ground.decision.name,
    )
    if rule is None:
        return None
    whole = later.series.whole
    said = decided(rule, later.series.values[whole][:, columns])
    return _good(rule, said, ground.decision.raised(later.outputs)[whole])


def _good(rule: Rule, said: Bools, truth: Bools) -> Rule | None:
    if truth.sum() < _FEWEST:
        return None
    hits, false = float(said[truth].mean()), float(said[~truth].mean())
    if hits < _RULE[0] or false > _RULE[1]:
        return None
    values = {name: getattr(rule, name) for name in rule.__slots__}
    return Rule(**{**values, "agreement": round((hits + 1.0 - false) / 2, 4)})


def _chain(line: Line, rules: dict[str, Rule]) -> tuple[str, ...]:
    if line.safety.fallback:
        return line.safety.fallback
    return _DEFAULT if rules else _DEFAULT_PICTURES
