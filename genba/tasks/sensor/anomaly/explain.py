"""Why a prediction alarmed: each sensor is set to its usual value and the score watched."""

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Attribution, JsonObject, Predict, Tensors


def explain(predict: Predict, tensors: Tensors, settings: JsonObject) -> tuple[Attribution, ...]:
    """Say which inputs caused the score of one prediction (batch of one), largest first.

    An output's usual value is what the model expected of it; an input's is the one most common in
    training. The share of a sensor is its part of the drops in score; all forms of a model can be
    explained, because nothing but predictions is asked of it.
    """
    window = np.asarray(tensors["window"], dtype=np.float32)
    made = predict(tensors)
    before, expected = float(made["score"][0]), np.asarray(made["expected"])[0]
    outputs = {name: float(e) for name, e in zip(settings["outputs"], expected, strict=True)}
    usual = [outputs.get(n, float(settings["usual"][n])) for n in settings["sensors"]]
    changed = np.repeat(window, len(usual), axis=0)
    for sensor, value in enumerate(usual):
        changed[sensor, :, sensor] = value
    entity = np.repeat(np.asarray(tensors["entity"]), len(usual))
    after = np.asarray(predict({"window": changed, "entity": entity})["score"], dtype=np.float64)
    shares = _shares(before - after)
    found = [
        Attribution(
            name=name, share=float(shares[i]), value=float(window[0, -1, i]), usual=usual[i]
        )
        for i, name in enumerate(settings["sensors"])
    ]
    return tuple(sorted(found, key=lambda a: -a.share))


def _shares(drops: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the positive drops as shares; equal ones when nothing lowers the score."""
    positive = np.maximum(drops, 0.0)
    if positive.sum() <= 0.0:
        return np.full(len(drops), 1.0 / len(drops))
    return np.asarray(positive / positive.sum(), dtype=np.float64)
