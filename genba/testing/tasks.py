"""The contract of a task: reproducible, exportable, the same answer one by one and together."""

import json
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.core.protocols import Array, Engine, Predict, Tensors
from genba.core.resolve import installed, resolve
from genba.core.values import Tensor
from genba.edge.predict import difference
from genba.learn.models import load_model, save_model
from genba.testing.checks import CheckResult, Checks, require, require_problem, run_checks
from genba.testing.service import service_checks
from genba.testing.subject import Subject, fitted, prepared

_KINDS: Final = {
    "FP32": np.dtype(np.float32),
    "INT64": np.dtype(np.int64),
    "INT32": np.dtype(np.int32),
    "UINT8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_ROWS: Final = 200
_F32: Final = {"precision": "float32"}


def check_task(name: str) -> tuple[CheckResult, ...]:
    """Run a task of the catalog through the contract, on a small generated dataset."""
    with prepared(name) as subject:
        return run_checks(task_checks(subject))


def task_checks(subject: Subject) -> Checks:
    """Return the checks of a prepared task by name."""
    checks: dict[str, Callable[[Subject], None]] = {
        "settings are JSON": _settings,
        "the same seed gives the same model": _same_seed,
        "a saved model loads unchanged": _round_trip,
        "samples are as the signature says": _samples,
        "predictions are as the signature says": _outputs,
        "a batch of one equals a batch of many": _single,
        "missing inputs do not break a prediction": _missing,
        "every engine decides as the reference": _parity,
        "scores have intervals": _scores,
        "a model is neither better nor worse than itself": _against_itself,
        "the drift reference is JSON": _drift,
        "an explanation adds up": _explanation,
        "nonsense is no label": _label,
        "another seed is allowed to differ, not to fail": _another_seed,
    }
    own = {name: partial(check, subject) for name, check in checks.items()}
    return {**own, **service_checks(subject)}


def _settings(subject: Subject) -> None:
    canonical_json(subject.settings)
    canonical_json(subject.model.settings)
    again = subject.task.derive(subject.view.line, subject.view)
    require(again == subject.settings, "derive() gives other settings for the same data")


def _same_seed(subject: Subject) -> None:
    again = fitted(subject.task, subject.view, subject.settings)
    require(again.candidate == subject.model.candidate, f"chose {again.candidate} the second time")
    require(again.settings == subject.model.settings, "the settings differ")
    for name, array in subject.model.arrays.items():
        same = np.array_equal(array, again.arrays[name], equal_nan=array.dtype.kind == "f")
        require(same, f"the array {name} differs")


def _another_seed(subject: Subject) -> None:
    other = fitted(subject.task, subject.view, subject.settings, seed=7)
    subject.task.reference(other)(_batch(subject))


def _round_trip(subject: Subject) -> None:
    saved = json.loads(canonical_json(save_model(subject.store, subject.model)))
    loaded = load_model(subject.store, saved)
    batch = _batch(subject)
    left = subject.task.reference(subject.model)(batch)
    right = subject.task.reference(loaded)(batch)
    for name, value in left.items():
        same = np.array_equal(value, right[name], equal_nan=value.dtype.kind == "f")
        require(same, f"the loaded model gives another {name}")


def _samples(subject: Subject) -> None:
    signature = subject.task.signature(subject.model.settings)
    columns = next(iter(subject.view.chunks("test", rows=_ROWS)))
    samples = subject.task.samples(columns, subject.model.settings)
    _as_declared(signature.inputs, samples.tensors)
    for name in ("entity", "time", "row", "label", "truth"):
        length = len(getattr(samples, name))
        require(length == len(samples.row), f"{name} has {length} values, row {len(samples.row)}")


def _outputs(subject: Subject) -> None:
    signature = subject.task.signature(subject.model.settings)
    _as_declared(signature.outputs, _exported(subject).run(_batch(subject)))


def _single(subject: Subject) -> None:
    batch = _batch(subject)
    for form, predict in (("the reference", _reference(subject)), ("ONNX", _exported(subject).run)):
        together = predict(batch)
        for i in range(0, _count(batch), 16):
            alone = predict({name: tensor[i : i + 1] for name, tensor in batch.items()})
            for name, value in alone.items():
                worst = difference(together[name][i : i + 1], value)
                require(worst <= 1e-4, f"{form}: row {i} of {name} is off by {worst:.2g}")


def _missing(subject: Subject) -> None:
    batch = _batch(subject)
    broken = {
        name: np.full_like(tensor, np.nan) if tensor.dtype.kind == "f" else tensor
        for name, tensor in batch.items()
    }
    half = {name: tensor.copy() for name, tensor in batch.items()}
    for name, tensor in half.items():
        if tensor.dtype.kind == "f":
            tensor[::2] = broken[name][::2]
    for form, predict in (("the reference", _reference(subject)), ("ONNX", _exported(subject).run)):
        whole, mixed = predict(batch), predict(half)
        predict(broken)
        for name, value in mixed.items():
            worst = difference(whole[name][1::2], value[1::2])
            require(worst <= 1e-4, f"{form}: a missing row changes {name} of another row")


def _parity(subject: Subject) -> None:
    graph = subject.task.export(subject.model)
    batch = _batch(subject)
    reference = _reference(subject)(batch)
    for engine in installed("engine"):
        for settings in resolve("engine", engine).candidates(1):
            if settings != {**settings, **_F32}:
                continue
            try:
                found = resolve("engine", engine)(graph, settings).run(batch)
            except Problem as problem:
                require(problem.code == "G601", f"{engine}: {problem.what} {problem.why}")
                continue
            parity = subject.task.parity(reference, found)
            require(parity.passed, f"{engine} {dict(settings)}: {parity}")
    wrong = {n: np.full_like(v, 1e6) if v.dtype.kind == "f" else ~v for n, v in reference.items()}
    require(not subject.task.parity(reference, wrong).passed, "parity() accepts any answer")


def _scores(subject: Subject) -> None:
    scores = subject.task.score(_reference(subject), subject.view, "test", subject.model.settings)
    require(bool(scores.measures), "score() gives no measures")
    bounded = [m for m in scores.measures.values() if m.low is not None and m.high is not None]
    require(bool(bounded), "no measure has an interval")
    for name, measure in scores.measures.items():
        require(bool(np.isfinite(measure.value)), f"{name} is {measure.value}")
        low = measure.value if measure.low is None else measure.low
        high = measure.value if measure.high is None else measure.high
        require(low <= measure.value <= high, f"{name} is outside its interval: {measure}")


def _against_itself(subject: Subject) -> None:
    scores = subject.task.score(_reference(subject), subject.view, "test", subject.model.settings)
    for comparison in subject.task.compare(scores, scores, "frozen test set"):
        equal = not comparison.worse and not comparison.better
        require(equal, f"{comparison.name}: {comparison.reason}")


def _drift(subject: Subject) -> None:
    found = subject.task.drift_reference(_reference(subject), subject.view, subject.model.settings)
    canonical_json(found)
    require(bool(found), "drift_reference() is empty")


def _explanation(subject: Subject) -> None:
    one = {name: tensor[:1] for name, tensor in _batch(subject).items()}
    found = subject.task.explain(_reference(subject), one, subject.model.settings)
    shares = [a.share for a in found.attributions]
    require(shares == sorted(shares, reverse=True), "the largest share is not first")
    total = sum(shares)
    require(abs(total - 1) < 1e-6, f"the shares add up to {total:.6f}, not 1")
    if found.heat is not None:
        require(np.asarray(found.heat).ndim == 2, "the heat map is not [height, width]")


def _label(subject: Subject) -> None:
    when = "for a correction that means nothing"
    require_problem(lambda: subject.task.label("?!"), ("G801",), when)


def _reference(subject: Subject) -> Predict:
    return subject.task.reference(subject.model)


def _exported(subject: Subject) -> Engine:
    engine: Engine = resolve("engine", "onnxruntime")(subject.task.export(subject.model), _F32)
    return engine


def _batch(subject: Subject) -> dict[str, Array]:
    columns = next(iter(subject.view.chunks("test", rows=_ROWS)))
    return dict(subject.task.samples(columns, subject.model.settings).tensors)


def _as_declared(declared: tuple[Tensor, ...], tensors: Tensors) -> None:
    names = [tensor.name for tensor in declared]
    require(sorted(names) == sorted(tensors), f"declared {names}, found {sorted(tensors)}")
    for tensor in declared:
        found = tensors[tensor.name]
        kind = _KINDS[tensor.datatype]
        require(found.dtype == kind, f"{tensor.name} is {found.dtype}, declared {tensor.datatype}")
        fits = len(found.shape) == len(tensor.shape) and all(
            wanted in (-1, size) for wanted, size in zip(tensor.shape, found.shape, strict=True)
        )
        require(fits, f"{tensor.name} has shape {found.shape}, declared {tensor.shape}")


def _count(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))
