"""Run-time assurance: a model answers inside an envelope of checks that it cannot switch off.

The pattern is that of ASTM F3269 (run-time assurance for aircraft systems with complex functions):
monitors that are simpler than what they watch, and a recovery that does not depend on it. Nobody
has assessed this code against that standard or any other: it is not a safety-rated function.

One call costs some tens of microseconds besides the model, measured by `benchmarks` and by the
factory for each package; nothing is allocated that grows.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from genba.core.protocols import Array, Tensors
from genba.edge.clocks import Clock, SystemClock
from genba.edge.safety.answer import DOUBTS, Answer, Sample, Trip
from genba.edge.safety.answers import AnswerCheck
from genba.edge.safety.fallback import Ladder
from genba.edge.safety.known import known_cases
from genba.edge.safety.log import TripLog, Write
from genba.edge.safety.plan import SafetyPlan, unreadable
from genba.edge.safety.plausible import Residuals, forget
from genba.edge.safety.readings import Readings, taint
from genba.edge.safety.track import Track
from genba.edge.safety.unusual import Strangeness, category

_MOST_ENTITIES: Final = 10_000  # remembered; beyond them the oldest is forgotten
_NS_PER_MS: Final = 1e6


class Predicts(Protocol):
    """Whatever answers: a `genba.edge.predict.Predictor`, or a stand-in."""

    def predict(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What an envelope may have besides the model.

    Args:
        last_good: The predictor before this one, for when this one fails.
        log: Takes an entry about a trip; it is called seldom.
        check: Says what is wrong with the model, "" for nothing; by default the package's own known
            answers are asked for one after the other.
    """

    last_good: Predicts | None = None
    log: Write | None = None
    check: Callable[[], str] | None = None


_NOTHING: Final = Beside()


