"""Windows made ready for a model: gaps filled, scaled, with the calendar of every step.

The same batch comes from two sides: from the tensors of a request (`from_tensors`, what a package
does) and, for training, cut out of series that were made ready once (`Ready`). Both fill gaps by
the same rule.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Tensors
from genba.tasks.sensor.forecast import series, zones
from genba.tasks.sensor.forecast.arrays import filled, mean_known
from genba.tasks.sensor.forecast.explained import Explained
from genba.tasks.sensor.forecast.series import Ints, Series

Floats = npt.NDArray[np.float64]
Arrays = dict[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """N windows of L rows and the H steps behind them, for O outputs and K known covariates."""

    z: Floats  # [N, L, O] outputs in units of their entity
    known: Floats  # [N, L + H, K] standardised
    explained: Floats | None  # [N, L + H, O], of models that have it
    beside: Floats  # [N, 3 * P]: now, a quarter of a day and a day of covariates of the past
    local: Ints  # [N, L + H] local time, ms
    center: Floats  # [N, O] of the entity
    scale: Floats  # [N, O]
    look: Floats  # [N, 2 * S]: mean of the newest season and share of it that was missing

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.z)


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where the columns of a window are."""

    outputs: list[int]
    known: list[int]
    beside: list[int]

    @classmethod
    def of(cls, settings: JsonObject) -> "Places":
        """Return the places of the settings."""
        sensors = list(settings["sensors"])
        return cls(
            **{n: [sensors.index(s) for s in settings[n]] for n in ("outputs", "known", "beside")}
        )


def scales(every: list[Series], settings: JsonObject, entities: int) -> Arrays:
    """Return what readings are standardised by, from training rows only.

    Returns:
        `center` and `scale` [entities + 1, O], the last row for entities never seen (the median
        of all), `usual` [S], `known_center` and `known_scale` [K], `beside_center` and
        `beside_scale` [P].
    """
    places = Places.of(settings)
    rows = [s.values[s.split == 0].astype(np.float64) for s in every]
    together = np.concatenate(rows)
    usual = np.nan_to_num(mean_known(together, 0))
    spread = _spread(together, usual)
    center = np.tile(usual[places.outputs], (entities + 1, 1))
    scale = np.tile(spread[places.outputs], (entities + 1, 1))
    for one, values in zip(every, rows, strict=True):
        mine = mean_known(values[:, places.outputs], 0)
        mine = np.where(np.isfinite(mine), mine, usual[places.outputs])
        center[one.entity] = mine
        scale[one.entity] = _spread(values[:, places.outputs], mine)
    if every:
        known = [one.entity for one in every]
        center[-1], scale[-1] = np.median(center[known], 0), np.median(scale[known], 0)
    return {
        "center": center,
        "scale": scale,
        "usual": usual,
        "known_center": usual[places.known],
        "known_scale": spread[places.known],
        "beside_center": usual[places.beside],
        "beside_scale": spread[places.beside],
    }


def _spread(values: Floats, center: Floats) -> Floats:
    """Return standard deviations; 1 for what never changes."""
    found = np.sqrt(np.nan_to_num(mean_known((values - center) ** 2, 0)))
    return np.where(found > 1e-9 * np.maximum(1.0, np.abs(center)), found, 1.0)


def from_tensors(
    tensors: Tensors, settings: JsonObject, arrays: Arrays, explained: Explained | None
) -> Batch:
    """Make the inputs of a request ready."""
    places, shifts = Places.of(settings), settings["fill"]
    low, high = series.limits(settings)
    given = np.asarray(tensors["window"], dtype=np.float32)
    window: Floats = np.where((given >= low) & (given <= high), given, np.nan).astype(np.float64)
    usual = np.asarray(arrays["usual"])
    full = filled(window, shifts, 1, usual)
    known = _known(tensors, window, settings, usual)
    center, scale = _of_entity(np.asarray(tensors["entity"]), full[:, :, places.outputs], arrays)
    local = zones.local_ms(moments(np.asarray(tensors["time"]), settings), settings["zone"])
    known = (known - arrays["known_center"]) / arrays["known_scale"]
    return Batch(
        z=(full[:, :, places.outputs] - center[:, None]) / scale[:, None],
        known=known,
        explained=None if explained is None else explained.apply(known, local, settings),
        beside=_recent(full[:, :, places.beside], settings, arrays),
        local=local,
        center=center,
        scale=scale,
        look=_look(window, full, settings),
    )


def moments(time: Ints, settings: JsonObject) -> Ints:
    """Return the time of every step of the window and the horizon [N, L + H], ms UTC."""
    lags, ahead = int(settings["lags"]), int(settings["ahead"])
    steps = np.arange(1 - lags, ahead + 1, dtype=np.int64) * int(settings["step_ms"])
    return np.asarray(time, dtype=np.int64)[:, None] + steps


