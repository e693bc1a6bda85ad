"""How good a classifier is: per class, in doubt, and as good as it says."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Predict, View
from genba.core.task import Scores
from genba.learn.bootstrap import FEWEST_BLOCKS
from genba.learn.classes.score import LEAST, UNKNOWN, Seen, places, scores
from genba.tasks.vision.classify import schema

Ints = npt.NDArray[np.int64]


def score(predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
    """Measure any form of the model on the labelled images of a split, with intervals.

    Images that come in twelve or more groups (entities: lots, units) are resampled by group, others
    one by one.

    Returns:
        Measures, and as evidence per image row, loss, block, label, prediction, correct, abstained
        and confidence, and `confusion` [true, predicted] in the model's classes.
    """
    names = [str(name) for name in settings["classes"]]
    return scores(collect(predict, view, split, settings), names)


def collect(predict: Predict, view: View, split: str, settings: JsonObject) -> Seen:
    """Return what a model says about the labelled images of a split, one chunk at a time."""
    places_of = places(view.classes, [str(name) for name in settings["classes"]])
    parts: list[dict[str, Array]] = []
    for chunk in view.chunks(split):
        label = np.asarray(chunk["label"], dtype=np.float64)
        wanted = np.flatnonzero(np.isfinite(label) & (label >= 0) & (label < len(places_of)))
        if len(wanted):
            chosen = {name: column[wanted] for name, column in chunk.items()}
            parts.append(_part(predict, chosen, places_of, settings))
    if not parts:
        empty = np.zeros(0)
        kinds = {"alarm": bool, "confidence": float, "loss": float}
        names = ("row", "label", "truth", "best", "block", *kinds)
        return Seen(**{name: empty.astype(kinds.get(name, np.int64)) for name in names})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    group = whole.pop("entity")
    grouped = len(np.unique(group)) >= FEWEST_BLOCKS
    block = np.unique(group, return_inverse=True)[1] if grouped else np.arange(len(group))
    return Seen(**whole, block=block.astype(np.int64))


def _part(
    predict: Predict, chunk: Mapping[str, Array], places: Ints, settings: JsonObject
) -> dict[str, Array]:
    samples = schema.samples(chunk, settings)
    found = predict(samples.tensors)
    probability = np.asarray(found["probability"], dtype=np.float64)
    label = samples.label.astype(np.int64)
    truth = places[label]
    said = np.where(truth == UNKNOWN, 0.0, probability[np.arange(len(truth)), truth])
    return {
        "row": samples.row,
        "label": label,
        "truth": truth,
        "best": np.argmax(probability, axis=1).astype(np.int64),
        "alarm": np.asarray(found["alarm"], dtype=bool),
        "confidence": probability.max(axis=1),
        "loss": -np.log(np.maximum(said, LEAST)),
        "entity": samples.entity.astype(np.int64),
    }
