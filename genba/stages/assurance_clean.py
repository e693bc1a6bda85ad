"""What an envelope does to readings without a fault: false trips, alarms kept, time it takes."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array, JsonObject, Predict, Tensors, View
from genba.core.task import Samples, Task
from genba.core.values import Manifest
from genba.edge.clocks import HandClock
from genba.edge.safety.answer import Sample
from genba.edge.safety.envelope import Envelope
from genba.edge.safety.plan import SafetyPlan
from genba.learn.proportion import wilson
from genba.stages.assurance_episodes import EPOCH_MS, Episode, Trial, beat_ms, sample_at
from genba.stages.assurance_pictures import Pictures
from genba.stages.assurance_rows import Decision, Sensors, answered
from genba.stages.samples import in_chunks, part

_ROWS: Final = 16_000
_BLOCKS: Final = 32
_WARM: Final = 16  # readings at the beginning of a block that are not counted
_TIMED: Final = 3_000
_TIMED_S: Final = 4.0
_COVERAGES: Final = (1.0, 0.99, 0.95, 0.9, 0.8)


@dataclass(kw_only=True, slots=True)
class Clean:
    """Counts over readings without a fault."""

    readings: int = 0
    tripped: int = 0
    withheld: int = 0
    alarms: int = 0
    alarms_held: int = 0
    left_out: int = 0  # readings that are not clean: labelled, missing, out of range
    layers: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> JsonObject:
        """Return the rates with their intervals."""
        low, high = wilson(self.withheld / max(1, self.readings), max(1, self.readings))
        return {
            "readings": self.readings,
            "left_out": self.left_out,
            "tripped": _share(self.tripped, self.readings),
            "withheld": _share(self.withheld, self.readings),
            "withheld_interval": [round(low, 5), round(high, 5)],
            "by_layer": {n: _share(c, self.readings) for n, c in self.layers.most_common()},
            "alarms": self.alarms,
            "alarms_held_back": self.alarms_held,
        }


def clean_rows(
    trial: Trial, predict: Predict, task: Task, view: View, manifest: Manifest, sensors: Sensors
) -> Clean:
    """Tell the envelope stretches of the test set as they are, and count."""
    found = Clean()
    each = _ROWS // _BLOCKS
    stride = max(1, view.count("test") // _ROWS)
    for number, samples in enumerate(_blocks(task, view, manifest, each)):
        if number % stride == 0 or stride == 1:
            outputs = answered(predict, samples.tensors)
            _count(found, trial, samples, outputs, manifest, sensors)
        if found.readings >= _ROWS:
            break
    return found


def clean_images(trial: Trial, pictures: Pictures) -> Clean:
    """Tell the envelope the images of the test set as they are, one stream, and count."""
    found = Clean()
    raised = trial.decision.raised(pictures.clean)
    for i, episode in enumerate(pictures.plain()):
        answer = trial.answers(episode)[episode.onset]
        at = (i + episode.onset) % len(raised)
        assert answer is not None
        _one(found, answer, alarm=bool(raised[at]))
    return found


def timed(plan: SafetyPlan, predictor: Any, samples: list[Sample]) -> JsonObject:
    """Measure one answer after the other, here and now: inference, and what the envelope adds."""
    inner = _Timed(predictor)
    clock = HandClock()
    envelope = Envelope(plan, inner, clock=clock)
    step = beat_ms(plan)
    total, added = [], []
    began = time.monotonic()
    for at in range(_TIMED):
        clock.turn(step)
        sample = replace(samples[at % len(samples)], time_ms=clock.now_ms())
        inner.spent = 0
        started = time.perf_counter_ns()
        envelope.answer(sample)
        took = time.perf_counter_ns() - started
        total.append(took)
        added.append(took - inner.spent)
        if time.monotonic() - began > _TIMED_S:
            break
    return {
        "answers": len(total),
        "monitor_us_p50": round(float(np.percentile(added, 50)) / 1e3, 2),
        "monitor_us_p999": round(float(np.percentile(added, 99.9)) / 1e3, 2),
        "answer_ms_p50": round(float(np.percentile(total, 50)) / 1e6, 4),
        "answer_ms_p99": round(float(np.percentile(total, 99)) / 1e6, 4),
        "answer_ms_p999": round(float(np.percentile(total, 99.9)) / 1e6, 4),
        "late_share": _late(total, plan.timing.deadline_ms),
        "method": "measured",
    }


def samples_of(episodes: Iterable[Episode]) -> list[Sample]:
    """Return the readings of episodes, one after the other."""
    return [sample_at(e, at) for e in episodes for at in range(len(e.now_ms))]


def abstention(
    task: Task, outputs: Any, label: Any, decision: Decision, settings: JsonObject
) -> JsonObject | None:
    """Return the risk of answers by how many are given, the surest first; None without labels.

    Risk and coverage as El-Yaniv and Wiener (JMLR 2010) plot them.
    """
    if decision.by not in ("alarm", "class"):
        return None
    said = np.asarray(outputs[decision.name]).reshape(len(label))
    known = np.isfinite(label)
    if decision.by == "class":
        known &= said >= 0
        wrong = said != label
    else:
        wrong = said.astype(bool) != (label > 0)
    if not known.any() or not (label[known] > 0).any():
        return None
    unsure = np.asarray(task.uncertainty(outputs, settings))[known]
    order = np.argsort(unsure, kind="stable")
    errors = wrong[known][order]
    points = []
    for coverage in _COVERAGES:
        count = max(1, int(coverage * len(errors)))
        hits = int(errors[:count].sum())
        low, high = wilson(hits / count, count)
        points.append(
            {
                "coverage": coverage,
                "risk": round(hits / count, 5),
                "low": round(low, 5),
                "high": round(high, 5),
                "answers": count,
            }
        )
    return {"points": points, "what": "share of decisions that the labels call wrong"}


class _Timed:
    def __init__(self, predictor: Any) -> None:
        self.package = predictor.package
        self._predictor = predictor
        self.spent = 0

    def predict(self, tensors: Tensors) -> dict[str, Array]:
        started = time.perf_counter_ns()
        made: dict[str, Array] = self._predictor.predict(tensors)
        self.spent += time.perf_counter_ns() - started
        return made


def _blocks(task: Task, view: View, manifest: Manifest, each: int) -> Iterator[Samples]:
    """Yield blocks of rows, without those at the beginning that look back beyond the split."""
    context = int(manifest.settings.get("context") or 0)
    seen: Counter[int] = Counter()
    for samples in in_chunks(task, view, "test", manifest.settings):
        count = len(samples.row)
        owner = int(samples.entity[0]) if count else 0
        begin = min(count, max(0, context - seen[owner]))
        seen[owner] += count
        for first in range(begin, count, each):
            yield part(samples, slice(first, min(first + each, count)))


def _count(
    found: Clean, trial: Trial, samples: Samples, outputs: Any, manifest: Manifest,
    sensors: Sensors,
) -> None:  # fmt: skip
    ordered = trial.plan.timing.ordered
    count = len(samples.row)
    plain = EPOCH_MS + beat_ms(trial.plan) * np.arange(count, dtype=np.int64)
    time_ms = np.asarray(samples.time, dtype=np.int64) if ordered else plain
    names = manifest.entities
    owner = int(samples.entity[0]) if count else 0
    episode = Episode(
        tensors=samples.tensors,
        outputs=outputs,
        clean=outputs,
        time_ms=time_ms,
        now_ms=time_ms,
        entity=names[owner] if 0 <= owner < len(names) else "",
        onset=count,
    )
    values = sensors.values(samples.tensors)
    low = np.array([c.low for c in trial.plan.channels])
    high = np.array([c.high for c in trial.plan.channels])
    with np.errstate(invalid="ignore"):
        whole = ((values >= low) & (values <= high)).all(axis=1)
    clean = whole & ~(samples.label == 1.0)
    raised = trial.decision.raised(outputs)
    for at, answer in enumerate(trial.answers(episode)):
        if at < _WARM or answer is None:
            continue
        if not clean[at]:
            found.left_out += 1
            continue
        _one(found, answer, alarm=bool(raised[at]))


def _one(found: Clean, answer: Any, *, alarm: bool) -> None:
    found.readings += 1
    found.tripped += bool(answer.trips)
    found.withheld += answer.action != "model"
    found.layers.update({trip.layer for trip in answer.trips})
    if alarm:
        found.alarms += 1
        found.alarms_held += answer.action != "model"


def _late(total: list[int], deadline_ms: float | None) -> float | None:
    if deadline_ms is None:
        return None
    return round(float(np.mean(np.array(total) / 1e6 > deadline_ms)), 5)


def _share(part_: int, whole: int) -> float | None:
    return round(part_ / whole, 5) if whole else None
