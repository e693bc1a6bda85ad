"""How good a model is: measures with intervals, from any form of it that can predict."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Predict, View
from genba.core.task import Samples, Scores
from genba.core.values import Measure, Method
from genba.learn.bootstrap import DAY_MS, HOUR_MS, block_lengths, block_of, measure, ratio
from genba.learn.bootstrap import sums_by_block as by_block
from genba.learn.conformal import onsets
from genba.tasks.sensor.anomaly import faults, schema

Bools = npt.NDArray[np.bool_]
Evidence = dict[str, Array]
Measures = dict[str, Measure]

#: Share of rows that must carry a label before rates over labelled rows mean anything: people
#: label alarms, so among a few labelled rows nearly all are alarms.
_COVERED: Final = 0.9
_TIME_BITS: Final = 44  # ms since 1970 need 41, so entity and time fit into one int64


def score(predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
    """Measure any form of the model on a split, with intervals.

    Evidence per sample: row, entity, time, block (of the bootstrap), days (that the row stands
    for), label, truth, expected, score, alarm, loss, false_start (an alarm episode that nobody
    confirmed begins here). Evidence per simulated fault: injected_row, injected_block,
    injected_kind, injected_missed, injected_peak (largest score), injected_delay (rows until the
    alarm). Of the whole: budget (of false alarms, as calibrated for) and merge.
    """
    parts: list[Evidence] = []
    for samples in schema.read(view, split, settings):
        parts.append({**_judge(predict, samples, settings), **_test(predict, samples, settings)})
    if not parts:
        return Scores(measures={})
    evidence = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    _add_time(evidence, settings)
    return Scores(measures=measures(evidence, settings), evidence=evidence)


def measures(evidence: Mapping[str, Array], settings: JsonObject) -> Measures:
    """Compute every measure that the evidence allows."""
    found: dict[str, Measure | None] = {}
    if settings["mode"] == "regression":
        found.update(_errors(evidence))
    found.update(_alarms(evidence, settings))
    found.update(_labelled(evidence, settings))
    found.update(_simulated(evidence, settings))
    return {name: value for name, value in found.items() if value is not None}


def _judge(predict: Predict, samples: Samples, settings: JsonObject) -> Evidence:
    made = predict(samples.tensors)
    low, high = schema.limits(settings)
    now = np.asarray(samples.tensors["window"])[:, -1]
    plausible = (now >= low) & (now <= high)
    complete = plausible.all(axis=1)
    alarm, expected = np.asarray(made["alarm"], dtype=bool), np.asarray(made["expected"])
    if settings["mode"] == "regression":
        loss = np.abs(samples.truth[:, 0] - expected[:, 0].astype(np.float64))
        loss[~complete | (samples.label == 1.0)] = np.nan
    else:  # sensors have no common unit: a wrong decision is the loss
        loss = np.where(samples.label == 1.0, ~alarm, alarm).astype(np.float64)
        loss[~plausible.any(axis=1)] = np.nan
    return {
        "row": samples.row,
        "entity": samples.entity.astype(np.int64),
        "time": samples.time,
        "label": samples.label,
        "truth": samples.truth[:, 0],
        "expected": expected[:, 0].astype(np.float64),
        "score": np.asarray(made["score"], dtype=np.float64),
        "alarm": alarm,
        "loss": loss,
    }


def _add_time(evidence: Evidence, settings: JsonObject) -> None:
    lengths = block_lengths(has_clock=settings["has_clock"], step_ms=settings["step_ms"])
    evidence["block"] = block_of(evidence["time"], lengths)
    order = np.argsort(evidence["row"], kind="stable")
    at = np.searchsorted(evidence["row"], evidence["injected_row"], sorter=order)
    evidence["injected_block"] = evidence["block"][order[at]]
    step = int(settings["step_ms"]) / DAY_MS if settings["has_clock"] else np.nan
    evidence["days"] = np.full(len(evidence["row"]), step)
    evidence["budget"] = np.array([float(settings["alarm_budget"]["value"])])
    evidence["merge"] = np.array([int(settings["merge"])])
    evidence["false_start"] = np.zeros(len(evidence["row"]), dtype=bool)
    evidence["false_start"][false_onsets(evidence, evidence["alarm"])] = True


def _test(predict: Predict, samples: Samples, settings: JsonObject) -> Evidence:
    injected = faults.inject(samples, settings)
    shape = (len(injected.row), injected.steps)
    alarm, height = np.zeros(shape, dtype=bool), np.zeros(shape)
    if len(injected.row):
        found = predict(injected.tensors)
        alarm = np.asarray(found["alarm"], dtype=bool).reshape(shape)
        height = np.asarray(found["score"], dtype=np.float64).reshape(shape)
    return {
        "injected_row": injected.row,
        "injected_kind": injected.kind,
        "injected_missed": ~alarm.any(axis=1),
        "injected_peak": height.max(axis=1),
        "injected_delay": alarm.argmax(axis=1),
    }


def _errors(evidence: Mapping[str, Array]) -> dict[str, Measure | None]:
    good = np.isfinite(evidence["loss"]) & np.isfinite(evidence["expected"])
    loss, truth = evidence["loss"][good], evidence["truth"][good]
    if not len(loss):
        return {}
    far = truth - truth.mean()
    sums = by_block(evidence["block"][good], loss**2, far**2, far, loss, np.ones(len(loss)))

    def r2(s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        variance = s[..., 1] - s[..., 2] ** 2 / s[..., 4]
        return np.asarray(1.0 - s[..., 0] / variance, dtype=np.float64)

    return {
        "r2": measure(r2, sums, n=len(loss)),
        "mae": measure(ratio(3, 4), sums, n=len(loss)),
    }


def _alarms(evidence: Mapping[str, Array], settings: JsonObject) -> dict[str, Measure | None]:
    """Count alarms nobody has confirmed. Where rows carry no label this is an upper bound."""
    method: Method = "measured" if _covered(evidence) else "estimated"
    count = len(evidence["row"])
    if settings["has_clock"]:
        sums = by_block(evidence["block"], evidence["false_start"], evidence["days"])
        daily = measure(ratio(0, 1), sums, unit="1/day", n=count, method=method)
        return {"false_alarms_per_day": daily}
    unconfirmed = evidence["alarm"] & (evidence["label"] != 1.0)
    sums = by_block(evidence["block"], unconfirmed, np.ones(count))
    return {"false_alarm_rate": measure(ratio(0, 1), sums, n=count, method=method)}


def false_onsets(evidence: Mapping[str, Array], alarm: Bools) -> npt.NDArray[np.int64]:
    """Return where alarm episodes begin that hold no row labelled as an anomaly."""
    entity, time = evidence["entity"], evidence["time"]
    starts = onsets(alarm, entity, time, int(evidence["merge"][0]))
    confirmed = np.flatnonzero(alarm & (evidence["label"] == 1.0))
    if not len(confirmed) or not len(starts):
        return starts
    order = np.lexsort((time[starts], entity[starts]))
    keys = (entity[starts][order] << _TIME_BITS) + time[starts][order]
    wanted = (entity[confirmed] << _TIME_BITS) + time[confirmed]
    at = np.searchsorted(keys, wanted, side="right") - 1
    return np.sort(np.delete(starts[order], np.unique(at[at >= 0])))


def _labelled(evidence: Mapping[str, Array], settings: JsonObject) -> dict[str, Measure | None]:
    known = np.isfinite(evidence["label"])
    if not known.any():
        return {}
    truth, alarm = evidence["label"][known] == 1.0, evidence["alarm"][known]
    sums = by_block(
        evidence["block"][known],
        *(truth & alarm, ~truth & alarm, truth & ~alarm, ~truth & ~alarm),
    )
    n = len(truth)
    found = {"precision": measure(lambda s: s[..., 0] / (s[..., 0] + s[..., 1]), sums, n=n)}
    if not _covered(evidence):
        return found
    found["f1"] = measure(
        lambda s: 2 * s[..., 0] / (2 * s[..., 0] + s[..., 1] + s[..., 2]), sums, n=n
    )
    found["false_alarm_rate"] = measure(lambda s: s[..., 1] / (s[..., 1] + s[..., 3]), sums, n=n)
    found["missed_alarm_rate"] = measure(lambda s: s[..., 2] / (s[..., 0] + s[..., 2]), sums, n=n)
    if settings["has_clock"]:
        found["detection_delay"] = _delay(evidence, settings)
    return found


def _delay(evidence: Mapping[str, Array], settings: JsonObject) -> Measure | None:
    """Measure hours from the onset of a labelled episode to its first alarm, where there is one."""
    entity, time = evidence["entity"], evidence["time"]
    truth = evidence["label"] == 1.0
    starts = onsets(truth, entity, time, int(settings["merge"]))
    hours, at = [], []
    for start in starts:
        later = truth & evidence["alarm"] & (entity == entity[start]) & (time >= time[start])
        others = starts[(entity[starts] == entity[start]) & (time[starts] > time[start])]
        end = time[others].min() if len(others) else np.inf
        found = time[later & (time < end)]
        if len(found):
            hours.append(float(found.min() - time[start]) / HOUR_MS)
            at.append(int(evidence["block"][start]))
    if not hours:
        return None
    sums = by_block(np.array(at, dtype=np.int64), hours, np.ones(len(hours)))
    return measure(ratio(0, 1), sums, unit="h", n=len(hours))


def _simulated(evidence: Mapping[str, Array], settings: JsonObject) -> dict[str, Measure | None]:
    missed = evidence["injected_missed"].astype(np.float64)
    found: dict[str, Measure | None] = {}
    if not len(missed):
        return found
    found["injected_missed_rate"] = _missed(evidence, np.ones(len(missed), dtype=bool))
    for number, kind in enumerate(faults.kinds(settings)):
        chosen = evidence["injected_kind"] == number
        found[f"injected_missed_rate_{kind}"] = _missed(evidence, chosen)
    seen = missed == 0.0
    if settings["has_clock"] and seen.any():
        hours = evidence["injected_delay"][seen] * int(settings["step_ms"]) / HOUR_MS
        sums = by_block(evidence["injected_block"][seen], hours, np.ones(len(hours)))
        found["injected_detection_delay"] = measure(
            ratio(0, 1), sums, unit="h", n=len(hours), method="modelled"
        )
    return found


def _missed(evidence: Mapping[str, Array], chosen: Bools) -> Measure | None:
    missed = evidence["injected_missed"][chosen].astype(np.float64)
    if not len(missed):
        return None
    sums = by_block(evidence["injected_block"][chosen], missed, np.ones(len(missed)))
    return measure(ratio(0, 1), sums, n=len(missed), method="modelled")


def _covered(evidence: Mapping[str, Array]) -> bool:
    label = evidence["label"]
    return bool(np.isfinite(label).mean() >= _COVERED) if len(label) else False
