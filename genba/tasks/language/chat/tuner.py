"""What needs torch: training, the reference, and weights with what was learned in them.

It is reached by `resolve("tuner", "torch")`, so that a server, which only wants to know what a word
of feedback means, does not load it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Columns, JsonObject, Tensors, View
from genba.core.task import Model
from genba.edge.assistant.seams import Parts
from genba.edge.texts import as_bytes, messages_of, written
from genba.edge.vocabulary import GgufVocabulary
from genba.learn.language.bases import Base, base_of
from genba.learn.language.examples import Example, Pair
from genba.learn.language.export import write_gguf
from genba.learn.language.merge import merged
from genba.learn.language.reference import Reference
from genba.learn.language.tune import tune
from genba.runs.effort import Effort
from genba.runs.progress import SilentProgress
from genba.tasks.language.chat import schema
from genba.tasks.language.chat.files import DISTILLED, RAILS, contacts, rails_of, train_rails
from genba.tasks.language.chat.teacher import Lessons, ask_teacher
from genba.tasks.language.chat.yardstick import open_talk

_FEWEST: Final = 8  # answers that something can be learned from
_AGAIN: Final = 3  # times that a correction is learned from in an epoch


class TorchTuner:
    """Trains a chat model."""

    @staticmethod
    def fit(view: View, settings: JsonObject, effort: Effort) -> Model:
        """Train on the answers of the training split, with those for calibration to stop early.

        Raises:
            Problem: G572 when there are too few answers, and what `tune` raises.
        """
        base = base_of(str(settings["base"]["name"]), effort.progress)
        made = _Made(base, settings)
        method = str(settings["method"])
        lessons = ask_teacher(view, settings, effort)
        learned: list[Any] = list(made.pairs(view, "train"))
        checked: list[Any] = list(made.pairs(view, "calibrate"))
        if method != "dpo":
            learned = [*made.examples(view, "train"), *made.taught(lessons)]
            checked = list(made.examples(view, "calibrate"))
        if len(learned) < _FEWEST:
            raise _too_few(len(learned), method)
        tuned = tune(base, learned, checked, made.tuning(), lessons.effort)
        return Model(
            candidate=method,
            settings={
                **settings,
                "contacts": contacts(view),
                "examples": len(learned),
                "distilled": len(lessons.usable),
                "tuning": dict(tuned.settings),
            },
            arrays={**tuned.arrays, **train_rails(view, settings), **lessons.arrays()},
            # Not among the settings: how fast it went is no part of what a model is.
            trials=[*map(dict, tuned.curve), {"measured": dict(tuned.measures)}],
        )

    @staticmethod
    def reference(model: Model) -> "_Reference":
        """Return the model as a function of tensors."""
        return _Reference(model)

    @staticmethod
    def export(model: Model) -> bytes:
        """Return the model as one GGUF file: weights, vocabulary, chat template."""
        base = _base(model)
        tensors = merged(base, _learned(model), model.settings["tuning"])
        return write_gguf(base.gguf, tensors, str(model.settings["quant"]))


class _Reference:
    """A tuned model with the outputs that a package has.

    What it thinks of given answers is computed in torch: the yardstick of every exported form. To
    write is left to an engine: it is many times faster, and no two forms write alike anyway.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._torch = Reference(_base(model), _learned(model), model.settings["tuning"])
        self.parts = Parts(rails=rails_of(model))

    def __call__(self, tensors: Tensors) -> dict[str, Array]:
        asked = dict(tensors)
        count = len(asked["messages"])
        given = np.asarray(asked.pop("given", as_bytes([""] * count)))
        scored = np.array([bool(text) for text in given], dtype=np.bool_)
        found = {
            "answer": given.copy(),
            "log_probability": np.zeros(count, dtype=np.float32),
            "tokens": np.zeros((count, 2), dtype=np.int32),
            "by": as_bytes(["model"] * count),
            "sources": as_bytes(["[]"] * count),
        }
        for rows, run in ((scored, self._score), (~scored, self._write)):
            if rows.any():
                made = run({"given": given[rows], **{n: t[rows] for n, t in asked.items()}})
                for name in ("answer", "log_probability", "tokens"):
                    found[name][rows] = made[name]
        return found

    def _score(self, tensors: Tensors) -> dict[str, Array]:
        return self._torch.run(tensors)

    def _write(self, tensors: Tensors) -> dict[str, Array]:
        engine = open_talk(TorchTuner.export(self._model))
        try:
            return engine.run(tensors)
        finally:
            engine.close()


