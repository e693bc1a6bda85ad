"""The labelling queue of a line: its newest predictions, ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genba.core.problem import Problem
from genba.data.feedback.join import captures, step_ms
from genba.data.feedback.labels import (
    Target,
    known,
    meaning_of,
    opinions,
    target_of,
    task_of,
)
from genba.data.served import Package, Packages, served
from genba.learn.neighbours import standardised
from genba.loop.queue.candidates import Candidate, Drifted, Lookout, drifted
from genba.loop.queue.order import CHOICE, first, one_per_episode, worth
from genba.store.captures import read_capture
from genba.store.home import Store

#: Newest capture batches looked through.
CAPTURES: Final = 500
#: Predictions of an entity this many steps apart belong to one episode.
EPISODE_STEPS: Final = 6
#: Length of a step where no package states one.
_STEP_MS: Final = 1_000
#: Of a target that says no column.
_PARTS: Final = {"moment": 3, "prediction": 2}
#: Between what two packages saw, in standard deviations per dimension.
_FAR: Final = 10.0
#: Outputs that are decisions, about which models can disagree.
_DECISIONS: Final = {"alarm": "the alarm", "class": "the class"}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueItem:
    """One question: what was this?"""

    prediction: str
    entity: str | None
    time_ms: int | None
    package: str
    score: float | None
    alarm: bool | None
    answer: str | None  # the class it was given, or what was said
    priority: float
    reasons: tuple[str, ...]
    asked: str | None = None  # the question, where packages are asked in words


@dataclass(kw_only=True)
class _Table:
    """What was found so far, by target."""

    candidates: dict[Target, Candidate] = field(default_factory=dict)
    decisions: dict[tuple[Target, str], dict[str, Any]] = field(default_factory=dict)


def queue(store: Store, line: str, limit: int = 20) -> list[QueueItem]:
    """Return the predictions most worth a label, best first.

    Args:
        store: Where captures and feedback are.
        line: Name of the line.
        limit: How many.

    Raises:
        Problem: G810 when the store knows no such line.
    """
    agreed = _agreed(store, line)
    packages, found = Packages(store), _Table()
    lookout = _lookout(store, line, packages)
    for number, record in enumerate(captures(store, line)):
        if number >= CAPTURES:
            break
        try:
            table = read_capture(store, record, images=lookout.reads_text)
        except Problem:
            continue  # a damaged batch has nothing to ask about
        _note_decisions(found, packages, table)
        for part in served(packages, table):
            for one in lookout.look(part, str(record.body["server"])):
                if agreed.get(one.target) is None:
                    _keep(found, one)
    step = step_ms(store, line) or _STEP_MS
    return _ranked(found, agreed, EPISODE_STEPS * step, limit)


def _agreed(store: Store, line: str) -> dict[Target, float | None]:
    """Return what people say about each target, None where they disagree."""
    means = meaning_of(store, line)
    rows = known(store, line, store.feedback.all(line))
    found: dict[Target, float | None] = {}
    for target, voices in opinions(rows, means.label, numbers=means.numbers).items():
        said = means.settle(o.label for o in voices.values())
        whole = target[: _PARTS[target[0]]]  # whichever column it is about
        found[whole] = None if whole in found and found[whole] is None else said
    return found


def _lookout(store: Store, line: str, packages: Packages) -> Lookout:
    events = store.ledger.events(line=line, kinds=("watch",))
    newest: Mapping[str, Any] = events[-1].body if events else {}
    package = str(newest.get("package", ""))
    found: tuple[Drifted, ...] = ()
    if package:
        found = drifted(packages.get(package), newest.get("findings") or ())
    return Lookout(store=store, task=task_of(store, line), watched=package, drifted=found)


def _keep(found: _Table, one: Candidate) -> None:
    before = found.candidates.get(one.target)
    if before is None or (one.uncertainty + one.novelty) > (before.uncertainty + before.novelty):
        found.candidates[one.target] = one


def _note_decisions(found: _Table, packages: Packages, table: pa.Table) -> None:
    """Remember what each package said of a moment, where more than one was asked."""
    names = table["package"].unique().to_pylist()
    if len(names) < 2:  # one cannot disagree
        return
    outputs = {name: _decisions(packages.get(name)) for name in names}
    wanted = {o for decisions in outputs.values() for o in decisions.values()}
    columns = [c for c in ("entity", "time", "package", *wanted) if c in table.column_names]
    for row in table.select(columns).to_pylist():
        if row["time"] is None:
            continue
        target = target_of(None, row["entity"], row["time"])
        for role, output in outputs[row["package"]].items():
            if row.get(output) is not None:
                said = found.decisions.setdefault((target, role), {})
                said[row["package"]] = row[output]


def _decisions(package: Package) -> dict[str, str]:
    return {role: name for role in _DECISIONS if (name := package.output(role))}


def _ranked(
    found: _Table, agreed: Mapping[Target, float | None], gap: int, limit: int
) -> list[QueueItem]:
    ones = [_disputed(one, found, agreed) for one in found.candidates.values()]
    ones.sort(key=lambda pair: (-(pair[0].time_ms or 0), pair[0].prediction))
    if not ones or limit < 1:
        return []
    disagreement = np.array([count for _, count in ones], dtype=np.float64)
    worths = worth(
        np.array([one.uncertainty for one, _ in ones]),
        np.array([one.novelty for one, _ in ones]),
        disagreement,
    )
    ranked = np.argsort(-worths, kind="stable")
    owners, times = [one.entity for one, _ in ones], [one.time_ms for one, _ in ones]
    # Whoever disagrees comes first, so as many of the others as can matter are looked at.
    kept = one_per_episode(owners, times, ranked, gap)[: (CHOICE + 1) * limit]
    looks = _looks([ones[k][0] for k in kept.tolist()])
    chosen = kept[first(worths[kept], disagreement[kept], looks, limit)]
    return [_item(ones[k][0], float(worths[k])) for k in chosen.tolist()]


def _disputed(
    one: Candidate, found: _Table, agreed: Mapping[Target, float | None]
) -> tuple[Candidate, int]:
    """Return a candidate with its last reasons, and how many kinds of judges disagree about it."""
    extra = [
        f"the models disagree about {word}"
        for role, word in _DECISIONS.items()
        if len(set(found.decisions.get((one.target, role), {}).values())) > 1
    ]
    if one.target in agreed:  # settled ones were left out, so this is a tie
        extra.append("people disagree about it")
    return replace(one, reasons=(*one.reasons, *extra)), len(extra)


def _looks(ones: Sequence[Candidate]) -> Floats:
    """Return what candidates look like on one scale; what two packages saw is far apart."""
    width = max(len(one.look) for one in ones)
    looks = np.zeros((len(ones), width + 1))
    for number, package in enumerate(sorted({one.package for one in ones})):
        at = [k for k, one in enumerate(ones) if one.package == package]
        mine = np.array([ones[k].look for k in at])
        looks[at, : mine.shape[1]] = standardised(mine, mine[:0])[0]
        looks[at, -1] = number * _FAR * np.sqrt(width)
    return looks


def _item(one: Candidate, priority: float) -> QueueItem:
    return QueueItem(
        prediction=one.prediction,
        entity=one.entity,
        time_ms=one.time_ms,
        package=one.package,
        score=one.score,
        alarm=one.alarm,
        answer=one.answer,
        priority=priority,
        reasons=one.reasons,
        asked=one.asked,
    )
