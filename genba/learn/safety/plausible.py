"""Fitting what the other sensors and the readings before promise of a reading."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.edge.safety.plan import Plausible
from genba.edge.safety.plausible import FARTHEST, Residuals, forget
from genba.edge.safety.track import Track
from genba.learn.safety.calibration import limit, matrix, numbers
from genba.learn.safety.series import Bools, Floats, Ints, Series

_RIDGE: Final = 1e-3  # of the mean diagonal
_USEFUL: Final = 0.5  # share of the variance that a prediction must explain to be a witness
_MOST_ROWS: Final = 60_000
_SMOOTH: Final = 0.1
_SPREAD: Final = 3.29  # standard deviations between the 5 % and the 95 % quantile
_HISTORY: Final = 2
_LONGEST_RUN: Final = 60  # a sensor that repeats itself longer by nature is not watched for it
_SHORTEST_RUN: Final = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A plan of predictions, and how much of each sensor they explain on calibration rows."""

    plan: Plausible
    by_others: Floats  # [C] share of the variance
    by_before: Floats


def fit_plausible(
    train: Series, calibrate: Series, alpha: float, judged: Bools, usable: bool
) -> Fitted:
    """Fit the predictions on training rows and their limits on calibration rows.

    Args:
        train: Rows the model was trained on.
        calibrate: Rows it was not.
        alpha: Share of normal readings that each single limit may be exceeded by.
        judged: Sensors that the model itself judges; the others are no second witness to it.
        usable: Whether rows have an order, so that one can promise the next.
    """
    history = _HISTORY if usable else 0
    center, scale = _scaling(train)
    blank = Plausible(
        center=numbers(center),
        scale=numbers(scale),
        history=history,
        weights=(),
        cross=(),
        before=(),
        drift=(),
        smooth=_SMOOTH,
    )
    features, z = _features(train, blank)
    rows = np.flatnonzero(np.isfinite(features).all(axis=1) & train.normal)
    rows = rows[:: max(1, len(rows) // _MOST_ROWS)]
    weights = _weights(features[rows], z[rows], history)
    features, z = _features(calibrate, blank)
    good = np.isfinite(z).all(axis=1) & calibrate.normal
    count = len(center)
    residual = np.concatenate([z, z], axis=1) - np.nan_to_num(features) @ weights
    begun = good & np.isfinite(features).all(axis=1)
    by_others = _explained(residual[good][:, :count], z[good])
    by_before = _explained(residual[begun][:, count:], z[begun])
    witness = (by_others >= _USEFUL) & ~judged
    drift = _smoothed(np.where(good[:, None], residual[:, :count], 0.0), calibrate, good)
    plan = Plausible(
        center=blank.center,
        scale=blank.scale,
        history=history,
        weights=matrix(weights),
        cross=_limits(residual[good][:, :count], alpha, witness),
        before=_limits(residual[begun][:, count:], alpha, (by_before >= _USEFUL) & usable),
        drift=_limits(drift[good], alpha, witness & usable),
        smooth=_SMOOTH,
    )
    return Fitted(plan=plan, by_others=by_others, by_before=by_before)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """From how many equal readings on a sensor counts as stuck; 0: it is not watched."""

    longest: int
    rest: float | None  # a value at which it stands still by nature: there `at_rest` counts
    at_rest: int


def longest_runs(series: Series, alpha: float) -> tuple[Runs, ...]:
    """Return for each sensor how long it repeats itself, at rest and elsewhere.

    So long a run had at most a share `alpha` of the readings. A sensor that repeats itself by
    nature (a counter, a state) would need so long a run that it says nothing. Where most of the
    long runs are of one value (no wind, a switched-off machine), that value has a limit of its own,
    so that the sensor can still be found stuck at any other.
    """
    lengths, found = series.run_lengths(), []
    for sensor in range(series.values.shape[1]):
        known = np.isfinite(series.values[:, sensor])
        runs, values = lengths[known, sensor], series.values[known, sensor]
        rest = _rest(values[runs >= _SHORTEST_RUN])
        moving = runs if rest is None else runs[values != rest]
        still = runs[values == rest] if rest is not None else runs[:0]
        found.append(
            Runs(longest=_longest(moving, alpha), rest=rest, at_rest=_longest(still, alpha))
        )
    return tuple(found)


def _longest(runs: Ints, alpha: float) -> int:
    if not len(runs):
        return 0
    longest = max(_SHORTEST_RUN, int(limit(runs.astype(np.float64), alpha)) + 1)
    return longest if longest <= _LONGEST_RUN else 0


def _rest(values: Floats) -> float | None:
    if not len(values):
        return None
    found, counts = np.unique(values, return_counts=True)
    most = int(counts.argmax())
    return float(found[most]) if counts[most] * 2 > len(values) else None


def _scaling(train: Series) -> tuple[Floats, Floats]:
    known = train.values[train.normal] if train.normal.any() else train.values
    low, middle, high = np.nanquantile(known, (0.05, 0.5, 0.95), axis=0)
    spread = (high - low) / _SPREAD
    other = np.nanstd(known, axis=0)
    scale = np.where(spread > 0, spread, np.where(other > 0, other, 1.0))
    return np.asarray(middle), np.asarray(scale)


def _features(series: Series, plan: Plausible) -> tuple[Floats, Floats]:
    """Return what `Residuals` computes for each row; NaN where a reading before is missing."""
    count = len(plan.center)
    z = (series.values - np.array(plan.center)) / np.array(plan.scale)
    z = np.clip(z, -FARTHEST, FARTHEST)
    left, right = np.triu_indices(count)
    parts = [np.ones((len(z), 1)), z, z[:, left] * z[:, right]]
    follows = series.follows()
    linked = follows.copy()
    for back in range(1, plan.history + 1):
        earlier = np.full_like(z, np.nan)
        earlier[back:] = z[:-back]
        earlier[~linked] = np.nan
        parts.append(earlier)
        linked = follows & np.concatenate([[False], linked[:-1]])
    return np.concatenate(parts, axis=1), z


def _weights(features: Floats, z: Floats, history: int) -> Floats:
    """Return [features, 2 C]: each sensor from the others alone, and from the readings before."""
    count = z.shape[1]
    total = features.shape[1]
    left, right = np.triu_indices(count)
    weights = np.zeros((total, 2 * count))
    now = 1 + count + len(left)
    for i in range(count):
        squares = 1 + count + np.flatnonzero((left != i) & (right != i))
        linear = 1 + np.flatnonzero(np.arange(count) != i)
        used = np.concatenate([[0], linear, squares])
        weights[used, i] = _ridge(features[:, used], z[:, i])
    if history:
        used = np.concatenate([[0], np.arange(now, total)])
        weights[np.ix_(used, np.arange(count, 2 * count))] = _ridge(features[:, used], z)
    return weights


def _ridge(x: Floats, y: Floats) -> Floats:
    gram = x.T @ x
    unit = max(float(np.trace(gram)) / len(gram), 1e-12)
    return np.asarray(np.linalg.solve(gram + np.eye(len(gram)) * unit * _RIDGE, x.T @ y))


def _explained(residual: Floats, z: Floats) -> Floats:
    if not len(z):
        return np.zeros(z.shape[1])
    variance = z.var(axis=0)
    left = (residual**2).mean(axis=0)
    return np.asarray(np.where(variance > 0, 1.0 - left / np.maximum(variance, 1e-12), 0.0))


def _limits(residual: Floats, alpha: float, watched: Bools) -> tuple[float, ...]:
    return tuple(
        limit(np.abs(residual[:, i]), alpha) if watched[i] else 0.0
        for i in range(residual.shape[1])
    )


def _smoothed(residual: Floats, series: Series, good: Bools) -> Floats:
    """Return the smoothed residuals as a device would see them, forgotten at every gap."""
    found = np.zeros_like(residual)
    state = np.zeros(residual.shape[1])
    follows = series.follows()
    for row in range(len(residual)):
        if not follows[row]:
            state[:] = 0.0
        if good[row]:
            state += _SMOOTH * (residual[row] - state)
        else:
            state[:] = 0.0
        found[row] = state
    return found


def replay(plan: Plausible, series: Series) -> Floats:
    """Return the statistics of every row as a device computes them, for tests: [N, 3 C]."""
    residuals, track = Residuals(plan), Track()
    found = np.full((len(series.values), 3 * len(plan.center)), np.nan)
    follows = series.follows()
    for row, values in enumerate(series.values):
        if not follows[row]:
            forget(track)
        z: npt.NDArray[np.float64] = residuals.standardise(values)
        if np.isfinite(z).all():
            found[row] = residuals.statistics(z, track)
        else:
            forget(track)
    return found
