"""A measured grid as a bench: what a search would have been told, had it measured the point."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codesign.grid import path_of
from genba.codesign.constraints import Bound
from genba.codesign.values import Point, Trial
from genba.core.codec import decode
from genba.core.task import Parity
from genba.core.values import Measure

#: What a choice must keep besides its decisions: the p99 of a call, in milliseconds.
LIMITS = {"inspection": 200.0, "wind-farm": 10.0, "resnet-18": 200.0}
GOAL = "cpu_ms"
AGREE = 0.995


@dataclass
class Entry:
    """A point and what every pass measured of it."""

    point: Point
    passes: list[dict[str, Measure]]
    parity: Parity | None
    refused: str

    def true(self, name: str) -> float:
        """Return the median of all passes: as near to the truth as there is."""
        return float(np.median([found[name].value for found in self.passes]))


class Grid:
    """The measured grid of one model."""

    def __init__(self, name: str, path: Path | None = None) -> None:
        data = json.loads((path or path_of(name)).read_text())
        self.name, self.limit = name, LIMITS[name]
        self.measured = str(data["measured"])
        found: dict[str, Entry] = {}
        for one in data["passes"]:
            for row in one:
                self._add(found, row)
        self.entries = [e for e in found.values() if e.refused or e.passes]
        path_there = "target.limits.latency_ms_p99"
        self.bounds = (Bound(name="latency_ms_p99", side="max", value=self.limit, path=path_there),)

    def _add(self, found: dict[str, Entry], row: dict[str, Any]) -> None:
        point = decode(Point, row["point"])
        entry = found.setdefault(point.id, Entry(point, [], None, ""))
        if "refused" in row:
            entry.refused = row["refused"]["what"]
            return
        entry.passes.append({n: decode(Measure, m) for n, m in row["measures"].items()})
        entry.parity = decode(Parity, row["parity"])

    @property
    def loads(self) -> tuple[float, float]:
        """The least and the most load that the points were measured under."""
        loads = [found["load"].value for entry in self.entries for found in entry.passes]
        return min(loads), max(loads)

    def feasible(self, entry: Entry) -> bool:
        """Say whether a point decides as the reference does and keeps the limit, in truth."""
        alike = entry.parity is not None and entry.parity.passed
        return not entry.refused and alike and entry.true("latency_ms_p99") <= self.limit

    @property
    def best(self) -> Entry:
        """The feasible point with the least CPU time, in truth."""
        return min((e for e in self.entries if self.feasible(e)), key=lambda e: e.true(GOAL))

    def regret(self, point: Point | None) -> float:
        """Return how much more CPU time a choice takes than the best; infinite where none is."""
        chosen = next((e for e in self.entries if point and e.point.id == point.id), None)
        if chosen is None or not self.feasible(chosen):
            return float("inf")
        return chosen.true(GOAL) / self.best.true(GOAL) - 1


class TableBench:
    """Answers measurements from a grid: each time with what one pass, drawn at random, found."""

    def __init__(self, grid: Grid, seed: int) -> None:
        self._entries = {entry.point.id: entry for entry in grid.entries}
        self._chance = np.random.default_rng(seed)
        self.asked: list[str] = []

    def measure(self, trial: Trial, share: float) -> None:  # noqa: ARG002  # passes are alike
        """Fill in what a measurement of the trial would have found."""
        entry = self._entries[trial.point.id]
        self.asked.append(trial.point.id)
        if entry.refused:
            trial.stand, trial.refused = "refused", (entry.refused,)
            return
        trial.measures = entry.passes[self._chance.integers(len(entry.passes))]
        trial.parity = entry.parity
        trial.stand = "measured"
        if entry.parity is not None and not entry.parity.passed:
            trial.stand, trial.refused = "refused", ("It decides otherwise.",)

    def verify(self, trial: Trial) -> None:
        """Measure once more."""
        self.measure(trial, 1.0)
        if trial.stand == "measured":
            trial.stand = "verified"
