"""How good a model is: errors, intervals and what its alarms cost, with intervals over units."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject, Predict, View
from genba.core.task import Scores
from genba.core.values import Measure
from genba.learn.bootstrap import Statistic, measure, ratio
from genba.learn.bootstrap import sums_by_block as by_unit
from genba.learn.proportion import wilson
from genba.tasks.sensor.remaining_life import schema
from genba.tasks.sensor.remaining_life.lives import Lives, capped
from genba.tasks.sensor.remaining_life.policy import Fates, Prices, fates

Floats = npt.NDArray[np.float64]
Evidence = dict[str, Array]
Measures = dict[str, Measure]

_LATE: Final = 10.0  # PHM08: a life predicted too long costs e^(d/10) - 1,
_EARLY: Final = 13.0  # one predicted too short e^(-d/13) - 1
_CUTS_SEED: Final = 0  # of the cycle at which each unit is judged once, as in PHM08


def score(predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
    """Measure any form of the model on a split, with intervals over units.

    Evidence per sample: row, entity, time, block (the unit), label, truth (raw life, NaN where it
    is not known), capped (the life that was to be learnt), expected, low, high, score, alarm, loss
    (squared error of the capped life); and per sample of its unit: unit_missed, unit_cost,
    unit_used and unit_end (cycles), NaN where the unit did not run to failure.
    """
    lives = Lives.of(view, settings)
    units: dict[int, list[Evidence]] = {}
    for samples in schema.read(view, split, settings, lives):
        unit = int(samples.entity[0])
        made = predict(samples.tensors)
        left = samples.truth[:, 0]
        found = {
            "row": samples.row,
            "entity": samples.entity.astype(np.int64),
            "time": samples.time,
            "age": lives.age(unit, samples.time),
            "label": samples.label,
            "truth": left,
            "capped": capped(left, lives.at_least(unit, samples.time), float(settings["cap"])),
            **{n: np.asarray(made[n], dtype=np.float64) for n in ("expected", "low", "high")},
            "score": np.asarray(made["score"], dtype=np.float64),
            "alarm": np.asarray(made["alarm"], dtype=bool),
        }
        units.setdefault(unit, []).append(found)
    if not units:
        return Scores(measures={})
    parts = [_unit(chunks, place, settings) for place, chunks in enumerate(units.values())]
    evidence = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return Scores(measures=measures(evidence, settings), evidence=evidence)


def _unit(chunks: list[Evidence], place: int, settings: JsonObject) -> Evidence:
    """Return the evidence of one unit, with what became of it."""
    found = {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}
    count = len(found["row"])
    found["block"] = np.full(count, place, dtype=np.int64)
    found["loss"] = (found["expected"] - found["capped"]) ** 2
    known = np.flatnonzero(np.isfinite(found["truth"]))
    alarms = np.flatnonzero(found["alarm"])
    end = float(found["age"][known[-1]] + found["truth"][known[-1]]) if len(known) else np.nan
    first = float(found["age"][alarms[0]]) if len(alarms) else np.inf
    fate = fates(np.array([first]), np.array([end]), float(settings["lead"]))
    found["unit_end"] = np.full(count, end)
    found["unit_used"] = np.full(count, fate.used[0] if len(known) else np.nan)
    found["unit_missed"] = np.full(count, float(fate.missed[0]) if len(known) else np.nan)
    cost = float(fate.cost(Prices.of(settings))[0])
    found["unit_cost"] = np.full(count, cost if len(known) else np.nan)
    return found


def measures(evidence: Mapping[str, Array], settings: JsonObject) -> Measures:
    """Compute every measure that the evidence allows.

    `rmse`, `mae`, `phm08` and the coverages are of the capped life; `rmse_raw` of the raw one.
    `phm08` is the mean per unit at one cycle drawn at random (PHM08 judges each unit once and adds
    up), `phm08_rows` the mean over every row.
    """
    found: dict[str, Measure | None] = {}
    known = np.isfinite(evidence["capped"])
    if known.any():
        rows = {name: column[known] for name, column in evidence.items()}
        found |= {**_errors(rows), **_intervals(rows, settings)}
    found |= costs(evidence, settings)
    return {name: value for name, value in found.items() if value is not None}


def phm08(error: Floats) -> Floats:
    """Return the PHM08 score of errors, predicted minus true life (Saxena et al., 2008).

    Example:
        >>> phm08(np.array([10.0, -13.0, 0.0])).round(2).tolist()
        [1.72, 1.72, 0.0]
    """
    return np.expm1(np.where(error < 0, -error / _EARLY, error / _LATE))


def _errors(rows: Mapping[str, Array]) -> dict[str, Measure | None]:
    block, count = _renumbered(rows["block"]), len(rows["row"])
    one, error = np.ones(count), rows["expected"] - rows["capped"]
    sums = by_unit(block, rows["loss"], np.abs(error), phm08(error), one)
    found = {
        "rmse": measure(_root(0, 3), sums, unit="cycles", n=count),
        "mae": measure(ratio(1, 3), sums, unit="cycles", n=count),
        "phm08_rows": measure(ratio(2, 3), sums, n=count),
    }
    cuts = _cuts(block)
    at_cut = by_unit(block[cuts], phm08(error[cuts]), np.ones(len(cuts)))
    found["phm08"] = measure(ratio(0, 1), at_cut, n=len(cuts))
    raw = np.isfinite(rows["truth"])
    if raw.any():
        squares = (rows["expected"][raw] - rows["truth"][raw]) ** 2
        sums = by_unit(_renumbered(block[raw]), squares, np.ones(len(squares)))
        found["rmse_raw"] = measure(_root(0, 1), sums, unit="cycles", n=len(squares))
    return found


def _intervals(rows: Mapping[str, Array], settings: JsonObject) -> dict[str, Measure | None]:
    """Measure how often lives lie in their intervals; for those below the cap also apart.

    Before that, an interval that reaches up to the cap cannot miss.
    """
    block, count = _renumbered(rows["block"]), len(rows["row"])
    slack = 1e-3  # of a cycle: float32
    inside = (rows["capped"] >= rows["low"] - slack) & (rows["capped"] <= rows["high"] + slack)
    sums = by_unit(block, inside, rows["high"] - rows["low"], np.ones(count))
    found = {
        "coverage": measure(ratio(0, 2), sums, n=count),
        "width": measure(ratio(1, 2), sums, unit="cycles", n=count),
    }
    cap = float(settings["cap"])
    wearing = rows["capped"] < cap if cap else np.ones(count, dtype=bool)
    if wearing.any():
        width = (rows["high"] - rows["low"])[wearing]
        sums = by_unit(_renumbered(block[wearing]), inside[wearing], width, np.ones(len(width)))
        found["coverage_below_cap"] = measure(ratio(0, 2), sums, n=len(width))
        found["width_below_cap"] = measure(ratio(1, 2), sums, unit="cycles", n=len(width))
    return found


def costs(evidence: Mapping[str, Array], settings: JsonObject) -> dict[str, Measure | None]:
    """Measure what the alarms cost on units that ran to failure; nothing where none did.

    Resampling cannot show failures that did not happen: where none was missed, read the interval
    of `cost_per_unit` together with that of `missed_failures`.
    """
    found = unit_fates(evidence)
    if not len(found.end):
        return {}
    prices = Prices.of(settings)
    sums = np.stack(
        [
            found.cost(prices),
            found.used,
            found.end,
            found.missed,
            found.lost,
            np.ones(len(found.end)),
        ],
        axis=1,
    ).astype(np.float64)
    count = len(found.end)

    def per_life(s: Floats) -> Floats:
        return np.asarray(s[..., 0] / s[..., 1] * s[..., 2] / s[..., 5], dtype=np.float64)

    return {
        "cost_per_unit": measure(per_life, sums, n=count),
        "missed_failures": _share(int(found.missed.sum()), count),
        "lost_life": measure(ratio(4, 5), sums, unit="cycles", n=count),
    }


def _share(hits: int, count: int) -> Measure:
    """Return a share of units, which do not depend on each other, with its 95 % interval."""
    low, high = wilson(hits / count, count)
    return Measure(value=hits / count, low=low, high=high, n=count)


def unit_fates(evidence: Mapping[str, Array]) -> Fates:
    """Return what became of each unit that ran to failure."""
    _, first = np.unique(evidence["block"], return_index=True)
    first = first[np.isfinite(evidence["unit_end"][first])]
    return Fates(
        missed=evidence["unit_missed"][first] == 1.0,
        used=evidence["unit_used"][first],
        end=evidence["unit_end"][first],
    )


def _cuts(block: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return one row of each unit, drawn at random but always the same."""
    chance = np.random.default_rng(_CUTS_SEED)
    _, first, count = np.unique(block, return_index=True, return_counts=True)
    return np.asarray(first + (chance.random(len(first)) * count).astype(np.int64), dtype=np.int64)


def _renumbered(block: Array) -> npt.NDArray[np.int64]:
    return np.unique(block, return_inverse=True)[1].astype(np.int64)


def _root(top: int, bottom: int) -> Statistic:
    return lambda sums: np.sqrt(sums[..., top] / sums[..., bottom])
