"""Is the model answering as it did when it was made, and is it sure enough to be acted on?

Nothing here knows a task: only the roles of the outputs. What no reading can explain (the same
number again and again, alarms without end, a known case answered otherwise) is the model's fault.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from genba.edge.safety.answer import Trip
from genba.edge.safety.plan import Answers
from genba.edge.safety.track import Track

FLOOD_WEIGHT: Final = 0.1  # of the newest answer in the smoothed share of alarms


class AnswerCheck:
    """The looks at outputs that a plan asks for."""

    def __init__(self, plan: Answers) -> None:
        self.plan = plan

    def look(self, outputs: Mapping[str, Any], track: Track, now: int, trips: list[Trip]) -> bool:
        """Add what is wrong with a batch of one; say whether the alarm is raised."""
        plan = self.plan
        score = float(outputs[plan.score].flat[0]) if plan.score else None
        alarm = bool(outputs[plan.alarm].flat[0]) if plan.alarm else False
        if score is not None:
            self._score(score, track, now, trips)
        if plan.flood:
            track.flood += FLOOD_WEIGHT * (alarm - track.flood)
            if track.flood > plan.flood:
                detail = f"{track.flood:.0%} of the newest answers are alarms"
                trips.append(_model("flood", detail, now, part="input"))
        if plan.expected:
            self._moved(float(outputs[plan.expected].flat[0]), track, now, trips)
        if plan.chosen and outputs[plan.chosen].flat[0] < 0:
            trips.append(_unsure("the model abstains", now))
        if plan.floor and float(outputs[plan.probability].max()) < plan.floor:
            trips.append(_unsure(f"no class has a probability of {plan.floor:.2g}", now))
        return alarm

    def _score(self, score: float, track: Track, now: int, trips: list[Trip]) -> None:
        plan = self.plan
        if not math.isfinite(score):
            trips.append(_model("not_a_number", "the score is no number", now))
        elif plan.margin and score > 0 and abs(math.log(score)) < plan.margin:
            trips.append(_unsure(f"the score {score:.3g} is at the threshold", now))
        track.equal = track.equal + 1 if score == track.score else 1
        track.score = score
        if plan.longest and track.equal >= plan.longest:
            detail = f"{track.equal} equal scores in a row"
            trips.append(_model("constant", detail, now, part="input"))

    def _moved(self, expected: float, track: Track, now: int, trips: list[Trip]) -> None:
        if not math.isfinite(expected):
            trips.append(_model("not_a_number", "the answer is no number", now))
            return
        most, before = self.plan.most_step, track.expected
        if most and before is not None and track.seen > 1 and abs(expected - before) > most:
            detail = f"from {before:.4g} to {expected:.4g} in one reading; at most {most:.3g}"
            trips.append(Trip(cause="rate", layer="rate", detail=detail, time_ms=now, part="input"))
        track.expected = expected


def _model(cause: str, detail: str, now: int, part: str = "model") -> Trip:
    """Return a trip about the model; where its input may be the reason, nobody may read that."""
    return Trip(cause=f"model:{cause}", layer="model", detail=detail, time_ms=now, part=part)


def _unsure(detail: str, now: int) -> Trip:
    return Trip(cause="unsure", layer="abstain", detail=detail, time_ms=now)
