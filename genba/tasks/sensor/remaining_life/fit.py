"""Search, train and calibrate: from histories of units to a model with intervals and an alarm."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, View
from genba.core.task import Model, Samples
from genba.learn.grouped import folds
from genba.learn.search import plan, search
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.sensor.remaining_life import absent, regimes, schema
from genba.tasks.sensor.remaining_life.bodies import BODIES, SPACE, Training, build
from genba.tasks.sensor.remaining_life.calibrate import Seen, calibrate, spread
from genba.tasks.sensor.remaining_life.features import features, plausible
from genba.tasks.sensor.remaining_life.lives import Lives, capped
from genba.tasks.sensor.remaining_life.model import predict

Floats = npt.NDArray[np.float64]

_MOST_ROWS: Final = 40_000  # of training, taken at even distances: neighbours say much the same
_FEWEST_UNITS: Final = 4  # that ran to failure
_SEARCH_FOLDS: Final = 3
_HARDENED_BY: Final = 0.34  # of the rows decide whether dropping sensors costs anything
_FOLDS: Final = 4  # of the predictions that intervals and alarm point are derived from
_YOUNG: Final = 0.35  # share of a life that says what is usual, where no cap says it


def fit(view: View, settings: JsonObject, effort: Effort) -> Model:
    """Search within the budget, train the best candidate on all units, calibrate on others.

    Raises:
        Problem: G545 when too few units ran to failure.
    """
    with one_thread():  # one order of additions, so the same bits on every run
        lives = Lives.of(view, settings)
        made, arrays, data = collect(view, settings, lives, effort.seed)
        effort.progress.note(f"{len(data.x):,} rows of {len(np.unique(data.unit))} units")
        space = {name: SPACE[name] for name in settings["candidates"]}
        trials = plan(space, effort.budget.trials, effort.seed)
        plain = replace(data, blind=None)
        best, tried = search(trials, lambda t, share: _loss(t, share, plain, effort.seed), effort)
        effort.progress.step("trying whether it stands a missing sensor")
        data = _hardened(best, data, effort.seed)
        effort.progress.step(f"training {best['candidate']} on every unit")
        made = {**made, "body": BODIES[best["candidate"]], "training": dict(best["settings"])}
        made["sensor_dropout"] = data.blind is not None
        held_out = _held_out(best, data, effort.seed)
        arrays = {
            **arrays,
            **build(best, data, np.arange(len(data.x))),
            **spread(held_out, float(settings["coverage"]), data.top),
        }
        draft = Model(candidate=best["candidate"], settings=made, arrays=arrays, trials=tried)
        effort.progress.step("calibrating intervals and the alarm point")
        return calibrate(draft, view, lives, held_out)


def collect(
    view: View, settings: JsonObject, lives: Lives, seed: int
) -> tuple[dict[str, Any], dict[str, Array], Training]:
    """Read the training split: operating conditions first, then features of every row.

    Returns:
        Settings and arrays of the features, and the rows to learn from.
    """
    found, arrays = regimes.find(_raw(view, settings, lives), settings, seed)
    made = {**settings, **found}
    ages, parts = [], []
    stride = -(-view.count("train") // _MOST_ROWS) or 1
    for samples in schema.read(view, "train", settings, lives):
        some = schema.part(samples, slice(None, None, stride))
        ages.append(lives.age(int(some.entity[0]), some.time))
        parts.append(some)
    arrays["usual_age"] = np.array([np.median(np.concatenate(ages))], dtype=np.float32)
    made["usual"] = _usual(arrays)
    return made, arrays, _training(parts, ages, made, arrays, lives)


def _training(
    parts: list[Samples],
    ages: list[Floats],
    made: JsonObject,
    arrays: Mapping[str, Array],
    lives: Lives,
) -> Training:
    x, blind, target, left, unit, age = [], [], [], [], [], []
    for some, old in zip(parts, ages, strict=True):
        owner = int(some.entity[0])
        life = some.truth[:, 0]
        wanted = capped(life, lives.at_least(owner, some.time), float(made["cap"]))
        keep = np.isfinite(wanted)
        if not keep.any():
            continue
        kept = schema.part(some, keep)
        x.append(features(kept.tensors, made, arrays).astype(np.float32))
        blind.append(absent.blind_features(kept, made, arrays))
        target.append(wanted[keep])
        left.append(life[keep])
        unit.append(kept.entity.astype(np.int64))
        age.append(old[keep])
    units = len({int(u[0]) for u, part in zip(unit, left, strict=True) if np.isfinite(part).any()})
    if units < _FEWEST_UNITS:
        raise Problem(
            "G545",
            f"{units} units to train on ran to failure; at least {_FEWEST_UNITS} are needed.",
            where="data.label",
            why="Without a label column every unit fails at its last row; with one, at the first "
            "row labelled 1.",
            tries=["genba check LINE", "genba explain G545"],
        )
    goal = np.concatenate(target)
    return Training(
        x=np.concatenate(x),
        blind=np.concatenate(blind),
        target=goal,
        left=np.concatenate(left),
        unit=np.concatenate(unit),
        age=np.concatenate(age),
        top=float(goal.max()),
    )


def _raw(view: View, settings: JsonObject, lives: Lives) -> regimes.Rows:
    """Return training rows as they came, and how worn their units were."""
    cap = float(settings["cap"])
    readings, wear, whole = [], [], []
    for chunk in view.chunks("train"):
        if not len(chunk["time"]):
            continue
        unit, time = int(chunk["entity"][0]), np.asarray(chunk["time"])
        table = np.stack([np.asarray(chunk[s]) for s in settings["sensors"]], 1).astype(np.float32)
        readings.append(np.where(plausible(table, settings), table, np.nan).astype(np.float64))
        left, age = lives.left(unit, time), lives.age(unit, time)
        wear.append(age / (age + left))
        whole.append(capped(left, lives.at_least(unit, time), cap) >= cap if cap else age < 0)
    if not readings:
        readings, wear, whole = [np.zeros((0, len(settings["sensors"])))], [np.zeros(0)], []
    worn = np.concatenate(wear)
    young = np.nan_to_num(worn, nan=1.0) < _YOUNG
    far = np.concatenate(whole) if whole else young
    return regimes.Rows(
        readings=np.concatenate(readings),
        wear=worn,
        healthy=far if far.mean() >= _YOUNG / 2 else young,
    )


def _loss(trial: Mapping[str, Any], share: float, data: Training, seed: int) -> float:
    """Return the root mean squared error on units that were held out, each once."""
    some = np.arange(0, len(data.x), max(1, round(1 / share)))
    squares = 0.0
    for held in folds(data.unit, _SEARCH_FOLDS, seed):
        arrays = build(trial, data, some[~held[some]])
        judged = some[held[some]]
        made = predict({"body": BODIES[trial["candidate"]]}, arrays, data.x[judged])
        squares += float(((made - data.target[judged]) ** 2).sum())
    return float(np.sqrt(squares / len(some)))


def _hardened(trial: Mapping[str, Any], data: Training, seed: int) -> Training:
    """Return the rows to train on: with whole sensors dropped where all of them lose nothing."""
    plain = replace(data, blind=None)
    before, after = (_loss(trial, _HARDENED_BY, rows, seed) for rows in (plain, data))
    return data if after <= (1.0 + absent.MARGIN) * before else plain


def _held_out(trial: Mapping[str, Any], data: Training, seed: int) -> Seen:
    """Predict every training row by a model that has not seen its unit."""
    expected = np.zeros(len(data.x))
    for held in folds(data.unit, _FOLDS, seed + 1):
        arrays = build(trial, data, np.flatnonzero(~held))
        expected[held] = predict({"body": BODIES[trial["candidate"]]}, arrays, data.x[held])
    return Seen(expected=expected, target=data.target, left=data.left, unit=data.unit, age=data.age)


def _usual(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return what a healthy unit reads in each condition, for explanations: JSON."""
    kept = {"readings": "usual", "spread": "scale"}
    same = ("centers", "slopes", "condition_middle", "condition_spread")
    named = {**kept, **dict(zip(same, same, strict=True))}
    found = {n: np.asarray(arrays[a], dtype=np.float64).tolist() for n, a in named.items()}
    return {**found, "age": float(arrays["usual_age"][0])}
