"""A plan of a safety envelope by hand, a model that says what it is told, and a clock."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from genba.core.protocols import Array, Tensors
from genba.core.values import Tensor
from genba.edge.clocks import HandClock
from genba.edge.safety import Answer, Envelope, Sample
from genba.edge.safety.plan import Answers, Channel, Fallback, Rule, SafetyPlan, Timing

STEP = 1_000
WINDOW = Tensor(name="window", datatype="FP32", shape=(-1, 3, 2), role="feature")
ENTITY = Tensor(name="entity", datatype="INT64", shape=(-1,), role="entity")


def channel(name: str, index: int, **more: Any) -> Channel:
    return Channel(
        name=name,
        tensor="window",
        index=index,
        low=0.0,
        high=100.0,
        declared=True,
        **{"longest": 4, **more},
    )


def rule(without: str) -> Rule:
    """An alarm where the sensor that is left reads more than 50."""
    left = "power" if without == "flow" else "flow"
    return Rule(
        inputs=(left,),
        output="alarm",
        feature=(0, -1, -1),
        threshold=(50.0, 0.0, 0.0),
        left=(1, 0, 0),
        right=(2, 0, 0),
        value=(0.0, 0.0, 1.0),
        agreement=0.97,
    )


def plan(**more: Any) -> SafetyPlan:
    """Two sensors, flow and power, a reading a second, windows of three."""
    given: dict[str, Any] = {
        "line": "pump",
        "package": "",
        "inputs": (WINDOW, ENTITY),
        "channels": (channel("flow", 4), channel("power", 5)),
        "timing": Timing(ordered=True, step_ms=STEP, stale_ms=2_500, history=0, react=3),
        "answers": Answers(alarm="alarm", score="score"),
        "fallback": Fallback(chain=("last_good_model", "rule", "abstain")),
    }
    return SafetyPlan(**{**given, **more})


class Says:
    """A model that alarms where the sum of the newest readings is above 150."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.says: Callable[[Tensors], Mapping[str, Array]] | None = None

    def predict(self, tensors: Tensors) -> dict[str, Array]:
        self.asked += 1
        if self.error:
            raise self.error
        if self.says:
            return dict(self.says(tensors))
        total = np.asarray(tensors["window"])[:, -1].sum(axis=1)
        score = np.nan_to_num(total / 150.0).astype(np.float32)
        return {"score": score, "alarm": score > 1.0}


class World:
    """An envelope that is told one reading after the other, a second apart."""

    def __init__(self, made: SafetyPlan | None = None, **more: Any) -> None:
        self.clock = HandClock()
        self.model = Says()
        self.envelope = Envelope(made or plan(), self.model, clock=self.clock, **more)
        self.turn = 0

    def tell(self, flow: float | None = None, power: float = 40.0, **more: Any) -> Answer:
        self.clock.turn(STEP)
        self.turn += 1
        usual = 40.0 + self.turn % 7
        return self.envelope.answer(
            self.sample(usual if flow is None else flow, power + self.turn / 100, **more)
        )

    def sample(self, flow: float, power: float, **more: Any) -> Sample:
        window = np.full((1, 3, 2), 41.0, dtype=np.float32)
        window[0, -1] = (flow, power)
        tensors = {"window": window, "entity": np.zeros(1, dtype=np.int64)}
        return Sample(**{"tensors": tensors, "time_ms": self.clock.now_ms(), **more})


def causes(answer: Answer | None) -> list[str]:
    return [trip.cause for trip in answer.trips] if answer else []