def look_span(settings: JsonObject) -> int:
    """Return how many of the newest rows the statistics that are watched for drift cover."""
    return max(1, min(int(settings["lags"]), int((settings["seasons"] or [24])[0])))


def recent_spans(settings: JsonObject) -> tuple[int, int]:
    """Return the newest rows that stand for now and then: a quarter of a day and a day, or so."""
    day = look_span(settings)
    return max(1, day // 4), day


def _known(tensors: Tensors, window: Floats, settings: JsonObject, usual: Floats) -> Floats:
    places = Places.of(settings).known
    length = int(settings["lags"]) + int(settings["ahead"])
    if not places:
        return np.zeros((len(window), length, 0))
    low, high = series.limits(settings)
    future = np.asarray(tensors["future"], dtype=np.float32)
    future = np.where((future >= low[places]) & (future <= high[places]), future, np.nan)
    both = np.concatenate([window[:, :, places], future.astype(np.float64)], axis=1)
    return filled(both, settings["fill"], 1, usual[places])


def _of_entity(entity: Array, outputs: Floats, arrays: Arrays) -> tuple[Floats, Floats]:
    """Return center and scale; an entity never seen is judged by its own window."""
    seen = (entity >= 0) & (entity < len(arrays["center"]) - 1)
    at = np.where(seen, entity, len(arrays["center"]) - 1)
    center, scale = arrays["center"][at], arrays["scale"][at]
    own = outputs.mean(axis=1)
    spread = np.sqrt(((outputs - own[:, None]) ** 2).mean(axis=1))
    spread = np.where(spread > 1e-6 * scale, spread, scale)
    return np.where(seen[:, None], center, own), np.where(seen[:, None], scale, spread)


def _recent(beside: Floats, settings: JsonObject, arrays: Arrays) -> Floats:
    x = (beside - arrays["beside_center"]) / arrays["beside_scale"]
    parts = [x[:, -span:].mean(axis=1) for span in (1, *recent_spans(settings))]
    return np.concatenate(parts, axis=1)


def _look(window: Floats, full: Floats, settings: JsonObject) -> Floats:
    span = look_span(settings)
    missing = np.isnan(window[:, -span:]).mean(axis=1)
    return np.concatenate([full[:, -span:].mean(axis=1), missing], axis=1)


class Ready:
    """A series of training rows, made ready once, from which batches are cut.

    Args:
        one: The series.
        settings: Of the task.
        arrays: Of `scales`.
        train_only: Leave out what is not in the training split.
    """

    def __init__(
        self, one: Series, settings: JsonObject, arrays: Arrays, *, train_only: bool = True
    ) -> None:
        places, usual = Places.of(settings), np.asarray(arrays["usual"])
        values = one.values.astype(np.float64)
        if train_only:
            values = np.where((one.split == 0)[:, None], values, np.nan)
        full = filled(values, settings["fill"], 0, usual)
        self.series, self.settings, self.arrays = one, settings, arrays
        self.center = np.asarray(arrays["center"])[one.entity]
        self.scale = np.asarray(arrays["scale"])[one.entity]
        self.z = (full[:, places.outputs] - self.center) / self.scale
        self.there = np.isfinite(values[:, places.outputs])
        self.known = (full[:, places.known] - arrays["known_center"]) / arrays["known_scale"]
        self.beside = full[:, places.beside]
        self.local = zones.local_ms(one.time, settings["zone"])
        self.explained: Floats | None = None

    def explain(self, explained: Explained | None) -> None:
        """Say what calendar and covariates explain; None leaves it out."""
        if explained is None:
            self.explained = None
        else:
            self.explained = explained.apply(self.known, self.local, self.settings)

    def batch(self, at: Ints) -> Batch:
        """Return the windows that end at these steps; all of them lie within the series."""
        lags, ahead = int(self.settings["lags"]), int(self.settings["ahead"])
        rows = (at - lags + 1)[:, None] + np.arange(lags + ahead)
        known, explained = self.known[rows], self.explained
        beside = self.beside[rows[:, :lags]]
        count = (len(at), len(self.settings["outputs"]))
        return Batch(
            z=self.z[rows[:, :lags]],
            known=known,
            explained=None if explained is None else explained[rows],
            beside=_recent(beside, self.settings, self.arrays),
            local=self.local[rows],
            center=np.broadcast_to(self.center, count),
            scale=np.broadcast_to(self.scale, count),
            look=np.zeros((len(at), 0)),  # watched in service, not trained on
        )

    def after(self, at: Ints) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return what came after [N, H, O] (gaps filled) and which of it was really read."""
        rows = at[:, None] + 1 + np.arange(int(self.settings["ahead"]))
        return self.z[rows], self.there[rows]