class _Made:
    """Conversations as what training takes."""

    def __init__(self, base: Base, settings: JsonObject) -> None:
        self._vocabulary = GgufVocabulary(base.file)
        self._settings = settings

    def tuning(self) -> dict[str, Any]:
        """Return the settings of the training."""
        settings = self._settings
        return {
            "kind": settings["method"],
            "epochs": float(settings["epochs"]),
            "precision": settings["precision"],
        }

    def examples(self, view: View, split: str) -> Iterator[Example]:
        """Yield the answers of a split; what people corrected comes more often than the rest.

        Its weight alone makes a step larger, but one step of many teaches no new sentence.
        """
        for row in _rows(view, split):
            if not row["answer"].strip():
                continue
            weight = float(row["weight"])
            example = self._example(row, row["answer"], weight)
            yield from [example] * (_AGAIN if weight > 1.0 and split == "train" else 1)

    def taught(self, lessons: Lessons) -> Iterator[Example]:
        """Yield what a teacher said."""
        for one in lessons.usable:
            row = {"messages": written(one.messages)}
            yield self._example(row, one.answer)

    def pairs(self, view: View, split: str) -> Iterator[Pair]:
        """Yield the answers of a split that were preferred to others."""
        for row in _rows(view, split):
            if row["answer"].strip() and row["rejected"].strip():
                yield Pair(
                    chosen=self._example(row, row["answer"]),
                    rejected=self._example(row, row["rejected"]),
                    weight=float(row["weight"]),
                )

    def _example(self, row: Mapping[str, Any], answer: str, weight: float = 1.0) -> Example:
        messages = messages_of(schema.with_system(row["messages"], self._settings))
        prompt = self._vocabulary.prompt(messages) if messages else []
        said = [*self._vocabulary.encode(answer), self._vocabulary.end[0]]
        tokens = np.array([*prompt, *said], dtype=np.int32)
        learned = np.zeros(len(tokens), dtype=np.bool_)
        learned[len(prompt) :] = True
        return Example(tokens=tokens, answer=learned, weight=weight)


def _rows(view: View, split: str) -> Iterator[dict[str, Any]]:
    names = ("messages", "answer", "rejected", "weight")
    for chunk in view.chunks(split):
        for values in zip(*(_column(chunk, name) for name in names), strict=True):
            yield dict(zip(names, values, strict=True))


def _column(chunk: Columns, name: str) -> list[Any]:
    values = np.asarray(chunk[name]).tolist()
    return values if name == "weight" else [str(value or "") for value in values]


def _learned(model: Model) -> dict[str, Array]:
    """Return what was learned of the language, without what stands around it."""
    beside = (RAILS, DISTILLED)
    return {name: array for name, array in model.arrays.items() if not name.startswith(beside)}


def _base(model: Model) -> Base:
    said = model.settings["base"]
    base = base_of(str(said["name"]), SilentProgress())
    if base.digest != said["digest"]:
        raise Problem(
            "G573",
            "The base model is another one than the adapter was trained on.",
            where=str(said["name"]),
            why=f"It is {base.digest[:12]}…, and was {str(said['digest'])[:12]}….",
            tries=["genba run LINE  # trains again", "genba explain G573"],
        )
    return base


def _too_few(count: int, method: str) -> Problem:
    pairs = method == "dpo"
    what = "pairs of a good and a bad answer" if pairs else "answered questions"
    return Problem(
        "G572",
        f"There are {count} {what} to learn from; {_FEWEST} is the least.",
        where="data.source",
        why="Rows without an answer are kept, but nothing can be learned from them."
        if not pairs
        else "Preferences come from feedback (answer:, prefer:) or from the data.",
        tries=[
            '--set options.method="lora"' if pairs else "genba data",
            "genba explain G572",
        ],
    )
