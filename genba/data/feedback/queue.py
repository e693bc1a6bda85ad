"""What to ask people next: the predictions whose label would teach most.

Three things make an answer worth having, each from 0 to 1: the score is near the threshold
(uncertainty), a channel that has drifted reads what calibration hardly ever saw (novelty), models
or people disagree (disagreement). Their sum is the priority. Of an episode (consecutive
predictions of one entity) only the best is asked, since one answer settles the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genba.core.problem import Problem
from genba.data.feedback.join import Seen, captures, seen, step_ms
from genba.data.feedback.labels import Target, known, labeller, majority, opinions, target_of
from genba.data.feedback.rows import Label
from genba.store.captures import read_capture
from genba.store.home import Store

#: Newest capture batches looked through.
CAPTURES: Final = 500
#: Candidates kept of one capture batch; the rest of it is surely less worth asking.
_PER_CAPTURE: Final = 50
#: Predictions of an entity this many steps apart belong to one episode.
EPISODE_STEPS: Final = 6
#: Length of a step where no package states one.
_STEP_MS: Final = 1_000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueItem:
    """One question: was this an anomaly?"""

    prediction: str
    entity: str | None
    time_ms: int | None
    package: str
    score: float | None
    alarm: bool | None
    priority: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drifted:
    """A sensor that drifted, and what calibration knew of it."""

    name: str
    index: int
    edges: Floats


@dataclass(slots=True)
class _Lookout:
    """What is looked for while captures are read."""

    package: str  # the one that was watched
    drifted: tuple[_Drifted, ...]
    tensor: str
    sensors: int
    settled: set[Target]
    items: dict[Target, QueueItem] = field(default_factory=dict)
    alarms: dict[Target, dict[str, bool]] = field(default_factory=dict)


def queue(
    store: Store, line: str, limit: int = 20, *, label: Label | None = None
) -> list[QueueItem]:
    """Return the predictions most worth a label, best first.

    Args:
        store: Where captures and feedback are.
        line: Name of the line.
        limit: How many.
        label: Turns a value into a label; the task's own by default.
    """
    voices = opinions(known(store, line, store.feedback.all(line)), label or labeller(store, line))
    agreed = {t: majority(o.label for o in said.values()) for t, said in voices.items()}
    lookout = _lookout(store, line, {t for t, value in agreed.items() if value is not None})
    for number, record in enumerate(captures(store, line)):
        if number >= CAPTURES:
            break
        try:
            _look(lookout, read_capture(store, record), str(record.body["server"]))
        except Problem:
            continue  # a damaged batch has nothing to ask about
    for target, item in lookout.items.items():
        lookout.items[target] = _disagreement(item, target, lookout, agreed)
    step = step_ms(store, line) or _STEP_MS
    ranked = sorted(lookout.items.values(), key=_rank)
    return _one_per_episode(ranked, EPISODE_STEPS * step)[:limit]


def _rank(item: QueueItem) -> tuple[float, int, str]:
    return (-item.priority, -(item.time_ms or 0), item.prediction)


def _lookout(store: Store, line: str, settled: set[Target]) -> _Lookout:
    events = store.ledger.events(line=line, kinds=("watch",))
    newest = events[-1].body if events else {}
    manifest = store.ledger.get("package", str(newest.get("package", ""))) or {}
    settings: Mapping[str, Any] = manifest.get("settings") or {}
    sensors = [str(s) for s in settings.get("sensors") or ()]
    columns = (settings.get("drift") or {}).get("columns") or {}
    names = [
        f["name"]
        for f in newest.get("findings") or ()
        if f["drifted"] and f["kind"] == "input" and f["name"] in sensors and f["name"] in columns
    ]
    inputs = (manifest.get("signature") or {}).get("inputs") or ()
    features = [str(t["name"]) for t in inputs if t.get("role", "feature") == "feature"]
    return _Lookout(
        package=str(newest.get("package", "")),
        drifted=tuple(
            _Drifted(name=n, index=sensors.index(n), edges=np.asarray(columns[n]["edges"], float))
            for n in names
        ),
        tensor=features[0] if features else "",
        sensors=len(sensors),
        settled=settled,
    )


def _look(lookout: _Lookout, table: pa.Table, server: str) -> None:
    if "score" not in table.column_names:
        return
    scores = table["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    uncertainty = _uncertainty(scores)
    novelty, names = _novelty(lookout, table)
    _note_alarms(lookout, table)
    for row in np.argsort(-(uncertainty + novelty), kind="stable")[:_PER_CAPTURE].tolist():
        if not np.isfinite(scores[row]):
            continue
        one = seen(table, int(row), server)
        target = target_of(one.prediction, one.entity, one.time_ms)
        if target in lookout.settled or one.role == "shadow":
            continue
        reasons = []
        if uncertainty[row] > 0.5:
            reasons.append(f"the score {scores[row]:.2f} is near the threshold 1")
        if novelty[row] > 0.0:
            reasons.append(f"{names[row]} has drifted and reads what calibration hardly saw")
        item = _item(one, float(uncertainty[row] + novelty[row]), tuple(reasons))
        before = lookout.items.get(target)
        if before is None or item.priority > before.priority:
            lookout.items[target] = item


def _item(one: Seen, priority: float, reasons: tuple[str, ...]) -> QueueItem:
    return QueueItem(
        prediction=one.prediction,
        entity=one.entity,
        time_ms=one.time_ms,
        package=one.package,
        score=one.score,
        alarm=one.alarm,
        priority=priority,
        reasons=reasons,
    )


def _uncertainty(scores: Floats) -> Floats:
    """Return 1 at the threshold, falling with the ratio on either side."""
    known_scores = np.where(np.isfinite(scores) & (scores > 0), scores, 0.0)
    with np.errstate(divide="ignore"):
        return np.minimum(known_scores, np.where(known_scores > 0, 1.0 / known_scores, 0.0))


def _novelty(lookout: _Lookout, table: pa.Table) -> tuple[Floats, list[str]]:
    """Say how far outside the calibration deciles a drifted sensor is, in widths of them."""
    best, names = np.zeros(table.num_rows), [""] * table.num_rows
    mine = np.array(table["package"].to_pylist()) == lookout.package
    if not lookout.drifted or not mine.any() or lookout.tensor not in table.column_names:
        return best, names
    flat = table.filter(pa.array(mine))[lookout.tensor].combine_chunks().flatten()
    now = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(int(mine.sum()), -1)
    for channel in lookout.drifted:
        values = np.nan_to_num(now[:, channel.index - lookout.sensors], nan=channel.edges[0])
        low, high = float(channel.edges[0]), float(channel.edges[-1])
        beyond = np.maximum(np.maximum(low - values, values - high), 0.0)
        share = np.zeros(table.num_rows)
        share[mine] = np.minimum(1.0, beyond / max(high - low, 1e-12))
        for row in np.flatnonzero(share > best).tolist():
            names[row] = channel.name
        best = np.maximum(best, share)
    return best, names


def _note_alarms(lookout: _Lookout, table: pa.Table) -> None:
    """Remember what each package said of a moment, where more than one was asked."""
    if "alarm" not in table.column_names or len(table["package"].unique()) < 2:
        return
    columns = ("entity", "time", "package", "alarm")
    for entity, time_ms, package, alarm in zip(
        *(table[c].to_pylist() for c in columns), strict=True
    ):
        if time_ms is not None and alarm is not None:
            target = target_of(None, entity, time_ms)
            lookout.alarms.setdefault(target, {})[package] = alarm


def _disagreement(
    item: QueueItem, target: Target, lookout: _Lookout, agreed: Mapping[Target, float | None]
) -> QueueItem:
    extra = []
    if len(set(lookout.alarms.get(target, {}).values())) > 1:
        extra.append("the models disagree about the alarm")
    if target in agreed:  # settled ones were left out, so this is a tie
        extra.append("people disagree about it")
    return replace(item, priority=item.priority + len(extra), reasons=(*item.reasons, *extra))


def _one_per_episode(ranked: Iterable[QueueItem], gap_ms: int) -> list[QueueItem]:
    """Keep the best of each episode: greedy, best first."""
    kept: list[QueueItem] = []
    taken: dict[str | None, list[int]] = {}
    for item in ranked:
        if item.time_ms is not None:
            near = taken.setdefault(item.entity, [])
            if any(abs(item.time_ms - t) < gap_ms for t in near):
                continue
            near.append(item.time_ms)
        kept.append(item)
    return kept
