"""The package in production as a rival: the same rows, the same measures, paired differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from genba.core import tuning
from genba.core.codec import decode
from genba.core.protocols import Array, Engine, JsonObject, Predict, Tensors
from genba.core.task import Comparison, Scores, Task
from genba.core.values import Manifest, Signature
from genba.data.live import ORIGIN as LIVE
from genba.data.view import DatasetView
from genba.edge.package import LoadedPackage
from genba.edge.predict import open_engine
from genba.runs.stage import StageContext
from genba.stages.tune import values
from genba.store.home import Store

FROZEN: Final = "frozen test set"
NEWEST: Final = "newest window"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mine:
    """The challenger: a fitted model, and how it did on the whole test set."""

    predict: Predict
    settings: JsonObject
    scores: Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """The package in production, able to predict on this dataset."""

    manifest: Manifest
    predict: Predict
    engine: Engine


def compared(
    context: StageContext, task: Task, view: DatasetView, mine: Mine
) -> tuple[list[Comparison], str]:
    """Compare with the package in production, on the frozen test set and on the newest rows.

    Returns:
        The comparisons, or none and why there are none.
    """
    package = context.extra.get("champion")
    if not package:
        return [], "nothing is in production yet"
    manifest = decode(Manifest, context.store.ledger.get("package", str(package)))
    if manifest.model == context.inputs["train"]["model"]:
        return [], "this very model is in production"
    if why := _apart(task, manifest, view, mine.settings):
        return [], why
    context.progress.step("comparing with the package in production on the same rows")
    rival = _rival(context.store, str(package), manifest, view.entities)
    try:
        return _on_every_window(task, rival, view, mine), ""
    finally:
        rival.engine.close()


def _apart(task: Task, manifest: Manifest, view: DatasetView, settings: JsonObject) -> str:
    """Say why a package cannot be judged on the rows of a dataset, if it cannot."""
    if manifest.task != task.name:
        return "the package in production has another task"
    if manifest.settings.get("sensors") != settings.get("sensors"):
        return "the package in production reads other sensors"
    if _taken(manifest.signature) != _taken(task.signature(settings)):
        return "the package in production takes other inputs"
    if not set(manifest.classes) <= set(view.classes):
        return "the package in production knows classes that these rows do not have"
    return ""


def _taken(signature: Signature) -> set[tuple[str, str]]:
    return {(t.name, t.role) for t in signature.inputs if t.role != "parameter"}


def _on_every_window(task: Task, rival: Rival, view: DatasetView, mine: Mine) -> list[Comparison]:
    """Each model reads the rows in its own way: with its own window, size and classes."""
    live = view.part(LIVE)
    found: list[Comparison] = []
    windows: list[tuple[str, DatasetView]] = [(FROZEN, view)]
    if live.count("test"):
        windows = [(FROZEN, view.part("source")), (NEWEST, live)]
    for where, rows in windows:
        challenger = mine.scores
        if rows is not view:
            challenger = task.score(mine.predict, rows, "test", mine.settings)
        champion = task.score(rival.predict, rows, "test", rival.manifest.settings)
        found += task.compare(champion, challenger, where)
    return found


def _rival(store: Store, package: str, manifest: Manifest, entities: tuple[str, ...]) -> Rival:
    files = {name: store.blobs.read(file.digest) for name, file in manifest.files.items()}
    engine = open_engine(LoadedPackage(id=package, manifest=manifest, files=files))
    tuned = values(store, package, manifest)
    return Rival(
        manifest=manifest,
        predict=translated(engine.run, manifest, entities, tuned),
        engine=engine,
    )


def translated(
    predict: Predict,
    manifest: Manifest,
    entities: tuple[str, ...],
    tuned: Mapping[str, float] | None = None,
) -> Predict:
    """Return a package's predict for samples of another dataset.

    Args:
        predict: Of the package.
        manifest: Its manifest.
        entities: Of the dataset, which numbers them in its own way.
        tuned: Parameters as they were set in service; the others keep their defaults.
    """
    places = [manifest.entities.index(e) if e in manifest.entities else -1 for e in entities]
    numbers = np.array([*places, -1], dtype=np.int64)
    taken = manifest.signature.inputs
    parameters = {**tuning.defaults(manifest.signature), **(tuned or {})}

    def run(tensors: Tensors) -> dict[str, Array]:
        given = {t.name: tensors[t.name] for t in taken if t.name in tensors}
        count = len(next(iter(given.values())))
        for tensor in taken:
            if tensor.role == "entity" and tensor.name in given:
                given[tensor.name] = numbers[np.asarray(given[tensor.name])]
            elif tensor.role == "parameter":
                given[tensor.name] = np.full(count, parameters[tensor.name], dtype=np.float32)
        return predict(given)

    return run
