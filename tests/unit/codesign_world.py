"""A target that is a table: every point of a grid, what it takes, and a bench to look it up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from genba.codesign.values import Point, Trial
from genba.core.task import Parity
from genba.core.values import Measure

ALIKE = Parity(decision_agreement=1.0, max_error=0.0, samples=100, passed=True)
UNLIKE = Parity(decision_agreement=0.9, max_error=0.3, samples=100, passed=False)


def measures(cpu: float, latency: float, memory: float = 100.0) -> dict[str, Measure]:
    return {
        "cpu_ms": Measure(value=cpu, unit="ms", low=cpu * 0.98, high=cpu * 1.02),
        "latency_ms_p50": Measure(value=latency, unit="ms"),
        "latency_ms_p99": Measure(value=latency * 1.2, unit="ms"),
        "memory_mib": Measure(value=memory, unit="MiB"),
        "energy_mj": Measure(value=cpu * 5, unit="mJ", method="modelled"),
        "size_mib": Measure(value=memory / 4, unit="MiB"),
        "cost_usd_per_1k": Measure(value=latency / 1e4, unit="USD", method="modelled"),
    }


@dataclass
class Table:
    """A bench that answers from a table, with noise, and counts what it is asked."""

    truth: Mapping[str, Mapping[str, Measure]]
    noise: float = 0.0
    unlike: frozenset[str] = frozenset()  # points that decide another way
    crashing: frozenset[str] = frozenset()
    seed: int = 0
    asked: list[tuple[str, float]] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)

    def measure(self, trial: Trial, share: float) -> None:
        self.asked.append((trial.point.id, share))
        if trial.point.id in self.crashing:
            trial.refused, trial.stand = ("It crashed.",), "refused"
            return
        trial.measures = self._noisy(trial.point.id)
        if trial.point.id in self.unlike:
            trial.parity, trial.refused, trial.stand = UNLIKE, ("It decides otherwise.",), "refused"
            return
        trial.parity, trial.stand = ALIKE, "measured"

    def verify(self, trial: Trial) -> None:
        self.verified.append(trial.point.id)
        trial.measures, trial.stand = self._noisy(trial.point.id), "verified"

    def _noisy(self, point: str) -> dict[str, Measure]:
        rng = np.random.default_rng([self.seed, len(self.asked) + len(self.verified)])
        by = float(np.exp(self.noise * rng.standard_normal()))
        return {
            name: Measure(value=m.value * by, unit=m.unit, method=m.method)
            if name.endswith("_ms") or name.startswith("latency")
            else m
            for name, m in self.truth[point].items()
        }


def grid(seed: int) -> tuple[list[Point], dict[str, dict[str, Measure]]]:
    """Return 72 points of a made-up network on a made-up machine, each seed another one."""
    rng = np.random.default_rng(seed)
    engines = {"ort": rng.uniform(5, 40), "ov": rng.uniform(5, 40)}
    precisions = {"float32": 1.0, "bfloat16": rng.uniform(0.4, 1.3), "int8": rng.uniform(0.25, 1.5)}
    points, truth = [], {}
    for engine, base in engines.items():
        for precision, times in precisions.items():
            own = base * times * float(np.exp(0.15 * rng.standard_normal()))
            for threads in (1, 2, 4):
                for batch in (1, 8):
                    for streams in (1, 2):
                        settings = {"precision": precision, "threads": threads}
                        settings |= {"streams": streams} if streams > 1 else {}
                        form = "int8" if precision == "int8" else ""
                        point = Point(engine=engine, settings=settings, form=form, batch=batch)
                        cpu = own * (1 + rng.uniform(0.0, 0.3) * (threads - 1))
                        cpu *= rng.uniform(0.6, 1.05) if batch > 1 else 1.0
                        latency = cpu * batch / threads**0.7
                        points.append(point)
                        truth[point.id] = measures(cpu, latency, 100.0 * streams)
    return points, truth


def trials(points: Sequence[Point]) -> list[Trial]:
    return [Trial(point=point) for point in points]
