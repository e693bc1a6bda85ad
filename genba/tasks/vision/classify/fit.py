"""Search, train and calibrate: from labelled images to a head, a temperature and a bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import JsonObject, View
from genba.core.task import Model
from genba.learn.backbone import FILTERS, Backbone, load
from genba.learn.classes import calibrate, heads
from genba.learn.classes.chosen import choose, folds
from genba.learn.classes.directions import directions
from genba.learn.classes.heads import Head, Lesson
from genba.learn.search import Space, Trial, plan, search
from genba.learn.threads import one_thread
from genba.runs.effort import Effort
from genba.tasks.vision.classify import features, schema
from genba.tasks.vision.classify.features import Bank

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: The first value is the default of a setting.
SPACE: Final[Space] = {
    "linear": {"penalty": (0.01, 0.1, 0.001)},
    "prototype": {"shrink": (0.1, 0.3, 0.03, 0.8)},
    "head": {"width": (128, 256), "dropout": (0.3, 0.5), "decay": (1e-5, 1e-4)},
}
#: The same where there are few images per class. Fashion-MNIST, mean of eight draws: .556, .758 and
#: .825 right with linear and 1, 5 and 20 images per class.
FEW_SPACE: Final[Space] = {
    "linear": {"penalty": (1.0, 0.1, 0.01)},
    "prototype": {"shrink": (0.8, 0.3, 0.1)},
    "head": {"width": (128,), "dropout": (0.3, 0.5), "decay": (1e-4, 1e-5)},
}
_FEW: Final = 50  # images per class
_FEW_TRIALS: Final = 5  # the first choice of each candidate
_FEWEST: Final = (
    4_000  # images that a trial is given, whatever its rung: with fewer the wrong one wins
)
_FEWEST_CALIBRATION: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What one network made of the images."""

    backbone: Backbone
    train: Bank
    calibrate: Bank


class Study:
    """The training images, how they are divided for choosing, and what each trial has shown."""

    def __init__(self, seen: dict[str, Seen], settings: JsonObject, seed: int) -> None:
        self.seen = seen
        self.classes = len(settings["classes"])
        self.balance = bool(settings["balance"])
        self.seed = seed
        self.label = next(iter(seen.values())).train.label
        self.folds = folds(self.label, seed)
        self._matrix: tuple[str, Floats] | None = None

    def x(self, name: str) -> Floats:
        """Return the training features of a set; the newest is kept."""
        if self._matrix is None or self._matrix[0] != name:
            self._matrix = None  # free it before the next is made
            self._matrix = (name, matrix(self.seen, name, "train"))
        return self._matrix[1]

    def lesson(self, name: str, rows: Ints) -> Lesson:
        """Return some training images of a feature set."""
        return Lesson(
            x=self.x(name)[rows],
            y=self.label[rows],
            classes=self.classes,
            balance=self.balance,
            seed=self.seed,
        )

    def held_out(self, trial: Trial, fraction: float = 1.0) -> tuple[Floats, Ints]:
        """Return the logits of images that were held out, each once, and their labels."""
        chosen = dict(trial["settings"])
        name = str(chosen.pop("features"))
        logits, label = [], []
        for rows, apart in self.folds:
            taken = rows[: max(round(fraction * len(rows)), min(_FEWEST, len(rows)))]
            if len(np.unique(self.label[taken])) < 2:
                continue
            head = heads.train(str(trial["candidate"]), self.lesson(name, taken), chosen)
            logits.append(head(self.x(name)[apart]))
            label.append(self.label[apart])
        if not logits:
            return np.zeros((0, self.classes), np.float32), np.zeros(0, np.int64)
        return np.concatenate(logits), np.concatenate(label)

    def loss(self, trial: Trial, fraction: float) -> float:
        """Return the mean loss of images that were held out, at the best temperature."""
        logits, label = self.held_out(trial, fraction)
        if not len(label):
            return float("nan")
        cooled = logits / np.float32(calibrate.temperature(logits, label))
        found = heads.losses(cooled, label)
        if not self.balance:
            return float(found.mean())
        kinds = [found[label == kind].mean() for kind in np.unique(label)]
        return float(np.mean(kinds))


def fit(view: View, settings: JsonObject, effort: Effort) -> Model:
    """Look at the images, search for the best head, train it on all of them and calibrate it.

    Raises:
        Problem: G535 when fewer than two classes have a training image.
    """
    seen, skipped = look(view, settings, effort)
    with one_thread():
        study = Study(seen, settings, effort.seed)
        best, trials = search(_plan(study, settings, effort), study.loss, effort)
        chosen = dict(best["settings"])
        name = str(chosen.pop("features"))
        everything = np.arange(len(study.label), dtype=np.int64)
        head = heads.train(str(best["candidate"]), study.lesson(name, everything), chosen)
        head, facts = _calibrated(study, head, best, float(settings["allowed_error"]))
        embedding = directions(study.x(name), schema.EMBEDDING)
    backbone = _of(seen, name).backbone
    made: dict[str, Any] = {
        **settings,
        **facts,
        "backbone": backbone.name,
        "backbone_version": backbone.version,
        "taps": list(_taps(name)),
        "training": dict(best["settings"]),
        "rows": {"train": len(study.label)},
        "left_out": skipped,
    }
    return Model(
        candidate=str(best["candidate"]),
        settings=made,
        arrays={**head.to_arrays(), **embedding},
        trials=trials,
    )


