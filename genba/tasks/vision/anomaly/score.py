"""How good a model is: measures with intervals, from any form of it that can predict."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, Columns, JsonObject, Predict, View
from genba.core.task import Scores
from genba.core.values import Measure
from genba.edge.images import decode_mask
from genba.learn.ranking import auroc_measure, recall_measure, share_measure
from genba.learn.regions import Counted, count_pixels, pixel_measures
from genba.tasks.vision.anomaly import schema, simulate

Evidence = dict[str, Array]
Measures = dict[str, Measure]
Floats = npt.NDArray[np.float64]

RATES: Final = {"0_5": 0.005, "1": 0.01, "5": 0.05}  # of overkill, in per cent and as shares
SIMULATED: Final = "simulated_"
_MOST_DRAWN: Final = 120  # good images on which defects are drawn
_MOST_COUNTED: Final = 1_500  # images whose pixels are counted
_SEED: Final = 20_240_501  # drawn alike for every model, so that they can be compared


def score(predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
    """Measure any form of the model on a split, with intervals.

    Evidence per image: row, time, label, score, alarm, loss (a wrong decision; NaN where there
    is no label), block. Evidence per simulated defect: injected_row, injected_kind,
    injected_score, injected_alarm.
    """
    parts: list[Evidence] = []
    drawn: list[Evidence] = []
    counted: dict[str, list[Counted]] = {"": [], SIMULATED: []}
    some = _sample(view, split)
    for columns in view.chunks(split):
        samples = schema.samples(columns, settings)
        made = predict(samples.tensors)
        parts.append(_judged(columns, made))
        if len(counted[""]) < _MOST_COUNTED:
            counted[""] += _counted(columns, made["map"], int(settings["size"]))
        at = np.flatnonzero(np.isin(samples.row, some))
        if len(at):
            good = [count_pixels(m, _nothing(settings)) for m in np.asarray(made["map"])[at]]
            found, pixels = _simulated(predict, samples.tensors["image"][at], samples.row[at], some)
            drawn.append(found)
            counted[SIMULATED] += [*good, *pixels]
    if not parts:
        return Scores(measures={})
    evidence = schema.concatenated(parts)
    evidence["block"] = np.arange(len(evidence["row"]), dtype=np.int64)
    evidence |= schema.concatenated(drawn) if drawn else _no_defects()
    found_measures = measures(evidence, settings)
    found_measures |= pixel_measures(counted[""])
    for name, value in pixel_measures(counted[SIMULATED], "modelled").items():
        found_measures[f"{SIMULATED}{name}"] = value
    return Scores(measures=found_measures, evidence=evidence)


def measures(evidence: Mapping[str, Array], settings: JsonObject) -> Measures:
    """Compute every measure that the evidence allows; what has nothing to be measured is absent."""
    label, score_, alarm = evidence["label"], evidence["score"], evidence["alarm"]
    good, bad = label == 0.0, label > 0.0
    if not np.isfinite(label).any():  # nobody has labelled anything: taken for good parts
        good = np.isnan(label)
    found: dict[str, Measure | None] = {"overkill": share_measure(alarm[good])}
    found["auroc"] = auroc_measure(score_[good], score_[bad])
    for name, rate in RATES.items():
        found[f"recall_at_overkill_{name}"] = recall_measure(score_[good], score_[bad], rate)
    found["recall"] = share_measure(alarm[bad])
    found["escape_rate"] = share_measure(~alarm[bad])
    for number in np.unique(label[bad]):
        name = schema.class_name(number, settings["classes"])
        if name:
            kind = schema.kind_word(name)
            found[f"recall_{kind}"] = share_measure(alarm[label == number])
            found[f"auroc_{kind}"] = auroc_measure(score_[good], score_[label == number])
    injected = evidence["injected_alarm"]
    drawn = evidence["injected_score"]
    found[f"{SIMULATED}auroc"] = auroc_measure(score_[good], drawn, "modelled")
    found[f"{SIMULATED}recall_at_overkill_1"] = recall_measure(
        score_[good], drawn, RATES["1"], "modelled"
    )
    found[f"{SIMULATED}recall"] = share_measure(injected, "modelled")
    for number, drawn_kind in enumerate(simulate.KINDS):
        chosen = evidence["injected_kind"] == number
        found[f"{SIMULATED}recall_{drawn_kind}"] = share_measure(injected[chosen], "modelled")
    found["head_mb"] = Measure(value=float(settings.get("head_mb", 0.0)), unit="MB")
    return {name: value for name, value in found.items() if value is not None}


def _judged(columns: Columns, made: Mapping[str, Array]) -> Evidence:
    label = np.asarray(columns["label"], dtype=np.float64)
    alarm = np.asarray(made["alarm"], dtype=bool)
    wrong = np.where(label > 0.0, ~alarm, alarm).astype(np.float64)
    return {
        "row": np.asarray(columns["row"], dtype=np.int64),
        "time": np.asarray(columns["time"], dtype=np.int64),
        "label": label,
        "score": np.asarray(made["score"], dtype=np.float64),
        "alarm": alarm,
        "loss": np.where(np.isnan(label), np.nan, wrong),
    }


def _counted(columns: Columns, charts: Array, size: int) -> list[Counted]:
    """Count the pixels of good parts, and of defects where somebody has marked the region."""
    found = []
    label = np.asarray(columns["label"], dtype=np.float64)
    masks = np.asarray(columns.get("mask", np.full(len(label), None)), dtype=object)
    for known, mask, chart in zip(label, masks, np.asarray(charts), strict=True):
        if known == 0.0:
            found.append(count_pixels(chart, np.zeros((size, size), dtype=bool)))
        elif known > 0.0 and mask is not None:
            found.append(count_pixels(chart, decode_mask(mask, size)))
    return found


def _sample(view: View, split: str) -> npt.NDArray[np.int64]:
    """Return the rows of good parts on which defects are drawn, evenly spread."""
    parts = [(c["row"], c["label"]) for c in view.chunks(split)]
    if not parts:
        return np.zeros(0, dtype=np.int64)
    rows, label = (np.concatenate([p[i] for p in parts]) for i in range(2))
    rows = rows[schema.is_good(label, labelled=bool((label == 0.0).any()))]
    take = np.linspace(0, max(len(rows) - 1, 0), min(len(rows), _MOST_DRAWN)).astype(np.int64)
    return np.asarray(rows[take] if len(rows) else rows, dtype=np.int64)


def _simulated(
    predict: Predict, images: Array, rows: Array, some: Array
) -> tuple[Evidence, list[Counted]]:
    drawn = simulate.draw(images, _SEED, np.searchsorted(some, rows))
    ones = np.ones(len(images), dtype=np.float32)
    made = predict({"image": drawn.images, "threshold": ones})
    pixels = [count_pixels(m, k) for m, k in zip(made["map"], drawn.masks, strict=True)]
    found = {
        "injected_row": np.asarray(rows, dtype=np.int64),
        "injected_kind": drawn.kind,
        "injected_score": np.asarray(made["score"], dtype=np.float64),
        "injected_alarm": np.asarray(made["alarm"], dtype=bool),
    }
    return found, pixels


def _nothing(settings: JsonObject) -> npt.NDArray[np.bool_]:
    size = int(settings["size"])
    return np.zeros((size, size), dtype=bool)


def _no_defects() -> Evidence:
    return {
        "injected_row": np.zeros(0, dtype=np.int64),
        "injected_kind": np.zeros(0, dtype=np.int64),
        "injected_score": np.zeros(0),
        "injected_alarm": np.zeros(0, dtype=bool),
    }
