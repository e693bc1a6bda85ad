"""What speaks for a training: counted since the last one that used it up."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Streak:
    """A channel that drifted in consecutive windows."""

    windows: int
    statistic: float
    null_q: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What has been seen since the last training that used it up."""

    labels: int = 0
    confirmed: int = 0  # alarms that people called anomalies
    false_alarms: int = 0  # alarms that people called normal
    missed: int = 0  # anomalies that raised no alarm
    wrong: int = 0  # answers that were mistaken in another way: another class, a wrong value
    predictions: int = 0  # of the stable package
    cpu_seconds: float = 0.0  # spent on them
    drift: Mapping[str, Streak] = field(default_factory=dict)

    def plus(self, later: "Evidence") -> "Evidence":
        """Return the evidence of two stretches of time together; the later drift counts."""
        return Evidence(
            labels=self.labels + later.labels,
            confirmed=self.confirmed + later.confirmed,
            false_alarms=self.false_alarms + later.false_alarms,
            missed=self.missed + later.missed,
            wrong=self.wrong + later.wrong,
            predictions=self.predictions + later.predictions,
            cpu_seconds=self.cpu_seconds + later.cpu_seconds,
            drift=later.drift or self.drift,
        )

    def of_another_model(self) -> "Evidence":
        """Return what still holds when another model is in service: nothing that judged the old."""
        return replace(self, drift={}, confirmed=0, false_alarms=0, missed=0, wrong=0)

    def served(self, predictions: int, cpu_seconds: float) -> "Evidence":
        """Return the evidence after so many more predictions of the stable package."""
        return replace(
            self,
            predictions=self.predictions + predictions,
            cpu_seconds=self.cpu_seconds + cpu_seconds,
        )
