"""The contract of a task in service: what is served becomes data, and what people say is learned.

These checks take what a package was given and has answered, as captures keep it, and ask the task
to find the rows again, to judge answers, to say what is worth a label and to notice a changed
world.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array, Columns, Tensors
from genba.core.task import Lesson, Samples
from genba.edge.predict import difference
from genba.learn.drift import counts, psi
from genba.testing.checks import Checks, require, require_problem
from genba.testing.subject import Subject

OUTCOMES: Final = frozenset({"confirmed", "false_alarms", "missed", "wrong", ""})
_ROWS: Final = 64
_DRIFT: Final = 0.2  # the usual limit of the population stability index


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Some rows, the samples made of them, and what the reference answers."""

    columns: Columns
    samples: Samples
    outputs: Tensors
    settings: Mapping[str, Any]


def service_checks(subject: Subject) -> Checks:
    """Return the checks of a prepared task by name."""
    checks: dict[str, Callable[[Subject], None]] = {
        "an unknown option is refused": _options,
        "served rows are found again": _rows,
        "every word of its own is a label": _words,
        "a lesson changes its row and no other": _lesson,
        "a label judges an answer": _outcome,
        "uncertainty is a share": _uncertainty,
        "samples that are alike lie together": _embedding,
        "parameters have defaults that change nothing": _parameters,
        "hindsight is measured": _hindsight,
        "a changed world is noticed": _disturbed,
    }
    return {name: partial(check, subject) for name, check in checks.items()}


def _options(subject: Subject) -> None:
    line = replace(subject.view.line, options={**subject.view.line.options, "no_such_option": 1})
    action = partial(subject.task.derive, line, subject.view)
    require_problem(action, ("G102",), "for an option that the task does not declare")


def _rows(subject: Subject) -> None:
    served = _served(subject)
    found = subject.task.rows(_captured(subject, served.samples.tensors), served.settings)
    require(len(found.of) == len(found.steps_back), "`of` and `steps_back` differ in length")
    for name, column in found.columns.items():
        require(len(column) == len(found.of), f"{name} has {len(column)} rows of {len(found.of)}")
    own = np.flatnonzero(np.asarray(found.steps_back) == 0)
    order = own[np.argsort(np.asarray(found.of)[own], kind="stable")]
    count = len(served.samples.row)
    require(np.array_equal(np.asarray(found.of)[order], np.arange(count)), "a row is not found")
    at = np.searchsorted(np.asarray(served.columns["row"]), served.samples.row)
    for name, column in found.columns.items():
        if name in served.columns:
            _same(name, np.asarray(served.columns[name])[at], np.asarray(column)[order])


def _same(name: str, given: Array, found: Array) -> None:
    if given.dtype.kind == "f":
        worst = difference(given.astype(np.float32), found.astype(np.float32))
        require(worst <= 1e-4, f"{name} comes back off by {worst:.2g}")
    else:
        require(bool((given == found).all()), f"{name} does not come back as it was")


def _words(subject: Subject) -> None:
    words = subject.task.corrections(subject.view.classes)
    require(bool(words), "corrections() names no word that people may say")
    for word in words:
        label = subject.task.label(word, subject.view.classes)
        require(bool(np.isfinite(label)), f"label({word!r}) is {label}")


def _lesson(subject: Subject) -> None:
    served = _served(subject)
    count = len(served.columns["row"])
    ids = np.array([f"server-{n}" for n in range(count)], dtype=object)
    columns = {**served.columns, "prediction": ids}
    word = subject.task.corrections(subject.view.classes)[0]
    label = subject.task.label(word, subject.view.classes)
    lesson = Lesson(value=word, label=label, prediction="server-1")
    taught = subject.task.teach(columns, [lesson])
    again = subject.task.teach(taught, [lesson])
    for name in columns:
        require(name in taught, f"teach() loses the column {name}")
        require(len(taught[name]) == count, f"teach() changes the length of {name}")
        same = _equal(columns[name], taught[name])
        require(bool(np.delete(same, 1).all()), f"a lesson about one row changes {name} of another")
        require(bool(_equal(taught[name], again[name]).all()), "said twice, it teaches more")


def _equal(left: Array, right: Array) -> Array:
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype.kind == "f":
        return np.asarray((left == right) | (np.isnan(left) & np.isnan(right)))
    return np.array([a is b or a == b for a, b in zip(left, right, strict=True)])


