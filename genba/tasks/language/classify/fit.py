"""Search, train and calibrate: from labelled texts to a head, what is in scope, and a bar."""

import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import JsonObject, View
from genba.core.task import Model
from genba.edge.texts import as_bytes
from genba.learn.classes import calibrate, heads
from genba.learn.classes.chosen import choose, folds, rows
from genba.learn.classes.directions import directions
from genba.learn.classes.heads import Head, Lesson
from genba.learn.classes.scope import Asked, Scope, confidence, learn_scope, mixed, scope_bar
from genba.learn.encoder import load_encoding
from genba.learn.search import Space, Trial, plan, search
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.language.classify import schema
from genba.tasks.language.classify.model import Eyes

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: The first value is the default of a setting. On 505 questions of 39 categories, five parts held
#: out in turn: .700 right with prototype at .9, .684 at .3, .648 with linear at .1, .640 at .01.
SPACE: Final[Space] = {
    "prototype": {"shrink": (0.9, 0.3, 0.7, 0.1)},
    "linear": {"penalty": (0.1, 0.01, 0.001)},
    "head": {"width": (128, 256), "dropout": (0.3, 0.5), "decay": (1e-5, 1e-4)},
}
FEW_SPACE: Final[Space] = {
    "prototype": {"shrink": (0.9, 0.7, 0.97)},
    "linear": {"penalty": (0.1, 1.0, 0.01)},
}
_FEW: Final = 30  # texts per class
_FEWEST_CALIBRATION: Final = 10
_MOST_CALIBRATION: Final = 0.25  # of the texts that the budget has time for
_BATCH: Final = 512
_FEWEST: Final = 4_000  # texts that a trial is given, whatever its rung


@dataclass(frozen=True, kw_only=True, slots=True)
class Bank:
    """Texts of a split as vectors."""

    x: Floats
    label: Ints
    outside: Floats  # those that are marked as belonging to no class


class Study:
    """The training texts, how they are divided for choosing, and what each trial has shown."""

    def __init__(self, bank: Bank, settings: JsonObject, seed: int) -> None:
        self.bank = bank
        self.classes = len(settings["classes"])
        self.balance = bool(settings["balance"])
        self.seed = seed
        self.folds = folds(bank.label, seed)

    def lesson(self, rows: Ints) -> Lesson:
        """Return some training texts."""
        return Lesson(
            x=self.bank.x[rows],
            y=self.bank.label[rows],
            classes=self.classes,
            balance=self.balance,
            seed=self.seed,
        )

    @property
    def everything(self) -> Lesson:
        """All training texts."""
        return self.lesson(np.arange(len(self.bank.label), dtype=np.int64))

    def held_out(self, trial: Trial, fraction: float = 1.0) -> tuple[Floats, Ints, Ints]:
        """Return the logits of texts that were held out, each once, their labels and places."""
        logits, places = [], []
        for known, apart in self.folds:
            taken = known[: max(round(fraction * len(known)), min(_FEWEST, len(known)))]
            if len(np.unique(self.bank.label[taken])) < 2:
                continue
            head = heads.train(str(trial["candidate"]), self.lesson(taken), trial["settings"])
            logits.append(head(self.bank.x[apart]))
            places.append(apart)
        if not logits:
            nothing = np.zeros(0, dtype=np.int64)
            return np.zeros((0, self.classes), np.float32), nothing, nothing
        at = np.concatenate(places)
        return np.concatenate(logits), self.bank.label[at], at

    def loss(self, trial: Trial, fraction: float) -> float:
        """Return the mean loss of texts that were held out, at the best temperature."""
        logits, label, _ = self.held_out(trial, fraction)
        if not len(label):
            return float("nan")
        cooled = logits / np.float32(calibrate.temperature(logits, label))
        found = heads.losses(cooled, label)
        if not self.balance:
            return float(found.mean())
        return float(np.mean([found[label == kind].mean() for kind in np.unique(label)]))


def fit(view: View, settings: JsonObject, effort: Effort) -> Model:
    """Read the texts, search for the best head, train it on all of them and calibrate it.

    Raises:
        Problem: G582 when fewer than two classes have a training text.
    """
    encoding = load_encoding(str(settings["encoder"]), effort.progress)
    eyes = Eyes(encoding, threads=min(2, len(os.sched_getaffinity(0))))
    most = int(settings["texts"]["most"])
    kept = int(_MOST_CALIBRATION * most)
    train = _read(view, "train", settings, most - kept, (eyes, effort))
    _check_classes(train.label, view)
    apart = _read(view, "calibrate", settings, kept, (eyes, effort))
    with one_thread():
        study = Study(train, settings, effort.seed)
        best, trials = search(_plan(study, settings, effort), study.loss, effort)
        head = _trained(best, study.everything)
        effort.check()
        scope, asked = learn_scope(
            study.everything, train.outside, lambda part: _trained(best, part), settings["outside"]
        )
        found = _calibrated(study, best, (head, scope, asked), apart, settings)
        embedding = directions(train.x, schema.EMBEDDING)
    head, scope, facts = found
    made: dict[str, Any] = {
        **settings,
        **facts,
        "encoder": encoding.name,
        "encoder_version": encoding.version,
        "training": dict(best["settings"]),
        "rows": {"train": len(train.label), "outside": len(train.outside)},
    }
    return Model(
        candidate=str(best["candidate"]),
        settings=made,
        arrays={**head.to_arrays(), **scope.to_arrays(), **embedding},
        trials=trials,
    )


