"""Whether a line with a student answers as well as without, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.codec import encode
from genba.core.values import Bill, GateResult, Measure
from genba.learn.bootstrap import interval, ratio, sums_by_block
from genba.learn.proportion import proportion
from genba.loop.flywheel.asked import Asked
from genba.loop.flywheel.trial import Trial
from genba.targets.cost import bill

Floats = npt.NDArray[np.float64]

STUDENT: Final = "student"
PER: Final = 1_000  # questions that bills are given for
GATE: Final = "as_good_as_the_model"
MARGIN: Final = 0.05  # of quality: how much worse the line might be at most
_WORTH: Final = 0.9  # of the cost, that the issue of the flywheel is to spare


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What questions that were held out have shown."""

    questions: int
    before: Measure  # quality of the large model alone
    after: Measure  # of the line with a student
    difference: Measure  # paired, after less before
    taken: Measure  # the same on the questions that the student took over
    share: Measure  # of the questions, that the student took over
    share_known: Measure  # of those with an answer that the student knows
    share_new: Measure  # of those that nobody had approved an answer to
    bill_before: Bill  # a thousand questions
    bill_after: Bill
    spared: Measure  # share of the CPU time, and so of the cost
    spared_known: Measure  # the same of questions with an answer that the student knows

    @property
    def holds(self) -> bool:
        """Whether the interval of the difference includes zero, or lies above it, and is narrow.

        A wide interval includes zero because little is known: it may not reach below the margin.
        """
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or not self.share.value:
            return False
        return high >= 0.0 and low >= -MARGIN

    def gate(self) -> GateResult:
        """Return the proof as a gate of a package."""
        word = "not worse" if self.holds else "worse"
        return GateResult(
            name=GATE,
            passed=self.holds,
            measure=self.difference,
            limit=f"an interval that includes 0 or lies above it, and ends above {-MARGIN:g}",
            reason=f"On {self.questions} questions that were held out the line with a student is "
            f"{word} than the language model alone: the answers are nearer to the approved ones by "
            f"{self.difference}.",
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the ledger keeps."""
        return {**encode(self), "holds": self.holds}


def prove(
    asked: Sequence[Asked],
    known: npt.NDArray[np.bool_],
    before: tuple[Trial, Floats],
    after: tuple[Trial, Floats],
) -> Proof:
    """Compare both forms of a line on the same questions.

    Args:
        asked: Questions that neither student nor router has learned from.
        known: Of which of them the student knows the approved answer.
        before: What the language model alone answered, and how good each answer is.
        after: The same with a student.
    """
    count = np.array([one.count for one in asked], dtype=np.float64)
    groups = [one.group for one in asked]
    block = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    (first, good), (second, better) = before, after
    took = np.array([name == STUDENT for name in second.by])
    return Proof(
        questions=len(asked),
        before=_mean(block, good, count),
        after=_mean(block, better, count),
        difference=_mean(block, better - good, count),
        taken=_mean(block, (better - good) * took, count * took),
        share=_share(took),
        share_known=_share(took[known]),
        share_new=_share(took[~known]),
        bill_before=_bill(first, count),
        bill_after=_bill(second, count),
        spared=_spared(block, (first, second), count),
        spared_known=_spared(block, (first, second), count * known),
    )


def _share(took: npt.NDArray[np.bool_]) -> Measure:
    return proportion(float(took.sum()), len(took)) if len(took) else Measure(value=0.0, n=0)


def _mean(block: npt.NDArray[np.int64], value: Floats, count: Floats) -> Measure:
    if not count.sum():
        return Measure(value=0.0, n=0)
    found, low, high = interval(ratio(0, 1), sums_by_block(block, value * count, count))
    return Measure(value=found, low=low, high=high, n=int((count > 0).sum()))


def _spared(block: npt.NDArray[np.int64], trials: tuple[Trial, Trial], count: Floats) -> Measure:
    """Return the share of the CPU time that is spared, question by question."""
    first, second = trials
    if not count.sum():
        return Measure(value=0.0, n=0)
    saved = (first.cpu_seconds - second.cpu_seconds) * count
    sums = sums_by_block(block, saved, first.cpu_seconds * count)
    value, low, high = interval(ratio(0, 1), sums)
    return Measure(value=value, low=low, high=high, n=int((count > 0).sum()))


def _bill(trial: Trial, count: Floats) -> Bill:
    weight = PER * count / count.sum()
    return bill(float(trial.seconds @ weight), float(trial.cpu_seconds @ weight))


def enough(proof: Proof) -> bool:
    """Say whether nine tenths of the cost are spared."""
    return proof.spared.value >= _WORTH
