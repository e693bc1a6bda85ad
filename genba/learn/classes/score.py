"""How good answers are: per class, in doubt, and as good as they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array
from genba.core.task import Scores
from genba.core.values import Measure
from genba.learn.bootstrap import Statistic, interval, ratio, sums_by_block
from genba.learn.proportion import proportion

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BINS: Final = 15
LEAST: Final = 1e-6  # of a probability, so that one certain mistake does not hide all others
UNKNOWN: Final = -2  # a class that the model does not have: whatever it says is wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a model said about the labelled samples of a split."""

    row: Ints
    label: Ints  # in the numbers of the dataset
    truth: Ints  # in the numbers of the model, UNKNOWN for a class it does not have
    best: Ints  # likeliest class, whether it was answered or not
    alarm: Bools
    confidence: Floats
    loss: Floats
    block: Ints

    @property
    def correct(self) -> Bools:
        """Whether the likeliest class is the right one."""
        return np.asarray(self.best == self.truth)


def scores(seen: Seen, names: Sequence[str]) -> Scores:
    """Measure what a model said, with intervals.

    Args:
        seen: What it said about the labelled samples of a split.
        names: Of the model's classes.

    Returns:
        Measures, and as evidence per sample row, loss, block, label, prediction, correct, abstained
        and confidence, and `confusion` [true, predicted] in the model's classes.
    """
    if not len(seen.row):
        return Scores(measures={}, evidence={"row": seen.row})
    known = seen.truth != UNKNOWN
    confusion = np.zeros((len(names), len(names)))
    np.add.at(confusion, (seen.truth[known], seen.best[known]), 1.0)
    return Scores(
        measures={**overall(seen), **by_class(seen, confusion, names)},
        evidence={
            "row": seen.row,
            "loss": seen.loss,
            "block": seen.block,
            "label": seen.label,
            "prediction": seen.best,
            "correct": seen.correct.astype(np.float64),
            "abstained": seen.alarm.astype(np.float64),
            "confidence": seen.confidence,
            "confusion": confusion,
        },
    )


def places(classes: Sequence[str], known: Sequence[str]) -> Ints:
    """Return the model's number of each class of the dataset: a champion may know fewer."""
    return np.array(
        [known.index(name) if name in known else UNKNOWN for name in classes], dtype=np.int64
    )


def overall(seen: Seen) -> dict[str, Measure]:
    """Return the measures over all samples."""
    ones = np.ones(len(seen.row))
    answered = ~seen.alarm
    found = {
        "accuracy": _share(seen, seen.correct, ones),
        "abstained": _share(seen, seen.alarm, ones),
        "log_loss": _bootstrap(seen, ratio(0, 1), seen.loss, ones),
        "ece": _calibration(seen),
    }
    if answered.any():
        found["accuracy_answered"] = _share(seen, seen.correct & answered, answered)
    return found


def by_class(seen: Seen, confusion: Floats, names: Sequence[str]) -> dict[str, Measure]:
    """Return the measures of each class, and those over classes."""
    kinds = np.unique(seen.label)
    recalls = {k: _share(seen, seen.correct & (seen.label == k), seen.label == k) for k in kinds}
    worst = min(recalls.values(), key=lambda m: m.value)
    right = [seen.correct & (seen.label == kind) for kind in kinds]
    there = [seen.label == kind for kind in kinds]
    found = {
        "balanced_accuracy": _bootstrap(seen, _mean_recall(len(kinds)), *right, *there),
        "worst_recall": worst,
    }
    truth = {int(seen.label[at]): int(seen.truth[at]) for at in range(len(seen.label))}
    words = _words(names)
    for kind, recall in recalls.items():
        place = truth[int(kind)]
        if place == UNKNOWN:
            continue
        found[f"recall_{words[place]}"] = recall
    for place, word in enumerate(words):
        if confusion[:, place].sum() > 0:
            said = seen.best == place
            found[f"precision_{word}"] = _share(seen, said & seen.correct, said)
    return found


def _words(names: Sequence[str]) -> list[str]:
    """Return class names as the ends of names of measures, each different.

    Example:
        >>> _words(["T-shirt/top", "t shirt top", "Bag"])
        ['t_shirt_top', 't_shirt_top_1', 'bag']
    """
    found: list[str] = []
    for number, name in enumerate(names):
        word = "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
        found.append(f"{word}_{number}" if word in found or not word else word)
    return found


def _share(seen: Seen, hit: Array, of: Array) -> Measure:
    hits, count = float(np.sum(hit)), int(np.sum(of))
    if len(np.unique(seen.block)) == len(seen.block):
        return proportion(hits, count)
    return _bootstrap(seen, ratio(0, 1), hit, of, n=count)


def _bootstrap(seen: Seen, statistic: Statistic, *columns: Array, n: int = 0) -> Measure:
    sums = sums_by_block(seen.block, *columns)
    value, low, high = interval(statistic, sums)
    return Measure(value=value, low=low, high=high, n=n or len(seen.row))


def _mean_recall(kinds: int) -> Statistic:
    """Return the mean over classes of right / there; one that was not drawn does not count."""

    def statistic(sums: Floats) -> Floats:
        there = sums[..., kinds:]
        recall = np.divide(sums[..., :kinds], there, out=np.zeros_like(there), where=there > 0)
        return np.asarray(recall.sum(axis=-1) / np.maximum((there > 0).sum(axis=-1), 1))

    return statistic


def _calibration(seen: Seen) -> Measure:
    """Return the expected calibration error over bins of equally many samples.

    Naeini, Cooper and Hauskrecht, AAAI 2015: the mean difference between confidence and accuracy.
    """
    order = np.argsort(seen.confidence, kind="stable")
    bins = np.empty(len(order), dtype=np.int64)
    bins[order] = np.arange(len(order)) * _BINS // len(order)
    excess = seen.confidence - seen.correct

    def statistic(sums: Floats) -> Floats:
        return np.asarray(np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1])

    columns = [np.where(bins == number, excess, 0.0) for number in range(_BINS)]
    return _bootstrap(seen, statistic, *columns, np.ones(len(order)))