def _read(
    view: View, split: str, settings: JsonObject, most: int, how: tuple[Eyes, Effort]
) -> Bank:
    """Return the chosen texts of a split as vectors."""
    eyes, effort = how
    chosen = choose(view, split, settings, most, effort.seed)
    parts: list[Floats] = []
    done = 0
    for chunk in rows(view, chosen):
        texts = as_bytes(schema.said(chunk)).tolist()
        for start in range(0, len(texts), _BATCH):
            effort.check()
            parts.append(eyes(texts[start : start + _BATCH])[0])
            done += len(parts[-1])
            effort.progress.step("reading texts", done, len(chosen.at))
    x = np.concatenate(parts) if parts else eyes([])[0]
    outside = chosen.label == settings["outside_class"]
    return Bank(x=x[~outside], label=chosen.label[~outside], outside=x[outside])


def _check_classes(label: Ints, view: View) -> None:
    count = len(np.unique(label))
    if count < 2:
        raise Problem(
            "G582",
            "There is nothing to tell apart: "
            + ("no training text has a label." if not count else "all are of one class."),
            where=view.line.data.source,
            why=f"Classes: {', '.join(view.classes[:20]) or 'none'}. A classifier needs at least "
            "two with labelled texts.",
            tries=[
                'label = "COLUMN"  # in [data]',
                "genba explain G582",
            ],
        )


def _plan(study: Study, settings: JsonObject, effort: Effort) -> list[Trial]:
    count = np.bincount(study.bank.label)
    few = len(study.bank.label) < _FEW * np.count_nonzero(count)
    space = FEW_SPACE if few else SPACE
    asked = [n for n in settings["candidates"] if n in space] or settings["candidates"]
    # One text per class: nothing can be held out, and the first choice stands.
    trials = effort.budget.trials if count.max() > 1 else 1
    return plan({n: space.get(n, SPACE[n]) for n in asked}, trials, effort.seed)


def _trained(best: Trial, lesson: Lesson) -> Head:
    return heads.train(str(best["candidate"]), lesson, best["settings"])


def _calibrated(
    study: Study,
    best: Trial,
    made: tuple[Head, Scope, Asked],
    apart: Bank,
    settings: JsonObject,
) -> tuple[Head, Scope, dict[str, Any]]:
    """Set the temperature and the bar on texts that the head was not trained on."""
    head, scope, asked = made
    if len(apart.label) >= _FEWEST_CALIBRATION:
        logits, label, x = head(apart.x), apart.label, apart.x
        source = "calibration texts"
    else:
        logits, label, at = study.held_out(best)
        x, source = study.bank.x[at], "training texts held out in turn"
    heat = calibrate.temperature(logits, label) if len(label) else 1.0
    scope = scope.cooled(heat)
    cooled = logits / np.float32(heat)
    sure = confidence(cooled, scope(cooled, x))
    correct = np.argmax(logits, axis=1) == label
    out = _outside(head, scope, asked, apart, heat)
    share, allowed = float(settings["outside"]), float(settings["allowed_error"])
    found = calibrate.bar(*mixed(sure, correct, out, share), allowed)
    bar = max(found.value, scope_bar(sure, out, allowed)) if share else found.value
    return (
        head.cooled(heat),
        scope,
        {
            "temperature": heat,
            "abstain_below": float(np.float32(bar)),
            "calibrated_on": {"source": source, "texts": len(label), "outside": len(out)},
            "promise": {
                "allowed_error": allowed,
                "abstained": float((sure < bar).mean()) if len(sure) else 0.0,
                "wrong": found.wrong,
                "guaranteed": found.guaranteed,
            },
        },
    )


def _outside(
    head: Head, scope: Scope, asked: Asked, apart: Bank, heat: float
) -> npt.NDArray[np.float64]:
    """Return how sure the model is of texts that it should not answer.

    Those that people marked and it was not trained on, where there are enough; otherwise those of
    the classes that were left out.
    """
    if len(apart.outside) >= _FEWEST_CALIBRATION:
        logits = head(apart.outside) / np.float32(heat)
        return confidence(logits, scope(logits, apart.outside))
    out = ~asked.inside
    values = asked.values[out] / np.array([heat, 1.0], dtype=np.float32)
    raised = values @ scope.weight + np.float32(scope.offset)
    inside = (1.0 / (1.0 + np.exp(-raised))).astype(np.float32)
    return confidence(asked.logits[out] / np.float32(heat), inside)
