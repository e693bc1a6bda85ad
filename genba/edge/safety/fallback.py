"""Who answers instead of the model: the first of the chain that does not share what has failed."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array, Tensors
from genba.edge.safety.answer import Action, Answer, Trip
from genba.edge.safety.plan import Channel, Fallback, Rule

CHAIN: Final[tuple[Action, ...]] = ("last_good_model", "rule", "fixed", "abstain", "stop")
_SENSOR: Final = "sensor:"


def failed_parts(trips: Sequence[Trip]) -> frozenset[str]:
    """Return what the trips that hold suspect; a trip that suspects nothing leaves all as it is."""
    return frozenset(trip.part for trip in trips if trip.holds and trip.part)


def shares(who: str, failed: frozenset[str]) -> bool:
    """Say whether a way to answer depends on what has failed, whatever else it needs.

    Example:
        >>> shares("last_good_model", frozenset({"model"}))
        False
        >>> shares("last_good_model", frozenset({"sensor:flow"}))
        True
    """
    if who == "last_good_model":
        return bool(failed - {"model"})
    if who == "rule":
        sensors = {part for part in failed if part.startswith(_SENSOR)}
        return "input" in failed or len(sensors) > 1
    return False


def decide(rule: Rule, values: Mapping[str, float]) -> float | None:
    """Return what a rule says of some readings; None where one that it needs is missing.

    Example:
        >>> rule = Rule(inputs=("flow",), output="alarm", feature=(0, -1, -1), left=(1, 0, 0),
        ...             right=(2, 0, 0), threshold=(5.0, 0.0, 0.0), value=(0.0, 0.0, 1.0),
        ...             agreement=0.9)
        >>> decide(rule, {"flow": 7.0}), decide(rule, {"flow": float("nan")})
        (1.0, None)
    """
    node = 0
    while (feature := rule.feature[node]) >= 0:
        value = values[rule.inputs[feature]]
        if not np.isfinite(value):
            return None
        node = rule.left[node] if value <= rule.threshold[node] else rule.right[node]
    return rule.value[node]


class Ladder:
    """The chain of a plan.

    Args:
        plan: Of the fallback.
        channels: Of the readings.
        kinds: Numpy type of each output by its name.
        last_good: Another predictor, for when the model fails; None where there is none.
    """

    def __init__(
        self, plan: Fallback, channels: Sequence[Channel], kinds: Mapping[str, Any], last_good: Any
    ) -> None:
        self.plan, self.last_good = plan, last_good
        self._names = [channel.name for channel in channels]
        self._fixed = {
            name: np.array([value], dtype=kinds.get(name, np.float32))
            for name, value in plan.value.items()
        }

    def answer(
        self,
        trips: Sequence[Trip],
        values: Sequence[float],
        tensors: Tensors | None,
        suspect: Mapping[str, Array] | None,
    ) -> Answer:
        """Return the answer of the first that may give one; at the end of the chain nobody does."""
        failed, noted = failed_parts(trips), tuple(trips)
        for who in self.plan.chain:
            if who == "stop":
                return Answer(None, "stop", noted, suspect)
            if who == "abstain":
                break
            outputs = None if shares(who, failed) else self._by(who, failed, values, tensors)
            if outputs is not None:
                return Answer(outputs, who, noted, suspect)  # type: ignore[arg-type]  # one of CHAIN
        return Answer(None, "abstain", noted, suspect)

    def _by(
        self, who: str, failed: frozenset[str], values: Sequence[float], tensors: Tensors | None
    ) -> Mapping[str, Array] | None:
        if who == "fixed":
            return self._fixed or None
        if who == "last_good_model":
            return self._last_good(tensors)
        return self._by_rule(failed, values)

    def _last_good(self, tensors: Tensors | None) -> Mapping[str, Array] | None:
        if self.last_good is None or tensors is None:
            return None
        try:
            made: Mapping[str, Array] = self.last_good.predict(tensors)
        except Exception:  # noqa: BLE001  a runtime may fail in any way; the next of the chain answers
            return None
        return made

    def _by_rule(
        self, failed: frozenset[str], values: Sequence[float]
    ) -> Mapping[str, Array] | None:
        without = next((p.removeprefix(_SENSOR) for p in failed if p.startswith(_SENSOR)), "")
        rule = self.plan.rules.get(without)
        if rule is None or len(values) != len(self._names):
            return None
        said = decide(rule, dict(zip(self._names, values, strict=True)))
        return None if said is None else {rule.output: np.array([said > 0.5], dtype=np.bool_)}
