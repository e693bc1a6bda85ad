"""What is labelled: datasets that Genba can fetch, each with its task, its measure and its goal."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from genba.core.line import Data, Limit, Line
from genba.core.protocols import Array, Modality, View
from genba.core.resolve import resolve
from genba.core.task import Task
from genba.data.sources import source_of
from genba.data.view import DatasetView
from genba.edge import images
from genba.learn.backbone import Backbone, load
from genba.runs.progress import ConsoleProgress
from genba.store.home import Store
from genba.tasks.vision.classify import features, fit, model, schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A labelling that is repeated with several seeds."""

    name: str
    line: Line
    measure: str
    goal: float
    pool: int  # rows that may be labelled
    test: int
    start: int  # labels that are given at random before the first question
    batch: int  # questions at a time, as the queue shows them
    rounds: int
    trials: int  # of each training


SUBJECTS: Final = (
    Subject(
        name="products",
        line=Line(
            name="products", task="vision.classify", data=Data(source="package:fashion-mnist")
        ),
        measure="accuracy",
        goal=0.8,
        pool=1_500,
        test=1_500,
        start=20,
        batch=20,
        rounds=16,
        trials=2,
    ),
    Subject(
        name="shuttle",
        line=Line(
            name="shuttle",
            task="sensor.anomaly",
            data=Data(source="package:shuttle", label="anomaly"),
            gates={"false_alarm_rate": Limit(max=0.01)},
        ),
        measure="f1",
        goal=0.9,
        pool=8_000,
        test=4_000,
        start=20,
        batch=20,
        rounds=35,
        trials=3,
    ),
)


def dataset(subject: Subject, home: Path) -> tuple[Task, View]:
    """Return the task of a subject and its whole dataset, read into a home of its own."""
    task: Task = resolve("task", subject.line.task)()
    modality: Modality = resolve("modality", task.modality)()
    progress = ConsoleProgress()
    with Store.open(home) as store:
        version = modality.ingest(
            source_of(subject.line, progress),
            subject.line,
            store,
            progress,
            parent=None,
            split_by=task.split_by,
        )
        return task, DatasetView(store, version, subject.line)


class Remembered:
    """A backbone that looks at every image once, since its features never change.

    Only the time it takes is saved: the numbers are those of the backbone itself.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._seen: dict[tuple[bytes, tuple[str, ...]], dict[str, Array]] = {}

    def __getattr__(self, name: str) -> Any:
        """Return everything else as the backbone has it."""
        return getattr(self._backbone, name)

    def features(self, images: Array, taps: Sequence[str], **how: Any) -> dict[str, Array]:
        """Return the features of images [N, size, size, 3] by tap."""
        wanted = tuple(taps)
        keys = [(hashlib.blake2b(image.tobytes()).digest(), wanted) for image in images]
        new = {key: at for at, key in enumerate(keys) if key not in self._seen}
        if new:
            made = self._backbone.features(images[list(new.values())], wanted, **how)
            for place, key in enumerate(new):
                self._seen[key] = {tap: made[tap][place].copy() for tap in wanted}
        return {tap: np.stack([self._seen[key][tap] for key in keys]) for tap in wanted}


def remember() -> None:
    """Let the classifier decode and look at every image once in this process."""
    found: dict[str, Remembered] = {}
    decoded = cache(images.decode)

    def once(name: str, *args: Any, **how: Any) -> Any:
        if name not in found:
            found[name] = Remembered(load(name, *args, **how))
        return found[name]

    for module in (fit, model):
        setattr(module, "load", once)  # noqa: B010  # for this process, on purpose
    for module in (schema, features):
        setattr(module, "decode", decoded)  # noqa: B010  # likewise
