"""Find the best point with few measurements.

Rules leave out what makes no sense, a model says what to expect of the rest, and measuring goes
where the best is expected:

1. The first exact point on offer, which is what anybody would take without a search, is measured
   briefly, then one of each family (runtime, precision, form, variant), the most promising first.
2. What was measured corrects what is expected of the others, and the one that is expected to be
   best is measured next, until nothing is expected to come near the best or the measurements are
   spent.
3. The better third of them is measured three times as long and the rest dropped: successive
   halving (Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
   optimization", AISTATS 2016; Li et al., "Hyperband", JMLR 18, 2018), by CPU time unless the line
   prefers something else, because that repeats on a machine that is shared and wall time does not.
4. The best few are verified by wall time, when the machine is quiet. Only these numbers are
   published: those before were selected for being small.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from genba.codesign.constraints import Bound, missed, sentence
from genba.codesign.front import OBJECTIVES, ranked, value_of
from genba.codesign.predictions import Predictions
from genba.codesign.values import Trial
from genba.core.values import Measure

ETA: Final = 3  # one of so many goes on to the next rung
_SCOUTS: Final = 0.5  # most of the brief measurements, one for each family
_HOPELESS: Final = 1.5  # what is expected to be so much worse than the best is not measured
_OVER: Final = 1.3  # nor what is expected to exceed a limit by so much, once something fits
_DOUBT: Final = 1.15  # an expectation may be so far off before it counts as a miss
_SMALL: Final = 1e-9
_TWICE: Final = 2
_NEAR: Final = 1.15  # of the best: what a brief measurement cannot tell apart from it
_BRIEF: Final = 1 / ETA  # of the time of a whole measurement


class Bench(Protocol):
    """Where trials are measured: here, on a device, or out of a table."""

    def measure(self, trial: Trial, share: float) -> None:
        """Measure for a share of the usual time: fills measures, parity and stand, or refuses."""
        ...

    def verify(self, trial: Trial) -> None:
        """Measure once more, when the machine is quiet, as its numbers will be published."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """What the search is for."""

    prefer: str = "cpu"
    bounds: Sequence[Bound] = ()  # of what is measured; gates are judged later
    fits: Callable[[Mapping[str, Measure]], Sequence[str]] = lambda _: ()  # what a target adds
    device: str = "this-machine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What the search may spend."""

    measurements: int = 15
    verified: int = 2  # of the measurements, kept for the last rung
    seconds: float = 600.0  # of measuring; then the rest is left out, and it says so