def _outcome(subject: Subject) -> None:
    served = _served(subject)
    words = subject.task.corrections(subject.view.classes)
    for row in range(min(8, len(served.samples.row))):
        answer = {name: np.asarray(v[row]).tolist() for name, v in served.outputs.items()}
        for word in words:
            label = subject.task.label(word, subject.view.classes)
            found = subject.task.outcome(answer, label, served.settings)
            require(found in OUTCOMES, f"outcome() says {found!r}, which nobody counts")


def _uncertainty(subject: Subject) -> None:
    served = _served(subject)
    found = np.asarray(subject.task.uncertainty(served.outputs, served.settings))
    require(found.shape == served.samples.row.shape, f"it has shape {found.shape}")
    inside = np.isfinite(found) & (found >= 0) & (found <= 1)
    require(bool(inside.all()), f"it reaches from {found.min()} to {found.max()}")


def _embedding(subject: Subject) -> None:
    served = _served(subject)
    kept = _captured(subject, served.samples.tensors)
    found = np.asarray(subject.task.embed(kept, served.outputs, served.settings))
    count = len(served.samples.row)
    require(found.ndim == 2 and len(found) == count, f"it has shape {found.shape}")
    require(bool(np.isfinite(found).all()), "it is not finite")
    require(bool(found.std(axis=0).max() > 0), "every sample looks the same")
    one = {name: tensor[:1] for name, tensor in kept.items()}
    first = {name: value[:1] for name, value in served.outputs.items()}
    alone = np.asarray(subject.task.embed(one, first, served.settings))
    require(difference(found[:1], alone) <= 1e-4, "a sample lies elsewhere when it is alone")


def _parameters(subject: Subject) -> None:
    served = _served(subject)
    for tensor in subject.task.signature(served.settings).inputs:
        if tensor.role != "parameter":
            continue
        require(tensor.default is not None, f"the parameter {tensor.name} has no default")
        given = np.asarray(served.samples.tensors[tensor.name])
        default = np.float32(tensor.default or 0.0)
        require(bool((given == default).all()), f"samples() sets {tensor.name} to something else")


def _hindsight(subject: Subject) -> None:
    served = _served(subject)
    seen = {
        **{n: t for n, t in served.samples.tensors.items() if n not in ("entity", "time")},
        **served.outputs,
        "entity": served.samples.entity,
        "time": served.samples.time,
    }
    for name, measure in subject.task.hindsight(seen, served.settings).items():
        require(bool(np.isfinite(measure.value)), f"{name} is {measure.value}")
    tuned = subject.task.tune({}, {**served.settings, "parameters": {}})
    require(not tuned, "tune() changes something though nothing was measured")


def _disturbed(subject: Subject) -> None:
    """The drift reference of at least one channel must move when the world does."""
    served = _served(subject)
    changed = subject.task.disturbed(served.samples.tensors)
    for name, tensor in served.samples.tensors.items():
        same = changed[name].shape == tensor.shape and changed[name].dtype == tensor.dtype
        require(same, f"{name} has another shape or type when disturbed")
    predict = subject.task.reference(subject.model)
    drift = subject.task.drift_reference(predict, subject.view, served.settings)
    require(bool(drift.get("columns")), "the drift reference names no columns")
    given = {**changed, **predict(changed)}
    moved = {name: _psi(column, given) for name, column in drift["columns"].items()}
    require(max(moved.values()) > _DRIFT, f"no channel moves: {moved}")


def _psi(column: Mapping[str, Any], given: Tensors) -> float:
    values = np.asarray(given[column["tensor"]], dtype=np.float64)
    flat = values.reshape(len(values), -1)[:, int(column["index"])]
    edges = np.asarray(column["edges"], dtype=np.float64)
    return psi(np.asarray(column["p"], dtype=np.float64), counts(edges, flat))


def _captured(subject: Subject, tensors: Tensors) -> Tensors:
    """Return inputs as captures keep them: images as the bytes that were sent."""
    roles = {t.name: t.role for t in subject.task.signature(subject.model.settings).inputs}
    columns = next(iter(subject.view.chunks("test", rows=_ROWS)))
    return {
        name: np.asarray(columns["image"])[: len(tensor)] if roles[name] == "image" else tensor
        for name, tensor in tensors.items()
        if roles[name] in ("feature", "image", "text", "parameter")
    }


def _served(subject: Subject) -> Served:
    columns = next(iter(subject.view.chunks("test", rows=_ROWS)))
    settings = subject.model.settings
    samples = subject.task.samples(columns, settings)
    outputs = subject.task.reference(subject.model)(samples.tensors)
    return Served(columns=columns, samples=samples, outputs=outputs, settings=settings)
