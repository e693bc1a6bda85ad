"""Evaluate: measure the model, hold it against its gates and against what is in production.

A run stops here when a gate is missed, when the challenger is worse than the champion on the same
rows, or when the feedback it learned from is too noisy to be trusted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy as safetensors

from genba.core.codec import decode, encode, nearest
from genba.core.line import Line
from genba.core.problem import Problem
from genba.core.protocols import (
    Array,
    Comparison,
    Engine,
    JsonObject,
    Predict,
    Samples,
    Scores,
    Task,
    Tensors,
    View,
)
from genba.core.resolve import resolve
from genba.core.values import Manifest, Measure, Signature
from genba.data.live import ORIGIN as LIVE
from genba.data.view import DatasetView
from genba.learn.models import load_model
from genba.learn.noise import LabelNoise, worst
from genba.runs.stage import StageContext
from genba.stages.gates import judge
from genba.stages.samples import in_chunks
from genba.store.home import Store

FROZEN: Final = "frozen test set"
NEWEST: Final = "newest window"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """The package in production, able to predict on this dataset."""

    package: str
    manifest: Manifest
    predict: Predict
    engine: Engine


def evaluate(context: StageContext) -> dict[str, Any]:
    """Measure the model that train has made and decide whether it may go on.

    Returns:
        `measures`, `verdict`, `scores` (blob: evidence per sample), `baselines`, `comparisons`
        and why there are none, `label_noise`, and `stop` with the reasons when it may not.

    Raises:
        Problem: G504 when a gate names a measure that does not exist.
    """
    line, store = context.line, context.store
    task: Task = resolve("task", line.task)()
    model = load_model(store, context.inputs["train"])
    view = DatasetView.open(store, str(context.inputs["prepare"]["dataset"]), line)
    predict = task.reference(model)
    context.progress.step("measuring the model on the test set")
    scores = task.score(predict, view, "test", model.settings)
    check_gates(line, scores.measures)
    verdict = judge(line.gates, scores.measures)
    context.progress.step("measuring well-known methods on the same rows")
    baselines = task.baselines(view, model.settings)
    comparisons, reason = _compared(context, task, predict, view, scores, model.settings)
    noise = label_noise(task, predict, view.part(LIVE), model.settings)
    result = {
        "measures": encode(scores.measures),
        "verdict": encode(verdict),
        "scores": store.blobs.put(safetensors.save(_contiguous(scores.evidence))),
        "baselines": {name: encode(found.measures) for name, found in baselines.items()},
        "comparisons": [encode(c) for c in comparisons],
        "not_compared": reason,
        "label_noise": encode(noise.rate) if noise else None,
    }
    stop = [*verdict.reasons, *worse(comparisons), *_too_noisy(noise, line)]
    return {**result, "stop": stop} if stop else result


def check_gates(line: Line, measures: Mapping[str, Measure]) -> None:
    """Refuse a gate that names no measure: a misspelt gate would otherwise guard nothing.

    Raises:
        Problem: G504 with the nearest measure there is.
    """
    for name in line.gates:
        if name not in measures:
            near = nearest(name, list(measures))
            raise Problem(
                "G504",
                f"There is no measure {name}" + (f"; did you mean {near}?" if near else "."),
                where=f"gates.{name}",
                why=f"On this data there are: {', '.join(sorted(measures))}.",
                tries=[
                    f"{near or next(iter(measures), 'r2')} = {{ … }} under [gates]",
                    "genba explain G504",
                ],
            )


def worse(comparisons: Iterable[Comparison]) -> list[str]:
    """Return why a challenger is refused: it is worse, and the newest rows do not excuse it.

    Being worse on old rows is what adapting to a changed world looks like; so that is forgiven
    where the newest window shows the challenger better in the very same measure.
    """
    found = list(comparisons)
    adapted = {c.name for c in found if c.where == NEWEST and c.better}
    return [c.reason for c in found if c.worse and not (c.where == FROZEN and c.name in adapted)]


def label_noise(
    task: Task, predict: Predict, live: View, settings: JsonObject
) -> LabelNoise | None:
    """Estimate how many of the labels people gave in production are wrong, in the worst batch."""
    features, entity, time, label = [], [], [], []
    for split in ("train", "calibrate", "test"):
        for samples in in_chunks(task, live, split, settings):
            known = np.isfinite(samples.label)
            if known.any():
                features.append(_looks(task.signature(settings), predict, samples)[known])
                entity.append(samples.entity[known].astype(np.int64))
                time.append(samples.time[known])
                label.append(samples.label[known])
    if not label:
        return None
    return worst(
        np.concatenate(features),
        np.concatenate(entity),
        np.concatenate(time),
        np.concatenate(label),
        merge=int(settings.get("merge") or 1),
    )


def _looks(signature: Signature, predict: Predict, samples: Samples) -> npt.NDArray[np.float64]:
    """Return what samples look like: the newest readings of each, and how high they score."""
    parts: list[Array] = []
    for tensor in signature.inputs:
        if tensor.role == "feature":
            values = np.asarray(samples.tensors[tensor.name], dtype=np.float64)
            newest = values[:, -1] if values.ndim > 2 else values
            parts.append(newest.reshape(len(values), -1))
    scores = [t.name for t in signature.outputs if t.role == "score"]
    made = predict(samples.tensors) if scores else {}
    parts += [np.log1p(np.maximum(made[name], 0.0)).reshape(-1, 1) for name in scores]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _compared(
    context: StageContext,
    task: Task,
    predict: Predict,
    view: DatasetView,
    scores: Scores,
    settings: JsonObject,
) -> tuple[list[Comparison], str]:
    """Compare with the package in production, on the frozen test set and on the newest rows."""
    package = context.extra.get("champion")
    if not package:
        return [], "nothing is in production yet"
    manifest = decode(Manifest, context.store.ledger.get("package", str(package)))
    if manifest.model == context.inputs["train"]["model"]:
        return [], "this very model is in production"
    if manifest.task != task.name or manifest.settings["sensors"] != settings["sensors"]:
        return [], "the package in production reads other sensors"
    context.progress.step("comparing with the package in production on the same rows")
    rival = _rival(context.store, str(package), manifest, view.entities)
    try:
        return _on_every_window(task, rival, predict, view, scores, settings), ""
    finally:
        rival.engine.close()


def _on_every_window(
    task: Task,
    rival: Rival,
    predict: Predict,
    view: DatasetView,
    scores: Scores,
    settings: JsonObject,
) -> list[Comparison]:
    live = view.part(LIVE)
    found: list[Comparison] = []
    windows: list[tuple[str, DatasetView]] = [(FROZEN, view)]
    if live.count("test"):
        windows = [(FROZEN, view.part("source")), (NEWEST, live)]
    for where, rows in windows:
        mine = scores if rows is view else task.score(predict, rows, "test", settings)
        theirs = task.score(rival.predict, rows, "test", rival.manifest.settings)
        found += task.compare(theirs, mine, where)
    return found


def _rival(store: Store, package: str, manifest: Manifest, entities: tuple[str, ...]) -> Rival:
    graph = store.blobs.read(manifest.files["model.onnx"].digest)
    engine: Engine = resolve("engine", manifest.engine.name)(graph, manifest.engine.settings)
    return Rival(
        package=package,
        manifest=manifest,
        predict=translated(engine.run, manifest, entities),
        engine=engine,
    )


def translated(predict: Predict, manifest: Manifest, entities: tuple[str, ...]) -> Predict:
    """Return a package's predict for samples whose entities are numbered as in another dataset."""
    places = [manifest.entities.index(e) if e in manifest.entities else -1 for e in entities]
    numbers = np.array([*places, -1], dtype=np.int64)
    names = [t.name for t in manifest.signature.inputs if t.role == "entity"]

    def run(tensors: Tensors) -> dict[str, Array]:
        changed = {name: numbers[np.asarray(tensors[name])] for name in names}
        return predict({**tensors, **changed})

    return run


def _too_noisy(noise: LabelNoise | None, line: Line) -> list[str]:
    limit = line.retrain.label_noise
    if noise is None or not noise.exceeds(limit):
        return []
    return [
        f"The feedback is too noisy to learn from: in the worst batch {noise.rate} of "
        f"{noise.labels} labels seem wrong; at most {limit:g} is allowed."
    ]


def _contiguous(evidence: Any) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array) for name, array in evidence.items()}
