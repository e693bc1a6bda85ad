"""Fitting the plan of a safety envelope: what is usual, and from when on it is not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from genba.core.line import Line
from genba.core.protocols import JsonObject, Tensors, View
from genba.core.values import Manifest, Signature
from genba.edge.safety.answers import FLOOD_WEIGHT
from genba.edge.safety.plan import (
    Answers,
    Channel,
    Fallback,
    Picture,
    Plausible,
    SafetyPlan,
    Timing,
    Unusual,
)
from genba.learn.safety.calibration import limit
from genba.learn.safety.plausible import Fitted, fit_plausible, longest_runs
from genba.learn.safety.series import Bools, Floats
from genba.learn.safety.unusual import Kinds, fit_mahalanobis, fit_nearest
from genba.stages.assurance_limits import knob
from genba.stages.assurance_rows import Decision, Gathered, Sensors, output_of, tensor_of

_SHARE: Final = 0.5  # of the false trips that may be; the rest is for what calibration cannot know
_SHARE_UNUSUAL: Final = 1 / 3
_STALE_STEPS: Final = 2.5
_REACT: Final = (6, 10)  # readings: where there is a clock, and where there is none
_WIDER: Final = 0.1  # a range that nobody declared is that of the data and so much more
_SIZES: Final = 20  # different sizes of image files from which on any size is usual
_ALWAYS: Final = 0.95  # a share of alarms that nothing can exceed by much
_LATE: Final = 10.0  # times the measured p99, where nobody stated a deadline


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a plan is fitted from."""

    line: Line
    view: View
    manifest: Manifest
    package: str
    sensors: Sensors
    decision: Decision
    train: Gathered
    calibrate: Gathered
    tensors: Tensors  # some calibration samples, all kinds of answers among them
    sizes: tuple[tuple[int, ...], ...] = ()  # of image files

    @property
    def ordered(self) -> bool:
        """Whether rows follow each other in time."""
        return bool(self.view.has_clock) and self.calibrate.series.step > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What trying the model without some of its input has shown."""

    tolerated: Bools  # sensors it can do without
    looks_back: int  # readings before the newest that its decisions depend on
    fallback: Fallback


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A plan, and what is known of each sensor's witnesses."""

    plan: SafetyPlan
    fitted: Fitted | None


def fit_plan(ground: Ground, found: Found) -> Made:
    """Fit the whole plan from training and calibration rows."""
    alpha = knob(ground.line, "false_trips", ground.view.modality) * _SHARE
    signature = ground.manifest.signature
    count = len(ground.sensors.names)
    judged = _judged(ground)
    each = alpha * (1 - _SHARE_UNUSUAL) / (4 * count + 3)
    fitted = None
    if count >= 1 and ground.calibrate.series.whole.any():
        fitted = fit_plausible(
            ground.train.series, ground.calibrate.series, each, judged, ground.ordered
        )
    return Made(
        plan=SafetyPlan(
            line=ground.line.name,
            package=ground.package,
            inputs=signature.inputs,
            channels=_channels(ground, found, judged, each),
            timing=_timing(ground, found, each),
            unusual=_unusual(ground, fitted.plan if fitted else None, alpha * _SHARE_UNUSUAL),
            plausible=fitted.plan if fitted else None,
            answers=_answers(ground, each),
            fallback=found.fallback,
            picture=_picture(signature, ground.sizes),
        ),
        fitted=fitted,
    )


def with_deadline(plan: SafetyPlan, line: Line, measured_p99_ms: float) -> SafetyPlan:
    """Return the plan with the deadline of the line, else one derived from what was measured."""
    stated = knob(line, "deadline_ms") or line.target.limits.latency_ms_p99
    deadline = float(stated) if stated else round(_LATE * measured_p99_ms, 3)
    return replace(plan, timing=replace(plan.timing, deadline_ms=deadline))


def _judged(ground: Ground) -> Bools:
    output = ground.line.data.output
    return np.array([name == output for name in ground.sensors.names], dtype=np.bool_)


def _channels(ground: Ground, found: Found, judged: Bools, alpha: float) -> tuple[Channel, ...]:
    sensors, known = ground.sensors, [ground.train.series, ground.calibrate.series]
    runs = longest_runs(ground.calibrate.series, alpha)
    made = []
    for i, name in enumerate(sensors.names):
        seen = np.concatenate([s.values[np.isfinite(s.values[:, i]), i] for s in known])
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
        room = _WIDER * max(high - low, abs(high), 1e-6)
        check = ground.line.data.checks.get(name)
        stated = (check.min, check.max) if check else (None, None)
        made.append(
            Channel(
                name=name,
                tensor=sensors.tensor,
                index=sensors.first + i,
                low=low - room if stated[0] is None else stated[0],
                high=high + room if stated[1] is None else stated[1],
                declared=stated != (None, None),
                judged=bool(judged[i]),
                longest=runs[i].longest,
                rest=runs[i].rest,
                longest_at_rest=runs[i].at_rest,
                tolerated=bool(found.tolerated[i]),
            )
        )
    return tuple(made)


def _timing(ground: Ground, found: Found, alpha: float) -> Timing:
    line, step = ground.line, ground.calibrate.series.step or None
    stale = knob(line, "stale_ms") or (_STALE_STEPS * step if step and ground.ordered else 0.0)
    react = knob(line, "react") or _REACT[0 if ground.ordered else 1]
    return Timing(
        ordered=ground.ordered,
        step_ms=step if ground.ordered else None,
        stale_ms=int(stale) or None,
        history=found.looks_back,
        holes=_holes(ground, alpha) if found.looks_back else 0.0,
        react=int(react),
    )


