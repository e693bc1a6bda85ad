"""Two models on the same rows: paired differences with intervals, against stated margins."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.core.task import Comparison, Scores
from genba.learn.bootstrap import sums_by_block
from genba.learn.compare import paired
from genba.tasks.sensor.anomaly.score import false_onsets

Floats = npt.NDArray[np.float64]
Evidence = Mapping[str, Array]

#: How much worse a challenger may be, as a share of the champion's loss.
_LOSS_MARGIN: Final = 0.02
_ALARM_MARGIN: Final = 0.1  # false alarms per entity and day
_MISSED_MARGIN: Final = 0.1  # share of simulated faults; a tenth of them are hard to see
_HIGHEST_BAR: Final = 8.0
_BARS: Final = 61
_WHOLE: Final = ("budget", "merge")  # evidence that is not per row


def compare(champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
    """Compare two models sample by sample on the same rows.

    A challenger is worse when the whole interval of the difference lies beyond the margin, and
    better when the whole interval lies below zero. What the champion finds because it alarms more
    often than either the budget or the challenger does not count: whoever always alarms misses
    nothing.
    """
    if not champion.evidence or not challenger.evidence:
        return ()
    old, new = _shared(champion.evidence, challenger.evidence, "row")
    if not len(old["row"]):
        return ()
    found = [_loss(old, new, where), _alarms(old, new, where)]
    bar = _bar(champion.evidence, old, new)
    old, new = _shared(champion.evidence, challenger.evidence, "injected_row")
    if len(old["injected_row"]):
        found.append(_faults(old, new, bar, where))
    return tuple(c for c in found if c is not None)


def _shared(champion: Evidence, challenger: Evidence, key: str) -> tuple[Evidence, Evidence]:
    """Return the evidence of both on the rows (or simulated faults) that both have seen."""
    _, first, second = np.intersect1d(champion[key], challenger[key], return_indices=True)
    simulated = key != "row"
    names = [n for n in champion if n.startswith("injected_") == simulated and n not in _WHOLE]
    whole = {n: champion[n] for n in _WHOLE}
    return (
        {**whole, **{n: champion[n][first] for n in names}},
        {**whole, **{n: challenger[n][second] for n in names}},
    )


def _loss(old: Evidence, new: Evidence, where: str) -> Comparison | None:
    good = np.isfinite(old["loss"]) & np.isfinite(new["loss"])
    if not good.any():
        return None
    mean = float(old["loss"][good].mean())
    difference = (new["loss"] - old["loss"])[good]
    sums = sums_by_block(old["block"][good], difference, np.ones(len(difference)))
    return paired("loss", where, sums, margin=_LOSS_MARGIN * mean, before=mean)


def _alarms(old: Evidence, new: Evidence, where: str) -> Comparison | None:
    days = old["days"]
    if not np.isfinite(days).all():
        return None
    difference = new["false_start"].astype(np.float64) - old["false_start"]
    before = float(old["false_start"].sum() / days.sum())
    sums = sums_by_block(old["block"], difference, days)
    return paired("false_alarms_per_day", where, sums, margin=_ALARM_MARGIN, before=before)


def _faults(old: Evidence, new: Evidence, bar: float, where: str) -> Comparison:
    missed = (old["injected_peak"] <= bar).astype(np.float64)
    difference = new["injected_missed"] - missed
    sums = sums_by_block(old["injected_block"], difference, np.ones(len(difference)))
    return paired(
        "injected_missed_rate",
        where,
        sums,
        margin=_MISSED_MARGIN,
        before=float(missed.mean()),
        method="modelled",
    )


def _bar(champion: Evidence, old: Evidence, new: Evidence) -> float:
    """Return the score from which the champion's alarms would keep the allowed rate: 1 or more."""
    allowed = max(float(champion["budget"][0]), _false_rate(new, 1.0))
    for bar in np.geomspace(1.0, _HIGHEST_BAR, _BARS):
        if _false_rate(old, float(bar)) <= allowed:
            return float(bar)
    return _HIGHEST_BAR


def _false_rate(evidence: Evidence, bar: float) -> float:
    """Return false alarms per day, or their share of rows where there is no clock."""
    alarm = evidence["score"] > bar
    if np.isfinite(evidence["days"]).all():
        return len(false_onsets(evidence, alarm)) / float(evidence["days"].sum())
    return float((alarm & (evidence["label"] != 1.0)).mean())
