"""What is demonstrated, on which records, and how fast."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from genba.core.line import Line

_FAULT_AFTER: Final = 200  # predictions that a faulty package answers well before it fails
DRILLS: Final[dict[str, Mapping[str, Any]]] = {
    "not a number": {"after": _FAULT_AFTER, "not_a_number": True},
    "latency": {"after": _FAULT_AFTER, "delay_ms": 120.0},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A line, the months its first model learns from, and the months replayed as live traffic.

    Example:
        >>> from genba.core.line import Data
        >>> line = Line(name="farm", task="sensor.anomaly", data=Data(source="files:farm.csv"))
        >>> plan = Plan(line=line, train_until="2026-02-01", live_until="2026-06-01",
        ...             entities=("T1",))
        >>> plan.early.data.until, plan.early.rollout.decide
        ('2026-02-01', 'auto')
    """

    line: Line  # as its file says
    train_until: str  # ISO 8601; the replay begins here
    live_until: str
    entities: tuple[str, ...]  # to train on; the others come up in the traffic as strangers
    days_per_s: float = 5.0  # a real day has 86,400 seconds, so this is 432,000 times faster
    patience_days: int = 240  # recorded days an act may take before it is said: nothing was shown
    training_days: int = 100  # recorded days that may pass during a run before the replay waits
    late_days: int = 7  # recorded days from an alarm to the answer of an operator
    mistakes: float = 0.05  # share of wrong labels from honest operators
    poison: float = 0.3  # and from the shift that is to be noticed
    drills: Mapping[str, Mapping[str, Any]] = field(default_factory=DRILLS.copy)

    @property
    def early(self) -> Line:
        """The line as it is trained at first: early months, some entities, no waiting."""
        return replace(
            self.line,
            data=replace(self.line.data, until=self.train_until, entities=self.entities),
            rollout=replace(self.line.rollout, decide="auto"),
        )


def wind_farm(line: Line) -> Plan:
    """Return the plan for the two years of La Haute Borne: three months teach three turbines.

    Args:
        line: The wind farm's.
    """
    return Plan(
        line=line,
        train_until="2014-04-01T00:00:00Z",
        live_until="2015-12-31T00:00:00Z",
        entities=("R80711", "R80721", "R80736"),
    )
