"""Why a prediction alarmed: each reading is set to its usual value and the score watched."""

import numpy as np
import numpy.typing as npt

from genba.core.protocols import JsonObject, Predict, Tensors
from genba.core.task import Attribution, Explanation

Floats = npt.NDArray[np.float64]


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
    """Say which sensors caused the score of one prediction (batch of one), and at which lag.

    An output's usual value is what the model expected of it; an input's is the one most common in
    training. The share of a sensor is its part of the drops in score when all of its readings are
    usual; it is divided among its lags by how far each of them alone moves the score. All forms
    of a model can be explained, because nothing but predictions is asked of it.
    """
    window = np.asarray(tensors["window"], dtype=np.float32)
    _, lags, count = window.shape
    made = predict(tensors)
    before, expected = float(made["score"][0]), np.asarray(made["expected"])[0]
    outputs = {name: float(e) for name, e in zip(settings["outputs"], expected, strict=True)}
    usual = [outputs.get(n, float(settings["usual"][n])) for n in settings["sensors"]]
    changed = np.repeat(window, count * (1 + lags), axis=0)
    for sensor, value in enumerate(usual):
        changed[sensor, :, sensor] = value
        for lag in range(lags):
            if lag == 0 or np.isfinite(window[0, lags - 1 - lag, sensor]):
                changed[count * (1 + lag) + sensor, lags - 1 - lag, sensor] = value
    entity = np.repeat(np.asarray(tensors["entity"]), len(changed))
    found = predict({**tensors, "window": changed, "entity": entity})["score"]
    after = np.asarray(found, dtype=np.float64)
    shares = _by_lag(_shares(before - after[:count]), (before - after[count:]).reshape(lags, -1))
    return Explanation(
        attributions=tuple(
            Attribution(
                name=_name(name, lag),
                share=float(shares[lag, i]),
                value=float(window[0, lags - 1 - lag, i]),
                usual=usual[i],
            )
            for lag, i in _largest_first(shares)
            for name in [settings["sensors"][i]]
        )
    )


def _largest_first(shares: Floats) -> list[tuple[int, int]]:
    """Return every sensor of now, and those before now that have a share."""
    lag, sensor = np.nonzero((shares > 0.0) | (np.arange(len(shares)) == 0)[:, None])
    order = np.argsort(-shares[lag, sensor], kind="stable")
    return [(int(lag[i]), int(sensor[i])) for i in order]


def _name(sensor: str, lag: int) -> str:
    """Return the name of a reading.

    Example:
        >>> _name("flow", 0), _name("flow", 2)
        ('flow', 'flow, 2 steps before')
    """
    return f"{sensor}, {lag} step{'s' if lag > 1 else ''} before" if lag else sensor


def _by_lag(shares: Floats, moved: Floats) -> Floats:
    """Divide the share of each sensor among its lags [lags, sensors]; what moves nothing is now."""
    size = np.abs(np.nan_to_num(moved))
    total = size.sum(axis=0)
    now = (np.arange(len(size)) == 0)[:, None].astype(np.float64)
    parts = np.where(total > 0.0, size / np.where(total > 0.0, total, 1.0), now)
    return np.asarray(shares * parts, dtype=np.float64)


def _shares(drops: Floats) -> Floats:
    """Return the positive drops as shares; equal ones when nothing lowers the score."""
    positive = np.maximum(drops, 0.0)
    if positive.sum() <= 0.0:
        return np.full(len(drops), 1.0 / len(drops))
    return np.asarray(positive / positive.sum(), dtype=np.float64)