def look(
    view: View, settings: JsonObject, effort: Effort
) -> tuple[dict[str, Seen], dict[str, str]]:
    """Return what each network makes of the images, and why one was left out.

    Where none of the networks can be had, the bank of filters stands in for them.
    """
    found: dict[str, Seen] = {}
    skipped: dict[str, str] = {}
    for name in [*settings["backbones"], FILTERS]:
        if name == FILTERS and found:
            break
        try:
            backbone = load(name, effort.progress)
        except Problem as problem:
            if problem.code != "G902":  # a file that is not what it should be is no bad weather
                raise
            skipped[name] = problem.what
            effort.progress.note(f"{name} is left out: {problem.what}")
            continue
        found[name] = _seen(view, backbone, settings, effort)
    return found, skipped


def _seen(view: View, backbone: Backbone, settings: JsonObject, effort: Effort) -> Seen:
    sets = schema.taps(backbone.name).values()
    taps = tuple(dict.fromkeys(tap for names in sets for tap in names))
    size, banks = int(settings["size"]), []
    most = features.room(settings, backbone, taps)
    for split, count in zip(("train", "calibrate"), most, strict=True):
        chosen = choose(view, split, settings, count, effort.seed)
        if split == "train":
            _check_classes(chosen.label, view)
        banks.append(features.look_at(view, chosen, backbone, taps, size, effort))
    return Seen(backbone=backbone, train=banks[0], calibrate=banks[1])


def _check_classes(label: Ints, view: View) -> None:
    count = len(np.unique(label))
    if count < 2:
        raise Problem(
            "G535",
            "There is nothing to tell apart: "
            + ("no training image has a label." if not count else "all are of one class."),
            where=view.line.data.source,
            why=f"Classes: {', '.join(view.classes) or 'none'}. A classifier needs at least two "
            "with labelled images; defects among good parts are a task for vision.anomaly.",
            tries=["put images into one folder per class", 'task = "vision.anomaly"'],
        )


def _plan(study: Study, settings: JsonObject, effort: Effort) -> list[Trial]:
    sets = [f"{name}/{kind}" for name in study.seen for kind in schema.taps(name)]
    count = np.bincount(study.label)
    few = len(study.label) < _FEW * np.count_nonzero(count)
    space = {
        name: {"features": sets, **(FEW_SPACE if few else SPACE)[name]}
        for name in settings["candidates"]
    }
    trials = effort.budget.trials
    if few:  # so few held out images cannot rank many settings
        trials = min(trials, _FEW_TRIALS)
    # One image per class: nothing can be held out, and the first choice stands.
    return plan(space, trials if count.max() > 1 else 1, effort.seed)


def _calibrated(
    study: Study, head: Head, best: Trial, allowed: float
) -> tuple[Head, dict[str, Any]]:
    """Set the temperature and the bar on images that the head was not trained on."""
    name = str(best["settings"]["features"])
    bank = _of(study.seen, name).calibrate
    if len(bank.label) >= _FEWEST_CALIBRATION:
        logits, label = head(matrix(study.seen, name, "calibrate")), bank.label
        source = "calibration images"
    else:
        logits, label = study.held_out(best)
        source = "training images held out in turn"
    heat = calibrate.temperature(logits, label) if len(label) else 1.0
    probability = heads.softmax(logits.astype(np.float64) / heat)
    confidence = probability.max(axis=1) if len(label) else np.zeros(0)
    found = calibrate.bar(confidence, np.argmax(logits, axis=1) == label, allowed)
    return head.cooled(heat), {
        "temperature": heat,
        "abstain_below": float(np.float32(found.value)),
        "calibrated_on": {"source": source, "images": found.images},
        "promise": {
            "allowed_error": allowed,
            "abstained": found.abstained,
            "wrong": found.wrong,
            "guaranteed": found.guaranteed,
        },
    }


def matrix(seen: dict[str, Seen], name: str, split: str) -> Floats:
    """Return the features of a set, named "backbone/kind", of "train" or "calibrate"."""
    found = _of(seen, name)
    return (found.train if split == "train" else found.calibrate).matrix(_taps(name))


def _of(seen: dict[str, Seen], name: str) -> Seen:
    return seen[name.partition("/")[0]]


def _taps(name: str) -> Sequence[str]:
    backbone, _, kind = name.partition("/")
    return schema.taps(backbone)[kind]
