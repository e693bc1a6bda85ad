"""Episodes: a stretch of real readings with a fault in it, told to a model and to an envelope.

An episode fails where a decision that differs from the one on the clean input was acted on, and
the envelope neither held it back nor noticed the fault within so many readings before or after.
Without an envelope every such decision is acted on and nobody notices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array, Tensors
from genba.edge.clocks import HandClock
from genba.edge.safety.answer import Answer, Sample, Trip
from genba.edge.safety.envelope import Beside, Envelope
from genba.edge.safety.plan import SafetyPlan
from genba.learn.safety.series import Bools
from genba.stages.assurance_rows import Decision, Outputs

EPOCH_MS: Final = 1_700_000_000_000  # of rows that have no clock
_BEAT_MS: Final = 1_000  # from one of them to the next, where the line says nothing
_STALE_BEATS: Final = 2.5


@dataclass(kw_only=True, slots=True)
class Episode:
    """What arrives, reading by reading.

    Args:
        tensors: Samples [T, ...] as they arrive.
        outputs: What the model answers to them, in the same order.
        clean: What it would have answered without the fault.
        time_ms: [T] stamps of the readings.
        now_ms: [T] when they arrive.
        entity: Whose readings.
        onset: The first reading of the fault.
        arrives: [T] whether anything arrives.
        faults: [T] why a reading cannot be made into tensors, "" where it can.
        sizes: [T] of image files, None elsewhere.
        broken: What each known case says of the model from the onset on, asked in turn.
        restart: Whether the power fails at the onset: the envelope begins anew.
        usual: [T] causes of trips that the same readings have without the fault; nobody notices a
            fault by them.
    """

    tensors: Tensors
    outputs: Outputs
    clean: Outputs
    time_ms: Array
    now_ms: Array
    entity: str
    onset: int
    arrives: Array | None = None
    faults: Sequence[str] = ()
    sizes: Sequence[tuple[int, int] | None] = ()
    broken: tuple[str, ...] = ()
    restart: bool = False
    usual: Sequence[frozenset[str]] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of an episode, from its onset on."""

    failed: bool
    failed_without: bool
    missed: bool  # of those that failed: an alarm of the clean input was not raised
    raised: bool  # or one was raised that the clean input had not
    noticed_after: int | None  # readings, 0: at once
    held: int  # readings that were held back or answered otherwise
    readings: int
    by_rule: int  # readings that a rule or a fixed value answered
    by_rule_wrong: int
    layers: tuple[str, ...]  # that noticed


