"""Training one candidate on given rows: the three bodies and what their residuals look like."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject
from genba.learn import linear, trees
from genba.tasks.sensor.anomaly.model import residuals, standardise, statistics

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Arrays = dict[str, Array]

_SPREAD_BINS: Final = 12
_BODIES: Final = {"ridge": "hinges", "boosting": "trees", "components": "components"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The rows a model may learn from, cleaned; `usable` are complete and not anomalies."""

    filled: npt.NDArray[np.float32]  # [N, L * S]
    time: Ints
    label: Floats
    usable: npt.NDArray[np.bool_]
    usual: npt.NDArray[np.float32]  # [S]


def build(
    trial: Mapping[str, Any], data: Training, rows: Ints, settings: JsonObject
) -> tuple[dict[str, Any], Arrays]:
    """Train one candidate on some rows, leaving out the most unusual ones in a second pass.

    Training data of a factory holds faults that nobody labelled. Rows that a person has labelled
    normal are never left out.

    Returns:
        Settings of the model and its arrays, all but the thresholds.
    """
    chosen = dict(trial["settings"])
    made = {
        **settings,
        "body": _BODIES[trial["candidate"]],
        "transform": chosen.pop("transform", "identity"),
        "training": chosen,
    }
    arrays = _front(data, rows, made)
    doubtful = data.label[rows] != 0.0
    if doubtful.any():
        first = {**chosen, "iterations": -(-int(chosen.get("iterations", 1)) // 2)}
        _train(arrays, data, rows, made, first)
        statistic, _ = unusual(made, arrays, data.filled[rows])
        worst = statistic > np.quantile(statistic, 1.0 - float(chosen["trim"]))
        rows = rows[~(worst & doubtful)]
    _train(arrays, data, rows, made, chosen)
    return made, arrays


def _front(data: Training, rows: Ints, made: Mapping[str, Any]) -> Arrays:
    sensors = list(made["sensors"])
    now = data.filled[rows][:, -len(sensors) :].astype(np.float64)
    if made["transform"] == "asinh":  # median and quartiles: not moved by the tails it draws in
        center = np.median(now, axis=0)
        middle = np.subtract(*np.quantile(now, [0.75, 0.25], axis=0)) / 1.349
        scale = np.maximum(middle, 0.05 * now.std(axis=0))
    else:
        center, scale = now.mean(axis=0), now.std(axis=0)
    return {
        "usual": data.usual,
        "center": center,
        "scale": np.where(scale > 1e-9, scale, 1.0),
        "outputs": np.array([sensors.index(o) for o in made["outputs"]], dtype=np.int64),
    }


def _train(
    arrays: Arrays,
    data: Training,
    rows: Ints,
    made: Mapping[str, Any],
    chosen: Mapping[str, Any],
) -> None:
    filled = data.filled[rows]
    u = standardise(filled, int(made["lags"]), arrays, str(made["transform"]))
    target = u[:, -len(made["sensors"]) :][:, arrays["outputs"]]
    if made["body"] == "components":
        _train_components(arrays, u, float(chosen["kept"]))
        return
    columns = _columns(arrays, made, chosen)
    if made["body"] == "trees":
        arrays.update(trees.grow(filled, target, chosen, columns).to_arrays())
    else:
        _train_hinges(arrays, u, target, columns, chosen)
    _train_residual(arrays, filled, made, joint=bool(chosen.get("joint")))


def _columns(arrays: Arrays, made: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[Ints]:
    """Return the columns of the flat window that may explain each output: never itself, now.

    In a regression the earlier values of the output are left out as well: a fault that lasts
    would otherwise explain itself away.
    """
    sensors, lags = len(made["sensors"]), int(made["lags"])
    flat = np.arange(lags * sensors, dtype=np.int64)
    now = flat >= (lags - 1) * sensors
    if made["mode"] == "regression":
        is_input = flat % sensors != arrays["outputs"][0]
        return [flat[is_input & (now | bool(chosen["lagged"]))]]
    return [flat[~(now & (flat % sensors == output))] for output in arrays["outputs"]]


def _train_hinges(
    arrays: Arrays,
    u: Floats,
    target: Floats,
    columns: list[Ints],
    chosen: Mapping[str, Any],
) -> None:
    union: Ints = np.unique(np.concatenate(columns))
    inputs = u[:, union]
    arrays["columns"] = union
    arrays["floor"], arrays["ceiling"] = inputs.min(axis=0), inputs.max(axis=0)
    hinges = linear.make_hinges(inputs, int(chosen["knots"]))
    made_of = np.append(union, -1)[hinges.sources(len(union))]
    allowed = np.stack([(made_of < 0) | np.isin(made_of, c) for c in columns], axis=1)
    gram, moment = linear.normal_equations(hinges, inputs, target)
    arrays["weights"] = linear.solve(gram, moment, float(chosen["penalty"]), allowed)
    arrays["lowest"], arrays["highest"] = np.quantile(target, [0.001, 0.999], axis=0)
    arrays.update({f"hinge.{n}": getattr(hinges, n) for n in linear.Hinges.__slots__})


def _train_residual(
    arrays: Arrays, filled: npt.NDArray[np.float32], made: Mapping[str, Any], *, joint: bool
) -> None:
    """Keep what a usual residual is: its spread by level, or the map that whitens all sensors."""
    predicted, residual = residuals(made, arrays, filled, np.ones(filled.shape, dtype=bool))
    if made["mode"] == "regression":
        arrays["spread.at"], arrays["spread.value"] = _usual_size(predicted[:, 0], residual[:, 0])
        return
    size = np.sqrt((residual**2).mean(axis=0)) + 1e-6
    if not joint:
        arrays["whiten"] = np.diag(1.0 / size)
        return
    scaled = residual / size
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    arrays["whiten"] = (vectors / np.sqrt(np.maximum(values, 1e-3))) / size[:, None]


def _usual_size(predicted: Floats, residual: Floats) -> tuple[Floats, Floats]:
    """Return the mean absolute residual at several levels of the expected value."""
    order = np.argsort(predicted, kind="stable")
    groups = [g for g in np.array_split(order, _SPREAD_BINS) if len(g)]
    at = np.array([predicted[g].mean() for g in groups])
    value = np.array([np.abs(residual[g]).mean() for g in groups])
    value = np.maximum(value, 0.25 * value.mean() + 1e-9)  # near zero, rounding is not a fault
    apart = max(0.005 * float(np.ptp(at)), 1e-9)
    keep = [0]
    for i in range(1, len(at)):
        if at[i] - at[keep[-1]] > apart:
            keep.append(i)
    return at[keep], value[keep]


def _train_components(arrays: Arrays, u: Floats, share: float) -> None:
    offset = u.mean(axis=0)
    centred = u - offset
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    values, vectors = np.maximum(values[::-1], 1e-9), vectors[:, ::-1]
    explained = np.cumsum(values) / values.sum()
    kept = min(int(np.searchsorted(explained, share)) + 1, max(1, len(values) - 1))
    components = vectors[:, :kept]
    rest = np.eye(len(values)) - components @ components.T
    t2 = components / np.sqrt(values[:kept] * kept)
    q = rest / np.sqrt(max(float(values[kept:].sum()), 1e-9))
    arrays["offset"], arrays["components"] = offset, components
    arrays["whiten"] = np.concatenate([t2, q], axis=1)


def unusual(
    made: JsonObject, arrays: Arrays, filled: npt.NDArray[np.float32]
) -> tuple[Floats, Floats]:
    """Return how unusual complete rows are, each on its own, and their residuals."""
    everywhere = np.ones(filled.shape, dtype=bool)
    predicted, residual = residuals(made, arrays, filled, everywhere)
    return statistics(made, arrays, predicted, residual), residual