def _holes(ground: Ground, alpha: float) -> float:
    """Return the share of a sample that calibration samples hardly ever miss more of."""
    window = np.asarray(ground.tensors[ground.sensors.tensor])
    missing = ~np.isfinite(window.reshape(len(window), -1))
    return limit(missing.mean(axis=1), alpha)


def _unusual(ground: Ground, plausible: Plausible | None, alpha: float) -> tuple[Unusual, ...]:
    """Score the readings, or what the package itself says that samples look like."""
    signature = ground.manifest.signature
    named = [n for role in ("look", "embedding") if (n := output_of(signature, role))]
    outputs = [n for n in named if ground.view.modality == "image"]
    kinds = _kinds(ground)
    if outputs:
        train, later = ground.train.outputs, ground.calibrate.outputs
        return tuple(
            fit_mahalanobis(n, _flat(train[n]), _flat(later[n]), alpha / len(outputs), kinds)
            for n in outputs
        )
    if plausible is None:
        return ()
    center, scale = np.array(plausible.center), np.array(plausible.scale)
    train_z, z = (
        np.clip((s.values[s.whole] - center) / scale, -10.0, 10.0)
        for s in (ground.train.series, ground.calibrate.series)
    )
    kinds.names = kinds.names[ground.calibrate.series.whole]
    return (fit_nearest(train_z, z, alpha, kinds),) if len(train_z) and len(z) else ()


def _kinds(ground: Ground) -> Kinds:
    chosen = output_of(ground.manifest.signature, "class")
    if chosen:
        classes = np.asarray(ground.calibrate.outputs[chosen]).ravel()
        return Kinds("class", [str(int(c)) for c in classes])
    names = ground.manifest.entities
    if len(names) > 1:
        return Kinds("entity", [names[e] for e in ground.calibrate.series.entity])
    return Kinds("", [""] * len(ground.calibrate))


def _answers(ground: Ground, alpha: float) -> Answers:
    signature, rows = ground.manifest.signature, ground.calibrate
    names = {r: output_of(signature, r) for r in ("alarm", "score", "expected", "class")}
    score, expected = names["score"], names["expected"]
    judged = rows.series.whole
    made = Answers(
        alarm=names["alarm"],
        score=score,
        expected=expected,
        chosen=names["class"],
        probability=output_of(signature, "probability"),
        check_every=_timing_react(ground),
    )
    share = knob(ground.line, "abstain")
    if score:
        series = replace(rows.series, values=_blank(rows.outputs[score], judged))
        made = replace(made, longest=longest_runs(series, alpha)[0].longest)
        if share:
            positive = rows.outputs[score][rows.outputs[score] > 0].astype(np.float64)
            made = replace(made, margin=float(np.quantile(np.abs(np.log(positive)), share)))
    if made.probability and share:
        best = _flat(rows.outputs[made.probability]).max(axis=1)
        made = replace(made, floor=float(np.quantile(best, share)))
    if names["alarm"]:
        made = replace(made, flood=_flood(ground, names["alarm"], alpha))
    if expected and ground.ordered:
        step = np.abs(np.diff(_flat(rows.outputs[expected])[:, 0], prepend=np.nan))
        made = replace(made, most_step=limit(step[rows.series.follows() & judged], alpha))
    return made


def _timing_react(ground: Ground) -> int:
    return int(knob(ground.line, "react") or _REACT[0 if ground.ordered else 1])


def _blank(values: Any, known: Bools) -> Floats:
    found = np.asarray(values, dtype=np.float64).reshape(len(known), -1)[:, :1]
    return np.where(known[:, None], found, np.nan)


def _flood(ground: Ground, alarm: str, alpha: float) -> float:
    """Return the smoothed share of alarms that calibration rows hardly ever exceed; 0: too many."""
    raised = np.asarray(ground.calibrate.outputs[alarm], dtype=np.float64).ravel()
    entity = ground.calibrate.series.entity
    smoothed, state = np.zeros(len(raised)), 0.0
    for row, value in enumerate(raised):
        if row and entity[row] != entity[row - 1]:
            state = 0.0
        state += FLOOD_WEIGHT * (value - state)
        smoothed[row] = state
    found = max(limit(smoothed, alpha), 3 * FLOOD_WEIGHT)
    return found if found < _ALWAYS else 0.0


def _picture(signature: Signature, sizes: tuple[tuple[int, ...], ...]) -> Picture | None:
    image = tensor_of(signature, "image")
    if image is None:
        return None
    return Picture(tensor=image.name, sizes=sizes if len(sizes) < _SIZES else ())


def _flat(values: Any) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    return found.reshape(len(found), -1)


def explained(made: Made) -> list[JsonObject]:
    """Say for each sensor which witnesses it has."""
    found: list[JsonObject] = []
    for i, channel in enumerate(made.plan.channels):
        facts: dict[str, Any] = {
            "sensor": channel.name,
            "range": [channel.low, channel.high],
            "range_is": "declared by the line" if channel.declared else "derived from the data",
            "stuck_from": channel.longest or None,
            "model_decides_without_it": channel.tolerated,
        }
        if made.fitted is not None:
            facts |= _witnesses(made.fitted, i, judged=channel.judged)
        found.append(facts)
    return found


def _witnesses(fitted: Fitted, i: int, *, judged: bool) -> Mapping[str, Any]:
    return {
        "explained_by_other_sensors": round(float(fitted.by_others[i]), 4),
        "watched_against_them": bool(fitted.plan.cross[i]),
        "judged_by_the_model": judged,
        "explained_by_readings_before": round(float(fitted.by_before[i]), 4),
        "watched_against_those": bool(fitted.plan.before[i]),
    }