class Envelope:
    """A predictor with its safety plan around it. Not a safety-rated function.

    Args:
        plan: From `read_plan`.
        predictor: Answers; it is never asked about a reading that cannot be read.
        interface: Of the release, where there is one: its inputs must be those of the plan.
        clock: Wall clock and elapsed time.
        beside: What it may have besides.

    Raises:
        Problem: G599 when the plan is for another package or interface.
    """

    def __init__(
        self,
        plan: SafetyPlan,
        predictor: Predicts,
        interface: Any = None,
        clock: Clock | None = None,
        *,
        beside: Beside = _NOTHING,
    ) -> None:
        _check_belongs(plan, predictor, interface)
        self.plan, self.predictor = plan, predictor
        self.clock = clock or SystemClock()
        self.log = TripLog(beside.log)
        self._readings = Readings(plan)
        self._residuals = Residuals(plan.plausible) if plan.plausible else None
        unusual = [Strangeness(one) for one in plan.unusual]
        self._of_readings = [one for one in unusual if one.on == "readings"]
        self._of_outputs = [one for one in unusual if one.on != "readings"]
        self._answers = AnswerCheck(plan.answers)
        self._ladder = Ladder(plan.fallback, plan.channels, _KINDS, beside.last_good)
        self._check = beside.check or known_cases(predictor)
        self._tracks: dict[str, Track] = {}
        self._asked = 0
        self._broken = ""  # what the newest known answer said is wrong with the model
        self._newest_ms = self.clock.elapsed_ms()
        self._running: tuple[int, Sample] | None = None

    def answer(self, sample: Sample) -> Answer:
        """Return what may be acted on for one reading, and why.

        Never raises because of the reading or the model: whatever they do is a trip.
        """
        now = self.clock.now_ms()
        track = self._track(sample.entity)
        trips: list[Trip] = []
        values = self._readings.look(sample, track, now, trips)
        self._newest_ms = track.elapsed_ms = self.clock.elapsed_ms()
        if values is None or any(t.holds and t.layer not in DOUBTS for t in trips):
            answer = self._ladder.answer(trips, values or (), sample.tensors, None)
        else:
            answer = self._judge(sample, track, values, now, trips)
        self.log.note(answer, sample.entity, now)
        return answer

    def overdue(self) -> Answer | None:
        """Return an answer where none came: no reading for too long, or an inference that hangs.

        A serving loop calls this from its timer, from another thread if inference may hang; it
        answers once for every `stale_ms` of silence.
        """
        now, elapsed, timing = self.clock.now_ms(), self.clock.elapsed_ms(), self.plan.timing
        running = self._running
        if running and timing.deadline_ms and elapsed - running[0] > timing.deadline_ms:
            self._running = None
            detail = f"no answer after {elapsed - running[0]} ms"
            trip = Trip(cause="late", layer="deadline", detail=detail, time_ms=now, part="model")
            tensors = running[1].tensors
        elif timing.stale_ms and elapsed - self._newest_ms > timing.stale_ms:
            detail = f"no reading for {elapsed - self._newest_ms} ms; at most {timing.stale_ms}"
            trip = Trip(cause="silent", layer="time", detail=detail, time_ms=now, part="input")
            tensors, self._newest_ms = None, elapsed
        else:
            return None
        answer = self._ladder.answer([trip], (), tensors, None)
        self.log.note(answer, running[1].entity if running else "", now)
        return answer

    def spis(self) -> dict[str, Any]:
        """Return the safety performance indicators since the start."""
        return self.log.indicators()

    def state(self) -> dict[str, Any]:
        """Return what it remembers of each entity, as JSON, to be kept for the next start."""
        return {
            "format": self.plan.format,
            "package": self.plan.package,
            "tracks": {name: track.to_json() for name, track in self._tracks.items()},
        }

    def restore(self, body: Mapping[str, Any]) -> bool:
        """Remember what `state` told; say whether it was of use.

        What is of another package, or damaged, is not taken: the envelope then starts cold, which
        is safe. What is too old for the next reading to follow on it is forgotten at that reading.
        """
        try:
            if body["package"] != self.plan.package or body["format"] != self.plan.format:
                return False
            tracks = {str(n): Track.from_json(one) for n, one in body["tracks"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        self._tracks = tracks
        return True

    def _track(self, entity: str) -> Track:
        found = self._tracks.get(entity)
        if found is None:
            if len(self._tracks) >= _MOST_ENTITIES:
                del self._tracks[next(iter(self._tracks))]
            found = self._tracks[entity] = Track()
        return found

    def _judge(
        self, sample: Sample, track: Track, values: list[float], now: int, trips: list[Trip]
    ) -> Answer:
        z = self._plausible(track, values, now, trips)
        for one in self._of_readings:
            if z is not None:
                self._strange(one, z, sample.entity if one.by == "entity" else "", now, trips)
        outputs = self._predict(sample, now, trips)
        if outputs is None:
            return self._ladder.answer(trips, values, sample.tensors, None)
        alarm = self._answers.look(outputs, track, now, trips)
        for one in self._of_outputs:
            kind = category(one.by, outputs, self.plan.answers.chosen, sample.entity)
            self._strange(one, outputs[one.on].ravel().astype(np.float64), kind, now, trips)
        if not trips:
            return Answer(outputs, "model")
        if not any(t.holds and not (alarm and t.layer in DOUBTS) for t in trips):
            return Answer(outputs, "model", tuple(trips))  # the safe side: somebody will look
        return self._ladder.answer(trips, values, sample.tensors, outputs)

    def _plausible(self, track: Track, values: list[float], now: int, trips: list[Trip]) -> Any:
        """Add what the other sensors and the readings before say; return standardised readings."""
        if self._residuals is None:
            return None
        z = self._residuals.standardise(values)
        if not np.isfinite(z).all():  # a sensor is missing that the model can do without
            forget(track)
            return None
        for kind, sensor, times in self._residuals.exceeded(z, track):
            name = self.plan.channels[sensor].name
            layer = "predicted" if kind == "predicted" else "cross"
            detail = f"{name} {values[sensor]:.4g} is {times:.2f} times its limit away"
            trips.append(
                Trip(cause=f"{kind}:{name}", layer=layer, detail=detail, time_ms=now, part="input")
            )
            if kind == "predicted":
                taint(track, name, self.plan)
        return z

    def _strange(self, one: Strangeness, x: Any, kind: str, now: int, trips: list[Trip]) -> None:
        p = one.p_value(one.score(x), kind)
        self.log.recent.append(p)
        if p <= one.alpha:
            detail = f"{one.on} p = {p:.2g}; below {one.alpha:.2g} it is unlike what is known"
            trips.append(
                Trip(
                    cause=f"unusual:{one.on}", layer="unusual", detail=detail, time_ms=now,
                    part="input",
                )
            )  # fmt: skip

    def _predict(self, sample: Sample, now: int, trips: list[Trip]) -> dict[str, Array] | None:
        plan = self.plan
        self._known_answer()
        if self._broken:
            trips.append(
                Trip(
                    cause="model:known", layer="model", detail=self._broken, time_ms=now,
                    part="model",
                )
            )  # fmt: skip
        assert sample.tensors is not None
        started = time.perf_counter_ns()
        self._running = (self.clock.elapsed_ms(), sample)
        try:
            outputs = self.predictor.predict(sample.tensors)
        except Exception as error:  # noqa: BLE001  a runtime may fail in any way
            detail = f"{type(error).__name__}: {str(error)[:200]}"
            trips.append(
                Trip(cause="model:failed", layer="model", detail=detail, time_ms=now, part="model")
            )
            return None
        finally:
            self._running = None
        took = (time.perf_counter_ns() - started) / _NS_PER_MS
        if plan.timing.deadline_ms and took > plan.timing.deadline_ms:
            detail = f"{took:.3g} ms; at most {plan.timing.deadline_ms:.3g}"
            trips.append(
                Trip(cause="late", layer="deadline", detail=detail, time_ms=now, part="model")
            )
        return outputs

    def _known_answer(self) -> None:
        """Ask for a known answer now and then; until it is right again the model is not trusted."""
        every = self.plan.answers.check_every
        if not every or self._check is None:
            return
        self._asked += 1
        if self._asked >= every:
            self._asked = 0
            self._broken = self._check()


_KINDS: Final = {"alarm": np.bool_, "class": np.int64, "mask": np.bool_}


def _check_belongs(plan: SafetyPlan, predictor: Any, interface: Any) -> None:
    package = getattr(predictor, "package", None)
    if package is not None and plan.package and package.id != plan.package:
        raise unreadable(f"It is for package {plan.package[:12]}, not {package.id[:12]}.")
    if interface is not None:
        mine = [(t.name, t.datatype, t.shape) for t in plan.inputs]
        theirs = [(p.name, p.datatype, p.shape) for p in interface.inputs]
        if mine != theirs:
            raise unreadable("Its inputs are not those of interface.json.")
