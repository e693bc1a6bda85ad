"""Search by rolling-origin backtest within train, train the best on all of it, calibrate."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import JsonObject, View
from genba.core.task import Model
from genba.learn.search import Space, plan, search
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.sensor.forecast import series, steps
from genba.tasks.sensor.forecast.batch import Arrays, Ready, scales
from genba.tasks.sensor.forecast.bodies import (
    Part,
    Parts,
    build,
    drawn,
    held_out,
    judged,
    thinned,
)
from genba.tasks.sensor.forecast.calibrate import calibrate
from genba.tasks.sensor.forecast.model import Body
from genba.tasks.sensor.forecast.series import Series

Floats = npt.NDArray[np.float64]

#: Ends of what is trained on in the backtest, as shares of the training time; each is judged on
#: what follows up to the next (the last up to the end of train).
_FOLDS: Final = (0.6, 0.8)
_JUDGED: Final = 400  # origins of each fold
_FEWEST: Final = 20  # origins of a fold to train on
_MOST_TREE_VALUES: Final = 2_000  # per window; beyond it trees take too long for an answer
_MOST_FEATURES: Final = 1_000  # of a ridge that is offered the calendar and nothing else
_PRIOR: Final = 50.0  # values that stand for "as hard as any other" in a group of the day


def space(settings: JsonObject) -> Space:
    """Return what is tried; the first value of a setting is its default."""
    seasons = [settings["season"], *(s for s in settings["seasons"] if s != settings["season"])]
    ahead = int(settings["ahead"])
    # The calendar alone adds little to a window of weeks, and much to the system to solve.
    explain: tuple[str, ...] = (
        ("fine", "coarse", "none") if settings["known"] else ("none", "coarse", "fine")
    )
    if not settings["known"] and int(settings["lags"]) + ahead > _MOST_FEATURES:
        explain = ("none",)
    ridge: dict[str, Sequence[Any]] = {
        "explained": explain,
        "weighted": (True, False),
    }
    boosting: dict[str, Sequence[Any]] = {
        "iterations": (200, 100, 400),
        "leaves": (31, 15, 8),
        "rate": (0.1, 0.05),
        "min_rows": (20, 100),
        "base": ("level", "season"),
        "rows": (60_000,),
    }
    every: dict[str, Mapping[str, Sequence[Any]]] = {
        "seasonal": {"season": seasons, "averaged": (1, 2, 4)},
        "ridge": ridge,
        "boosting": boosting,
        "blend": {**ridge, **boosting},
    }
    large = ahead * len(settings["outputs"]) > _MOST_TREE_VALUES
    slow = ("boosting", "blend") if large else ()
    names = [n for n in settings["candidates"] if n not in slow] or ["ridge"]
    return {name: every[name] for name in names}


def fit(view: View, settings: JsonObject, effort: Effort) -> Model:
    """Search within the budget, train the best candidate on all of train, calibrate intervals.

    Raises:
        Problem: G542 when window and horizon leave too few forecasts to learn from or to judge.
    """
    with one_thread():  # one order of additions, so the same bits on every run
        every = list(series.read(view, settings))
        _check(every, settings)
        arrays = scales(every, settings, len(view.entities))
        parts = training(every, settings, arrays)
        effort.progress.note(f"{sum(len(p.at) for p in parts):,} forecasts to learn from")
        trials = plan(space(settings), effort.budget.trials, effort.seed)
        folds = backtest(parts)
        best, tried = search(
            trials, lambda t, share: _loss(t, share, folds, settings, effort.seed), effort
        )
        effort.progress.step(f"training {best['candidate']} on every row")
        arrays["groups"] = _groups(best, folds[-1], settings, effort.seed)
        made, found = build(best, parts, settings, effort.seed)
        found["groups"] = arrays["groups"]
        made |= facts(every, settings, arrays)
        draft = Model(candidate=best["candidate"], settings=made, arrays=found, trials=tried)
        effort.progress.step("calibrating intervals")
        return calibrate(draft, every)


def training(every: Sequence[Series], settings: JsonObject, arrays: Arrays) -> list[Part]:
    """Return the origins to train on, whole windows of them where there are enough."""
    parts = []
    for one in every:
        at = series.origins(one, settings, "train")
        at = at[at >= int(settings["lags"]) - 1]
        if len(at):
            parts.append(Part(ready=Ready(one, settings, arrays), at=at))
    return parts


def backtest(parts: Parts) -> list[tuple[list[Part], list[Part]]]:
    """Return pairs of (origins to train on, origins to judge), the training part expanding.

    What is judged begins where the targets of what is trained on end.
    """
    time = np.concatenate([p.ready.series.time[p.at] for p in parts])
    edges = [float(np.quantile(time, share)) for share in (*_FOLDS, 1.0)]
    found = []
    for cut, end in zip(edges, edges[1:], strict=False):
        older, newer = [], []
        for part in parts:
            clock, ahead = part.ready.series.time, int(part.ready.settings["ahead"])
            older.append(part.some(clock[part.at + ahead] <= cut))
            now = clock[part.at]
            newer.append(part.some((now > cut) & (now <= end)))
        older, newer = ([p for p in some if len(p.at)] for some in (older, newer))
        if sum(len(p.at) for p in older) >= _FEWEST and newer:
            found.append((older, thinned(newer, _JUDGED)))
    return found or [held_out(parts)]


def _loss(
    trial: Mapping[str, Any],
    share: float,
    folds: Sequence[tuple[list[Part], list[Part]]],
    settings: JsonObject,
    seed: int,
) -> float:
    """Return the mean absolute error in units of the entities, over folds, steps and outputs."""
    found = []
    for older, newer in folds:
        made, arrays = build(trial, drawn(older, share), settings, seed)
        predicted, truth, there, _ = judged(Body(made, arrays), newer)
        found.append(float(np.abs(predicted - truth)[there].mean()) if there.any() else np.inf)
    return float(np.mean(found))


def _groups(
    best: Mapping[str, Any],
    fold: tuple[list[Part], list[Part]],
    settings: JsonObject,
    seed: int,
) -> Floats:
    """Learn at which times of the day forecasting is hard, from origins not trained on."""
    older, newest = fold
    body = Body(*build(best, older, settings, seed))
    predicted, truth, there, batches = judged(body, newest)
    local = np.concatenate([b.local[:, b.z.shape[1] :] for b in batches])
    group = steps.phases(local, settings["calendar"])["group"].ravel()
    error = np.where(there, np.abs(predicted - truth), 0.0)
    count = int(settings["calendar"]["groups"])
    found = np.ones((count, error.shape[2]))
    for o in range(error.shape[2]):
        rows = np.bincount(group, there[:, :, o].ravel().astype(np.float64), count)
        total = np.bincount(group, error[:, :, o].ravel(), count)
        mean = max(float(total.sum() / max(rows.sum(), 1.0)), 1e-12)
        found[:, o] = (total / mean + _PRIOR) / (rows + _PRIOR)
    return found


def facts(every: Sequence[Series], settings: JsonObject, arrays: Arrays) -> dict[str, Any]:
    """Return what measuring needs to know of the training rows.

    Returns:
        `scales`: standard deviation of each output by entity (the last for unknown ones), and
        `naive`: mean absolute error of repeating the last season, the unit of MASE.
    """
    season = int(settings["season"])
    sensors = list(settings["sensors"])
    places = [sensors.index(name) for name in settings["outputs"]]
    scale = np.asarray(arrays["scale"])
    naive = np.array(scale)
    for one in every:
        values = np.where((one.split == 0)[:, None], one.values[:, places], np.nan)
        change = np.abs(values[season:] - values[:-season]).astype(np.float64)
        for o in range(len(places)):
            known = change[:, o][np.isfinite(change[:, o])]
            if len(known) and known.mean() > 0.0:
                naive[one.entity, o] = float(known.mean())
    known_entities = [one.entity for one in every]
    naive[-1] = np.median(naive[known_entities], axis=0)
    return {"scales": scale.tolist(), "naive": naive.tolist()}


def _check(every: Sequence[Series], settings: JsonObject) -> None:
    for split in ("train", "calibrate", "test"):
        count = sum(len(series.origins(one, settings, split)) for one in every)
        if split == "train":
            lags = int(settings["lags"])
            count = sum(
                int((series.origins(one, settings, split) >= lags - 1).sum()) for one in every
            )
        if count >= (_FEWEST if split == "train" else 1):
            continue
        lags, ahead = int(settings["lags"]), int(settings["ahead"])
        raise Problem(
            "G542",
            f"The rows to {split} with hold {count} whole forecasts.",
            where="options",
            why=f"Each needs {lags} rows to look back on and {ahead} to look ahead to.",
            tries=[
                f"--set options.window={max(1, lags // 4)} "
                f"--set options.horizon={max(1, ahead // 4)}",
                "genba explain G542",
            ],
        )
