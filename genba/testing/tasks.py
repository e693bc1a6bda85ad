"""The contract of a task: reproducible, exportable, the same answer one by one and together."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np

from genba.catalog import DRILLS
from genba.core.digest import canonical_json
from genba.core.problem import Problem
from genba.core.protocols import Array, Engine, JsonObject, Predict, Tensors
from genba.core.resolve import installed, resolve
from genba.core.task import Parity
from genba.core.values import EngineChoice, Manifest, Tensor, Verdict
from genba.edge.package import FORMAT, GGUF, LoadedPackage
from genba.edge.predict import difference, surrounded
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
    "BYTES": np.dtype(np.object_),
}
_ROWS: Final = 200
_F32: Final = {"precision": "float32"}
_CLOSE: Final = 1e-4
_TALK_CLOSE: Final = 2e-2  # nats per token; who else is being answered changes the last digits


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
    with _exported(subject) as engine:
        _as_declared(signature.outputs, engine.run(_batch(subject)))


def _single(subject: Subject) -> None:
    batch, close = _batch(subject), _close(subject)
    for form, predict in _forms(subject):
        together = predict(batch)
        for i in range(0, _count(batch), 16):
            alone = predict({name: tensor[i : i + 1] for name, tensor in batch.items()})
            for name, value in alone.items():
                worst = difference(together[name][i : i + 1], value)
                require(worst <= close, f"{form}: row {i} of {name} is off by {worst:.2g}")


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
    close = _close(subject)
    for form, predict in _forms(subject):
        whole, mixed = predict(batch), predict(half)
        predict(broken)
        for name, value in mixed.items():
            worst = difference(whole[name][1::2], value[1::2])
            require(worst <= close, f"{form}: a missing row changes {name} of another row")


def _parity(subject: Subject) -> None:
    graph = subject.task.export(subject.model)
    batch = _batch(subject)
    reference = _reference(subject)(batch)
    talks = graph.startswith(GGUF)
    for engine in _readers(graph):
        found = [
            _held(subject, engine, settings, graph, reference)
            for settings in resolve("engine", engine).candidates(1)
            if talks or settings == {**settings, **_F32}
        ]
        known = [parity for parity in found if parity is not None]
        # Of a language model few bits may be too few; that is what candidates are compared for.
        enough = any(p.passed for p in known) if talks else all(p.passed for p in known)
        require(enough or not known, f"{engine}: {known}")
    wrong = {
        n: np.full_like(v, 1e6) if v.dtype.kind == "f" else v if v.dtype == object else ~v
        for n, v in reference.items()
    }
    require(not subject.task.parity(reference, wrong).passed, "parity() accepts any answer")


def _held(
    subject: Subject, engine: str, settings: JsonObject, graph: bytes, reference: Tensors
) -> Parity | None:
    """Return how far an engine is from the reference; None where it cannot run the model."""
    try:
        opened = resolve("engine", engine)(graph, settings)
    except Problem as problem:
        require(problem.code == "G601", f"{engine}: {problem.what} {problem.why}")
        return None
    try:
        return subject.task.parity(reference, opened.run(_batch(subject)))
    finally:
        opened.close()


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


@contextmanager
def _exported(subject: Subject) -> Iterator[Engine]:
    """Open the exported model as a server does: with what else is in its package."""
    graph = subject.task.export(subject.model)
    name = next(iter(_readers(graph)))
    kind = resolve("engine", name)
    opened = kind(graph, kind.candidates(1)[0] if graph.startswith(GGUF) else _F32)
    files = dict(subject.task.files(subject.model))
    manifest = draft(subject, EngineChoice(name=name))
    engine = surrounded(LoadedPackage(id="", manifest=manifest, files=files), opened)
    try:
        yield engine
    finally:
        engine.close()


def draft(subject: Subject, engine: EngineChoice) -> Manifest:
    """Return the manifest of a package that was not made yet."""
    return Manifest(
        format=FORMAT,
        line=subject.view.line.name,
        task=subject.task.name,
        model="",
        run="",
        dataset=subject.view.digest,
        engine=engine,
        signature=subject.task.signature(subject.model.settings),
        settings=subject.model.settings,
        entities=subject.view.entities,
        classes=subject.view.classes,
        files={},
        verdict=Verdict(passed=True),
    )


def _readers(graph: bytes) -> list[str]:
    """Return the engines for what was exported: a graph, or a language model."""
    talks = graph.startswith(GGUF)
    return [
        name
        for name in installed("engine")
        if name not in DRILLS and hasattr(resolve("engine", name), "ask") == talks
    ]


def _forms(subject: Subject) -> Iterator[tuple[str, Predict]]:
    """Yield the model in every form it has, by name."""
    yield "the reference", _reference(subject)
    with _exported(subject) as engine:
        yield "as exported", engine.run


def _close(subject: Subject) -> float:
    texts = subject.task.signature(subject.model.settings).inputs
    return _TALK_CLOSE if any(t.role == "given" for t in texts) else _CLOSE


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