class Replayed:
    """A predictor that says what was computed before, row by row."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self.row = 0

    def predict(self, tensors: Tensors) -> dict[str, Array]:  # noqa: ARG002  known already
        """Return the answer to the reading whose turn it is."""
        at = slice(self.row, self.row + 1)
        return {name: values[at] for name, values in self._outputs.items()}


class _Check:
    """Known cases of a model that is well at first."""

    def __init__(self) -> None:
        self.says: tuple[str, ...] = ()
        self._next = 0

    def __call__(self) -> str:
        self._next += 1
        return self.says[self._next % len(self.says)] if self.says else ""


class Trial:
    """Runs episodes against one plan.

    The deadline is not watched in a replay, which no model runs in: it is measured by itself.

    Args:
        plan: Of the envelope.
        decision: What a wrong decision is.
    """

    def __init__(self, plan: SafetyPlan, decision: Decision) -> None:
        self.plan = replace(plan, timing=replace(plan.timing, deadline_ms=None))
        self.decision = decision

    def run(self, episode: Episode) -> Outcome:
        """Return what became of an episode with and without the envelope."""
        answers = self.answers(episode)
        wrong = self._wrong(episode)
        start, react = episode.onset, self.plan.timing.react
        noticed = np.array([bool(_unusual(episode, at, a)) for at, a in enumerate(answers)])
        silent = np.array([a is None or a.action == "model" for a in answers]) & ~noticed
        slip = np.flatnonzero(wrong & silent)
        slip = slip[slip >= start]
        seen = [at for at in np.flatnonzero(noticed).tolist() if at >= start]
        near = [bool(seen) and min(abs(one - at) for one in seen) <= react for at in slip]
        clean = self.decision.raised(episode.clean)
        unseen = slip[~np.array(near, dtype=np.bool_)]
        after = [a for a in answers[start:] if a]
        others = [at for at, a in enumerate(answers) if at >= start and _other(a)]
        return Outcome(
            failed=not all(near),
            missed=any(clean[at] for at in unseen),
            raised=self.decision.by == "alarm" and not all(clean[at] for at in unseen),
            failed_without=bool(wrong[start:].any()),
            noticed_after=seen[0] - start if seen else None,
            held=sum(a.action != "model" for a in after),
            readings=len(answers) - start,
            by_rule=len(others),
            by_rule_wrong=sum(self._otherwise(episode, at, answers[at]) for at in others),
            layers=tuple(
                dict.fromkeys(t.layer for at in seen for t in _unusual(episode, at, answers[at]))
            ),
        )

    def answers(self, episode: Episode) -> list[Answer | None]:
        """Return what the envelope says at every moment; None where it says nothing."""
        clock = HandClock(int(episode.now_ms[0]))
        model = Replayed(episode.outputs)
        check = _Check()
        envelope = self._envelope(model, clock, check)
        found: list[Answer | None] = []
        for at, now in enumerate(episode.now_ms.tolist()):
            clock.turn(max(0, int(now) - clock.now_ms()))
            model.row = at
            if at == episode.onset:
                check.says = episode.broken
                if episode.restart:
                    envelope = self._envelope(model, clock, check)
            if episode.arrives is not None and not episode.arrives[at]:
                found.append(envelope.overdue())
            else:
                found.append(envelope.answer(sample_at(episode, at)))
        return found

    def _envelope(self, model: Replayed, clock: HandClock, check: Callable[[], str]) -> Envelope:
        return Envelope(self.plan, model, clock=clock, beside=Beside(check=check))

    def _wrong(self, episode: Episode) -> Bools:
        """Say where acting on the model is acting wrongly.

        Where nothing arrives, or what arrives cannot be read, what was decided last still stands.
        """
        stands = np.arange(len(episode.now_ms))
        missing = np.zeros(len(stands), dtype=np.bool_)
        if episode.arrives is not None:
            missing |= ~np.asarray(episode.arrives, dtype=np.bool_)
        missing |= np.array([bool(f) for f in episode.faults] or [False] * len(stands))
        stands = np.maximum.accumulate(np.where(missing, 0, stands))
        acted = {name: values[stands] for name, values in episode.outputs.items()}
        return self.decision.differs(episode.clean, acted)

    def _otherwise(self, episode: Episode, at: int, answer: Answer | None) -> bool:
        """Say whether who stood in decided otherwise than the model did on the clean input."""
        assert answer is not None
        assert answer.outputs is not None
        if self.decision.name not in answer.outputs:
            return False
        clean = {name: values[at : at + 1] for name, values in episode.clean.items()}
        return bool(self.decision.differs(clean, {**clean, **answer.outputs})[0])


def beat_ms(plan: SafetyPlan) -> int:
    """Return from one reading to the next in a replay: that of the data, else as the line says."""
    if plan.timing.step_ms:
        return plan.timing.step_ms
    stale = plan.timing.stale_ms
    return max(1, int(stale / _STALE_BEATS)) if stale else _BEAT_MS


def sample_at(episode: Episode, at: int) -> Sample:
    """Return a reading of an episode as it arrives."""
    fault = episode.faults[at] if len(episode.faults) else ""
    tensors: Any = None if fault else {n: t[at : at + 1] for n, t in episode.tensors.items()}
    return Sample(
        tensors=tensors,
        time_ms=int(episode.time_ms[at]),
        entity=episode.entity,
        size=episode.sizes[at] if len(episode.sizes) else None,
        fault=fault,
    )


def causes(answers: Sequence[Answer | None]) -> list[frozenset[str]]:
    """Return the causes of the trips at every moment."""
    return [frozenset(t.cause for t in a.trips) if a else frozenset() for a in answers]


def _unusual(episode: Episode, at: int, answer: Answer | None) -> list[Trip]:
    """Return the trips that the same reading would not have had without the fault."""
    if answer is None or not answer.trips:
        return []
    usual = episode.usual[at] if len(episode.usual) else frozenset()
    return [trip for trip in answer.trips if trip.cause not in usual]


def _other(answer: Answer | None) -> bool:
    return answer is not None and answer.outputs is not None and answer.action != "model"
