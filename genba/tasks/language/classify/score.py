"""How good a classifier of texts is: per class, in doubt, and with what belongs to no class."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Predict, View
from genba.core.task import Scores
from genba.learn.bootstrap import FEWEST_BLOCKS
from genba.learn.classes.score import LEAST, UNKNOWN, Seen, places, scores
from genba.learn.proportion import proportion
from genba.learn.ranking import auroc_measure
from genba.tasks.language.classify import schema

Ints = npt.NDArray[np.int64]

_KINDS = {"alarm": bool, "confidence": float, "loss": float, "doubt": float}
_NAMES = ("row", "label", "truth", "best", "entity", *_KINDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """What a model said about texts that belong to no class."""

    doubt: Array  # 0 to 1: how likely out of scope, of these
    doubt_inside: Array  # and of those that belong to one
    alarm: Array


def score(predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
    """Measure any form of the model on the labelled texts of a split, with intervals.

    Texts that come in twelve or more groups (entities) are resampled by group, others one by one.
    What belongs to no class counts in `scope_auroc`, `out_refused` (share that the model abstained
    from) and `in_answered`, and in nothing else.
    """
    seen, outside = collect(predict, view, split, settings)
    found = scores(seen, [str(name) for name in settings["classes"]])
    if not len(outside.doubt) or not len(seen.row):
        return found
    alarms = float(outside.alarm.sum())
    ranked = auroc_measure(outside.doubt_inside, outside.doubt)
    extra = {
        **({"scope_auroc": ranked} if ranked else {}),
        "out_refused": proportion(alarms, len(outside.alarm)),
        "in_answered": proportion(float((~seen.alarm).sum()), len(seen.alarm)),
    }
    return Scores(measures={**found.measures, **extra}, evidence=found.evidence)


def collect(predict: Predict, view: View, split: str, settings: JsonObject) -> tuple[Seen, Outside]:
    """Return what a model says about the labelled texts of a split, one chunk at a time."""
    known = [str(name) for name in settings["classes"]]
    numbers = places(view.classes, known)
    parts = [{name: np.zeros(0, dtype=_KINDS.get(name, np.int64)) for name in _NAMES}]
    for chunk in view.chunks(split):
        label = np.asarray(chunk["label"], dtype=np.float64)
        wanted = np.flatnonzero(np.isfinite(label) & (label >= 0) & (label < len(numbers)))
        if len(wanted):
            chosen = {name: column[wanted] for name, column in chunk.items()}
            parts.append(_part(predict, chosen, numbers, settings))
    whole = {name: np.concatenate([part[name] for part in parts]) for name in _NAMES}
    out = whole["truth"] == int(settings["outside_class"])
    out &= whole["truth"] != UNKNOWN
    outside = Outside(
        doubt=whole["doubt"][out], doubt_inside=whole["doubt"][~out], alarm=whole["alarm"][out]
    )
    kept = {name: column[~out] for name, column in whole.items() if name != "doubt"}
    group = kept.pop("entity")
    grouped = len(np.unique(group)) >= FEWEST_BLOCKS
    block = np.unique(group, return_inverse=True)[1] if grouped else np.arange(len(group))
    return Seen(**kept, block=block.astype(np.int64)), outside


def _part(
    predict: Predict, chunk: Mapping[str, Array], numbers: Ints, settings: JsonObject
) -> dict[str, Array]:
    samples = schema.samples(chunk, settings)
    found = predict(samples.tensors)
    probability = np.asarray(found["probability"], dtype=np.float64)
    label = samples.label.astype(np.int64)
    truth = numbers[label]
    said = np.where(truth == UNKNOWN, 0.0, probability[np.arange(len(truth)), truth])
    return {
        "row": samples.row,
        "label": label,
        "truth": truth,
        "best": np.argmax(probability, axis=1).astype(np.int64),
        "alarm": np.asarray(found["alarm"], dtype=bool),
        "confidence": probability.max(axis=1),
        "loss": -np.log(np.maximum(said, LEAST)),
        "doubt": 1.0 - probability.sum(axis=1),
        "entity": samples.entity.astype(np.int64),
    }
