"""How many labels a model needs, asked for in the order of the queue and at random."""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.labels.pools import PoolView, Rows, read
from benchmarks.labels.subjects import SUBJECTS, Subject, dataset, remember
from benchmarks.machine import stamp
from genba.core.protocols import Predict, View
from genba.core.task import Model, Task
from genba.learn.neighbours import novelty, standardised
from genba.learn.threads import one_thread
from genba.loop.queue.order import first, worth
from genba.runs.effort import Effort

HERE = Path(__file__).parent
SEEDS: Final = range(100, 105)  # the order of the queue was chosen with others
STUDENT: Final = 2.7764  # 97.5 % quantile of Student's t with one degree of freedom less
WAYS: Final = ("queue", "random")
_CASES: Final = 2_000  # as in a package
_TRAINING: Final = ("train", "calibrate")

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Labelling:
    """One pool being labelled, question by question."""

    def __init__(self, subject: Subject, task: Task, whole: View, seed: int) -> None:
        self.subject, self.task, self.whole, self.seed = subject, task, whole, seed
        self.pool = read(whole, _TRAINING, subject.pool, seed)
        self.test = read(whole, ("test",), subject.test, seed)
        self.chance = np.random.default_rng(seed)
        self.labelled = np.zeros(len(self.pool), dtype=np.bool_)
        self.labelled[self.chance.permutation(len(self.pool))[: subject.start]] = True

    def run(self, way: str) -> list[float]:
        """Return the quality after each round."""
        found = []
        with one_thread():
            for left in range(self.subject.rounds, -1, -1):
                quality, model, predict = self._trained()
                found.append(quality)
                if left:
                    self._ask(way, model, predict)
        return found

    def ceiling(self) -> float:
        """Return the quality with every row of the pool labelled."""
        self.labelled[:] = True
        with one_thread():
            return self._trained()[0]

    def _trained(self) -> tuple[float, Model, Predict]:
        view = PoolView(self.whole, self.pool, self.test, self.labelled, self.seed)
        settings = self.task.derive(view.line, view)
        effort = Effort.simple(seed=self.seed, minutes=5.0, trials=self.subject.trials)
        model = self.task.fit(view, settings, effort)
        predict = self.task.reference(model)
        scores = self.task.score(predict, view, "test", model.settings)
        return scores.measures[self.subject.measure].value, model, predict

    def _ask(self, way: str, model: Model, predict: Predict) -> None:
        open_ = np.flatnonzero(~self.labelled)
        count = min(self.subject.batch, len(open_))
        if way == "random":
            chosen = self.chance.permutation(len(open_))[:count]
        else:
            chosen = self._queued(open_, model, predict, count)
        self.labelled[open_[chosen]] = True

    def _queued(self, open_: Indices, model: Model, predict: Predict, count: int) -> Indices:
        """Return what the queue asks first, as `genba.loop.queue` does."""
        unsure, looks = self._seen(self.pool.take(open_), model, predict)
        fresh = novelty(self._cases(model, predict), looks)
        nobody = np.zeros(len(open_))
        return first(worth(unsure, fresh, nobody), nobody, standardised(looks, looks[:0])[0], count)

    def _cases(self, model: Model, predict: Predict) -> Floats:
        """Return what the rows the model has learned from look like, as in a package."""
        supervised = bool(self.whole.classes)
        known = np.flatnonzero(self.labelled) if supervised else np.arange(len(self.pool))
        at = known[np.linspace(0, len(known) - 1, min(len(known), _CASES)).astype(np.int64)]
        return self._seen(self.pool.take(at), model, predict)[1]

    def _seen(self, rows: Rows, model: Model, predict: Predict) -> tuple[Floats, Floats]:
        """Return how unsure the model is about rows, and what they look like."""
        unsure, looks = [], []
        for owner in np.unique(rows.columns["entity"]):
            at = np.flatnonzero(rows.columns["entity"] == owner)
            samples = self.task.samples(rows.take(at).columns, model.settings)
            outputs = predict(samples.tensors)
            unsure.append(self.task.uncertainty(outputs, model.settings))
            looks.append(self.task.embed(samples.tensors, outputs, model.settings))
        # Entities come in their order, as do the rows of a pool that was read by entity.
        return np.concatenate(unsure).astype(np.float64), np.concatenate(looks).astype(np.float64)


def measure(subject: Subject, home: Path) -> dict[str, Any]:
    """Label a subject with every seed, in the order of the queue and at random."""
    task, whole = dataset(subject, home)
    curves: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    ceilings = []
    for seed in SEEDS:
        ceilings.append(Labelling(subject, task, whole, seed).ceiling())
        for way in WAYS:
            begin = time.perf_counter()
            curve = Labelling(subject, task, whole, seed).run(way)
            curves[way].append(curve)
            took = time.perf_counter() - begin
            print(
                f"{subject.name:9} seed {seed} {way:7} {curve[0]:.3f} … {curve[-1]:.3f}"
                f"  {took:.0f} s",
                flush=True,
            )
    return report(subject, curves, ceilings)


def report(
    subject: Subject, curves: Mapping[str, Sequence[Sequence[float]]], ceilings: Sequence[float]
) -> dict[str, Any]:
    """Return the curves with their intervals, and how many labels the goal took."""
    labels = [subject.start + n * subject.batch for n in range(subject.rounds + 1)]
    ways = {}
    for way, found in curves.items():
        values = np.array(found)
        low, high = band(values)
        ways[way] = {
            "mean": values.mean(axis=0).tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
            "labels_to_goal": [reached(curve, labels, subject.goal) for curve in found],
        }
    gain = np.array(curves["queue"]) - np.array(curves["random"])
    low, high = band(gain)
    return {
        "task": subject.line.task,
        "source": subject.line.data.source,
        "measure": subject.measure,
        "goal": subject.goal,
        "pool": subject.pool,
        "test": subject.test,
        "seeds": list(SEEDS),
        "labels": labels,
        "ways": ways,
        "all_labelled": float(np.mean(ceilings)),
        "gain": {"mean": gain.mean(axis=0).tolist(), "low": low.tolist(), "high": high.tolist()},
    }


def band(values: Floats) -> tuple[Floats, Floats]:
    """Return the 95 % interval of the mean of each column over a few seeds (Student's t)."""
    mean, count = values.mean(axis=0), len(values)
    half = STUDENT * values.std(axis=0, ddof=1) / np.sqrt(count)
    return mean - half, mean + half


def reached(curve: Sequence[float], labels: Sequence[int], goal: float) -> int | None:
    """Return how many labels the goal took, None where it was not reached."""
    return next((n for n, quality in zip(labels, curve, strict=True) if quality >= goal), None)


def main() -> None:
    """Measure every subject, or those that are named, and write the report."""
    wanted = sys.argv[1:] or [subject.name for subject in SUBJECTS]
    path = HERE / "report.json"
    known = json.loads(path.read_text())["subjects"] if sys.argv[1:] and path.is_file() else {}
    remember()
    for subject in SUBJECTS:
        if subject.name in wanted:
            with tempfile.TemporaryDirectory() as home:
                known[subject.name] = measure(subject, Path(home))
    path.write_text(json.dumps({**stamp(), "subjects": known}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