class Search:
    """One search; `explore` once, then `best` until it is good enough.

    Args:
        trials: Everything on offer, the simplest first; those that are ruled out are left alone.
        bench: Measures.
        want: Preference and limits.
        budget: What may be spent.
        told: Is told what is being done: words, how many are done, of how many.
        expect: Sets what is expected of trials again, given what was measured of the others.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        bench: Bench,
        want: Want,
        budget: Budget,
        told: Callable[[str, int, int], None] = lambda *_: None,
        expect: Callable[[Sequence[Trial]], object] = lambda _: None,
    ) -> None:
        self._trials = [t for t in trials if not t.refused]
        self._bench, self._want, self._budget, self._told = bench, want, budget, told
        self._expect = expect
        self.made = 0  # measurements
        self._began = time.monotonic()
        names = {OBJECTIVES[want.prefer][0], *(b.name for b in want.bounds)}
        self._predicted = {name: Predictions(self._trials, name) for name in sorted(names)}

    def explore(self) -> None:
        """Measure briefly where the best is expected, then the better third for longer."""
        last = max(1, min(self._budget.verified, self._budget.measurements // ETA))
        brief = max(1, self._budget.measurements - last)
        self._scout(max(1, round(brief * _SCOUTS)))
        self._follow(brief, last)
        for trial in self._contenders(last):
            if self.made >= brief or self._late():
                break
            self._measure(trial, 1.0)
        self._leave_out()

    def best(self) -> Trial | None:
        """Return the best verified trial; refuse it and call again for the next. None at the end.

        As many as the budget says are verified before one of them is chosen.
        """
        wanted = self._budget.verified
        while True:
            fit = ranked([t for t in self._trials if t.feasible], self._want.prefer)
            verified = [t for t in fit if t.stand == "verified"]
            waiting = [t for t in fit if t.stand == "measured"]
            enough = len(verified) >= wanted or not waiting
            if verified and (enough or self.made >= self._budget.measurements):
                return ranked(verified, self._want.prefer)[0]
            if not waiting:
                return None
            self._verify(waiting[0])

    def _scout(self, most: int) -> None:
        """Measure one of each family, the most promising first, until so many were measured."""
        baseline = [t for t in self._trials if t.point.exact] or self._trials
        first = {t.point.family: t for t in baseline[:1]}
        for trial in sorted(self._trials, key=self._rank):
            first.setdefault(trial.point.family, trial)
        for trial in first.values():
            if self.made >= most or self._late():
                return
            if not self._suspect(trial):
                self._measure(trial, _BRIEF)

    def _follow(self, most: int, last: int) -> None:
        """Measure what is expected to be best, given what was measured.

        As many measurements are kept as there are trials that have to be measured for longer.
        """
        while self.made + len(self._contenders(last)) < most and not self._late():
            left = [
                t
                for t in self._trials
                if t.stand == "offered" and self._open(t) and not self._suspect(t)
            ]
            if not left:
                return
            trial = min(left, key=self._rank)
            if self._hopeless(trial):
                return
            self._measure(trial, _BRIEF)

    def _contenders(self, last: int) -> list[Trial]:
        """Return those so near to the best that more time must tell which it is: at most a third.

        None where all of them can be verified anyway.
        """
        goal = OBJECTIVES[self._want.prefer][0]
        field = [t for t in self._trials if t.feasible and value_of(t, goal) is not None]
        if len(field) <= last:
            return []
        best = min(_value(t, goal) for t in field)
        near = [t for t in ranked(field, self._want.prefer) if _value(t, goal) <= _NEAR * best]
        return near[: max(last, len(field) // ETA)] if len(near) > last else []

    def _measure(self, trial: Trial, share: float) -> None:
        self._told(f"measuring {trial.label}", self.made, self._budget.measurements)
        self._bench.measure(trial, share)
        self.made += bool(trial.measures)
        self._judge(trial, "")
        self._expect(self._trials)
        for predictions in self._predicted.values():
            predictions.learn(self._trials)

    def _verify(self, trial: Trial) -> None:
        self._told(f"verifying {trial.label}", self.made, self._budget.measurements)
        self._bench.verify(trial)
        self.made += 1
        self._judge(trial, "Measured a second time: ")

    def _judge(self, trial: Trial, prefix: str) -> None:
        """Refuse a trial that exceeds a limit."""
        if trial.refused or not trial.measures:
            return
        over = missed(self._want.bounds, trial.measures)
        said = [sentence(b, trial.measures.get(b.name), self._want.device) for b in over]
        known = {b.name for b in over}
        # A target may have limits of its own; each of its sentences begins with the measure.
        own = self._want.fits(trial.measures)
        said += [words for words in own if words.partition(" ")[0] not in known]
        trial.refused = tuple(f"{prefix}{words}" for words in said)

    def _open(self, trial: Trial) -> bool:
        """Say whether nothing that was measured of the family makes the point pointless."""
        mine = [t for t in self._trials if t.point.family == trial.point.family and t is not trial]
        wrong = [t for t in mine if t.stand == "refused" and not t.measures]
        unlike = [t for t in mine if t.parity is not None and not t.parity.passed]
        return not wrong and not unlike

    def _suspect(self, trial: Trial) -> bool:
        """Say whether all that is computed in these bits was refused so far, more than once.

        What decides otherwise on two models mostly does on the third.
        """
        bits = (trial.point.form, trial.point.precision)
        mine = [t for t in self._trials if (t.point.form, t.point.precision) == bits]
        unlike = {t.point.family for t in mine if t.parity is not None and not t.parity.passed}
        return len(unlike) >= _TWICE and not any(t.feasible for t in mine)

    def _rank(self, trial: Trial) -> tuple[float, float]:
        """Return what is expected of a trial: by how much it misses, and what it costs."""
        goal = OBJECTIVES[self._want.prefer][0]
        over = 1.0
        # Experience without a unit says nothing about a limit until something was measured.
        if self.made or trial.expected:
            for bound in self._want.bounds:
                expected = self._predicted[bound.name].of(trial) / max(bound.value, _SMALL)
                over = max(over, expected / _DOUBT)
        return over, self._predicted[goal].of(trial)

    def _hopeless(self, trial: Trial) -> bool:
        """Say whether a trial is expected to lose clearly to one that fits already."""
        goal = OBJECTIVES[self._want.prefer][0]
        known = [_value(t, goal) for t in self._trials if t.feasible and value_of(t, goal)]
        if not known:
            return False
        over, value = self._rank(trial)
        return over > _OVER or value > _HOPELESS * min(known)

    def _late(self) -> bool:
        """Say whether the time is over and something fits."""
        spent = time.monotonic() - self._began
        return spent > self._budget.seconds and any(t.feasible for t in self._trials)

    def _leave_out(self) -> None:
        """Say of every point that was not measured why it was not."""
        spent = time.monotonic() - self._began
        late = f"Not measured: the others took {spent:.1f} s already."
        for trial in self._trials:
            if trial.stand != "offered":
                continue
            if self._late():
                trial.refused = (late,)
            elif not self._open(trial) or self._suspect(trial):
                trial.refused = ("Not measured: others of its kind were refused.",)
            else:
                trial.refused = ("Not measured: others were expected to be better.",)


def _value(trial: Trial, name: str) -> float:
    measure = value_of(trial, name)
    return math.inf if measure is None else measure.value
