"""Predictions that might be asked about, and what speaks for asking."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.task import Task
from genba.data.feedback.labels import Target, target_of
from genba.data.served import Package, Served
from genba.edge.package import CASES_FILE
from genba.edge.tensors import read_tensors
from genba.edge.texts import as_text, messages_of, question_of
from genba.learn.neighbours import novelty
from genba.store.home import Store

#: Candidates kept of the predictions of one package in one capture: the most unsure, and as many
#: spread evenly over the others, since what is new need not be unsure.
PER_CAPTURE: Final = 50
#: Uncertainty from which it is worth telling people.
_UNSURE: Final = 0.5
#: Novelty from which no known case is alike: twice as far as cases usually are from each other.
_UNLIKE: Final = 0.5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A prediction and what speaks for asking about it."""

    prediction: str
    entity: str | None
    time_ms: int | None
    package: str
    score: float | None
    alarm: bool | None
    answer: str | None  # the class it was given, or what was said
    uncertainty: float
    novelty: float
    reasons: tuple[str, ...]
    look: Floats  # `Task.embed`
    asked: str | None = None  # the question, where packages are asked in words

    @property
    def target(self) -> Target:
        """What feedback on it would be about."""
        return target_of(self.prediction, self.entity, self.time_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drifted:
    """An input that drifted, and what calibration knew of it."""

    name: str
    tensor: str
    index: int  # of the flattened tensor
    edges: Floats

    def beyond(self, tensors: Mapping[str, Any], count: int) -> Floats:
        """Say how far outside the calibration deciles it reads, in widths of them, 0 to 1."""
        if self.tensor not in tensors or not count:
            return np.zeros(count)
        flat = np.asarray(tensors[self.tensor], dtype=np.float64).reshape(count, -1)
        low, high = float(self.edges[0]), float(self.edges[-1])
        values = np.nan_to_num(flat[:, self.index], nan=low)
        outside = np.maximum(np.maximum(low - values, values - high), 0.0)
        return np.minimum(1.0, outside / max(high - low, 1e-12))


def drifted(package: Package, findings: Sequence[Mapping[str, Any]]) -> tuple[Drifted, ...]:
    """Return the inputs of a package that the newest watch says have drifted."""
    columns: Mapping[str, Any] = (package.settings.get("drift") or {}).get("columns") or {}
    sensors = [str(name) for name in package.settings.get("sensors") or ()]
    features = [n for n, t in package.inputs.items() if t.get("role", "feature") == "feature"]
    found = []
    for finding in findings:
        name = str(finding["name"])
        if not finding["drifted"] or finding["kind"] != "input" or name not in columns:
            continue
        column = columns[name]
        # Packages from before references named their tensor: the newest row of the first feature.
        tensor = column.get("tensor") or next(iter(features), "")
        index = column.get("index")
        if index is None and name in sensors:
            index = sensors.index(name) - len(sensors)
        if index is not None:
            edges = np.asarray(column["edges"], dtype=np.float64)
            found.append(Drifted(name=name, tensor=tensor, index=int(index), edges=edges))
    return tuple(found)


@dataclass(kw_only=True)
class Lookout:
    """Looks at what was served, package by package."""

    store: Store
    task: Task
    watched: str = ""  # the package that the newest watch was about
    drifted: tuple[Drifted, ...] = ()
    _cases: dict[str, Floats | None] = field(default_factory=dict)

    @property
    def reads_text(self) -> bool:
        """Whether what was asked and answered are texts, which are not left out of captures."""
        return self.task.modality == "text"

    def look(self, part: Served, server: str) -> Iterator[Candidate]:
        """Yield the predictions of one package in one capture that might be asked about."""
        package, count = part.package, part.rows.num_rows
        if not part.outputs:
            return  # a package without a signature, or one that answers nothing to be judged
        unsure = self.task.uncertainty(part.outputs, package.settings)
        unsure = np.nan_to_num(np.asarray(unsure, dtype=np.float64))
        strange, channel = self._drift(part, count)
        at = _chosen(unsure + strange)
        kept = _inputs_kept(part)
        looks, known = np.zeros((len(at), 1)), None  # all alike, where nobody knows
        if kept:
            given, made = _rows(part.tensors, at), _rows(part.outputs, at)
            looks = np.asarray(self.task.embed(given, made, package.settings), dtype=np.float64)
            known = self._known(package)
        fresh = np.zeros(len(at)) if known is None else novelty(known, looks)
        about = part.rows.select(["n", "entity", "time"]).take(at).to_pylist()
        for place, (row, said) in enumerate(zip(at.tolist(), about, strict=True)):
            reasons = _reasons(part, row, float(unsure[row]), float(fresh[place]))
            if not kept:
                reasons.append("what it was given was not kept")
            if channel[row]:
                reasons.append(f"{channel[row]} has drifted and reads what calibration hardly saw")
            yield Candidate(
                prediction=f"{server}-{said['n']}",
                entity=said["entity"],
                time_ms=said["time"],
                package=package.id,
                score=_one(part, "score", row),
                alarm=_one(part, "alarm", row),
                answer=_named(part, row),
                uncertainty=float(unsure[row]),
                novelty=max(float(fresh[place]), float(strange[row])),
                reasons=tuple(reasons),
                look=looks[place],
                asked=_asked(part, row),
            )

    def _drift(self, part: Served, count: int) -> tuple[Floats, list[str]]:
        best, names = np.zeros(count), [""] * count
        for channel in self.drifted if part.package.id == self.watched else ():
            share = channel.beyond(part.tensors, count)
            for row in np.flatnonzero(share > best).tolist():
                names[row] = channel.name
            best = np.maximum(best, share)
        return best, names

    def _known(self, package: Package) -> Floats | None:
        """Return what the known cases of a package look like; None where it has none."""
        if package.id not in self._cases:
            self._cases[package.id] = _cases(self.store, package)
        return self._cases[package.id]


def _inputs_kept(part: Served) -> bool:
    """Say whether a task has what it needs to know what predictions look like."""
    roles = {name: t.get("role", "feature") for name, t in part.package.inputs.items()}
    needed = (name for name, role in roles.items() if role in ("feature", "text"))
    return all(name in part.tensors for name in needed)


def _cases(store: Store, package: Package) -> Floats | None:
    file = package.files.get(CASES_FILE)
    if file is None:
        return None
    try:
        found = read_tensors(store.blobs.read(str(file["digest"])))
    except Problem:
        return None  # a damaged package still has uncertainty
    return np.asarray(found["embedding"], dtype=np.float64)


def _chosen(worths: Floats) -> npt.NDArray[np.int64]:
    """Return rows in order: the most worth, and as many spread over the rest."""
    ranked = np.argsort(-worths, kind="stable")
    best, rest = ranked[:PER_CAPTURE], np.sort(ranked[PER_CAPTURE:])
    spread = np.linspace(0, len(rest) - 1, min(len(rest), PER_CAPTURE)).astype(np.int64)
    return np.sort(np.concatenate([best, rest[spread]])).astype(np.int64)


def _asked(part: Served, row: int) -> str | None:
    """Return the question of a prediction, None where packages are not asked in words."""
    inputs = part.package.inputs.items()
    text = next((name for name, t in inputs if t.get("role") == "text"), None)
    if text is None or text not in part.tensors:
        return None
    return question_of(messages_of(part.tensors[text][row]))


def _rows(tensors: Mapping[str, Any], at: npt.NDArray[np.int64]) -> dict[str, Any]:
    return {name: tensor[at] for name, tensor in tensors.items()}


def _one(part: Served, role: str, row: int) -> Any:
    """Return the one number that a package answered in a role, None where it has no such output."""
    name = part.package.output(role)
    values = part.outputs.get(name) if name else None
    return values[row].item() if values is not None and values.ndim == 1 else None


def _named(part: Served, row: int) -> str | None:
    """Return the class that was answered, by name where classes have names; or what was said."""
    number = _one(part, "class", row)
    if number is None:
        text = part.package.output("text")
        return as_text(part.outputs[text][row]) if text and text in part.outputs else None
    classes = part.package.classes
    if number < 0:
        return "undecided"
    return classes[number] if number < len(classes) else str(number)


def _reasons(part: Served, row: int, unsure: float, fresh: float) -> list[str]:
    """Say in words why a label is worth having."""
    reasons = []
    if unsure > _UNSURE:
        reasons.append(_doubt(part, row))
    if fresh > _UNLIKE:
        reasons.append("it is like no known case")
    elif fresh > 0.0:
        reasons.append("it is less like the known cases than they are like each other")
    return reasons


def _doubt(part: Served, row: int) -> str:
    name = part.package.output("probability")
    chances = part.outputs[name][row].ravel() if name and name in part.outputs else np.zeros(0)
    if len(chances) > 1:
        second, best = np.argsort(chances, kind="stable")[-2:].tolist()
        return " or ".join(f"{_class(part, k)} {chances[k]:.0%}" for k in (best, second))
    score = _one(part, "score", row)
    return f"the score {score:.2f} is near the threshold 1" if score else "the model is unsure"


def _class(part: Served, number: int) -> str:
    classes = part.package.classes
    return classes[number] if number < len(classes) else str(number)
