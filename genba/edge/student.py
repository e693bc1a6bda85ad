"""A student: answers what has an approved answer, and leaves the rest to the language model.

It knows questions with their approved answers. A question is compared with all of them, by the
words and by what a sentence encoder makes of it; how likely the answer to the nearest is at least
as good as what the language model would write was learned from questions that both have answered
(`genba.loop.flywheel`). Below the bar, or where a conversation went on, it says nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.assistant.seams import Answered, Embed, Question
from genba.edge.tensors import read_tensors

STUDENT_FILE: Final = "student.safetensors"
ANSWERS_FILE: Final = "answers.json"
#: What the router looks at: cosine to the nearest question, how much nearer that is than the
#: nearest question with another answer, and the share of words in common.
FEATURES: Final = ("nearness", "gap", "words")
_WORDS: Final = re.compile(r"\w+")
_MOST: Final = 2_000  # characters of a question; a longer one is for the language model

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Questions with approved answers."""

    questions: tuple[str, ...]
    vectors: Floats  # [questions, numbers], each of length 1
    answer: npt.NDArray[np.int64]  # index into answers, of each question
    answers: tuple[str, ...]
    origins: tuple[str, ...]  # where each answer is from, such as faq.jsonl:12 or feedback:ID


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """When the student answers: the weights of `FEATURES`, and the bar."""

    weight: tuple[float, ...] = (0.0, 0.0, 0.0)
    offset: float = 0.0
    bar: float = 1.0  # probability from which on it answers; above 1 it never does

    def confidence(self, features: Array) -> Array:
        """Return how likely its answers are at least as good as the language model's [N]."""
        raised = np.asarray(features, dtype=np.float64) @ np.array(self.weight) + self.offset
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(raised, -30.0, 30.0))))


class Student:
    """Answers with approved answers.

    May be called from several threads.

    Args:
        known: What it knows.
        route: When it answers.
        embed: Of the package's encoder.
    """

    def __init__(self, known: Known, route: Route, embed: Embed) -> None:
        self.known = known
        self.route = route
        self._embed = embed
        self._words = [words_of(question) for question in known.questions]
        self._exact: dict[str, int] = {}
        for at, question in enumerate(known.questions):
            self._exact.setdefault(normalised(question), int(known.answer[at]))

    @classmethod
    def open(
        cls, files: Mapping[str, bytes], settings: Mapping[str, Any], embed: Embed | None
    ) -> Self:
        """Open the student of a package.

        Raises:
            Problem: G583 when its files do not belong together or there is no encoder.
        """
        if embed is None:
            raise _strange("the package has no encoder")
        try:
            arrays = read_tensors(files[STUDENT_FILE])
            body = json.loads(files[ANSWERS_FILE])
            known = Known(
                questions=tuple(str(text) for text in body["questions"]),
                vectors=arrays["vectors"].astype(np.float32),
                answer=arrays["answer"].astype(np.int64),
                answers=tuple(str(one["text"]) for one in body["answers"]),
                origins=tuple(str(one["origin"]) for one in body["answers"]),
            )
            weight = tuple(float(value) for value in settings["weight"])
            route = Route(
                weight=weight, offset=float(settings["offset"]), bar=float(settings["bar"])
            )
        except (ValueError, KeyError, TypeError, Problem) as error:
            raise _strange(f"{type(error).__name__}: {error}") from error
        _check(known, route)
        return cls(known, route, embed)

    def answer(self, question: Question) -> Answered | None:
        """Answer, or leave it to the language model."""
        if not question.first or not question.plain or not 0 < len(question.text) <= _MOST:
            return None
        same = self._exact.get(normalised(question.text))
        if same is not None and self.route.bar <= 1.0:
            return self._answered(same, 1.0)
        vector = question.embedding
        if vector is None:
            vector = self._embed([question.text])[0]
        place, features = self.look(question.text, vector)
        sure = float(self.route.confidence(features[None])[0])
        return self._answered(place, sure) if sure >= self.route.bar else None

    def look(self, text: str, vector: Array, *, without: int | None = None) -> tuple[int, Array]:
        """Return the answer to the nearest question, and the features of the router [3].

        Args:
            text: The question.
            vector: What the encoder makes of it.
            without: An answer that is treated as if it were not known.
        """
        alike = self.known.vectors @ np.asarray(vector, dtype=np.float32)
        if without is not None:
            alike = np.where(self.known.answer == without, np.float32(-1.0), alike)
        nearest = int(alike.argmax())
        place = int(self.known.answer[nearest])
        others = alike[self.known.answer != place]
        gap = float(alike[nearest] - (others.max() if len(others) else 0.0))
        share = overlap(words_of(text), self._words[nearest])
        return place, np.array([float(alike[nearest]), gap, share])

    def _answered(self, place: int, confidence: float) -> Answered:
        known = self.known
        return Answered(
            text=known.answers[place], confidence=confidence, origin=known.origins[place]
        )


def student_files(known: Known) -> tuple[dict[str, Array], bytes]:
    """Return the tensors of `student.safetensors` and the bytes of `answers.json`."""
    tensors: dict[str, Array] = {
        "vectors": known.vectors.astype(np.float16),
        "answer": known.answer,
    }
    answers = [
        {"text": text, "origin": origin}
        for text, origin in zip(known.answers, known.origins, strict=True)
    ]
    body = {"format": 1, "questions": list(known.questions), "answers": answers}
    return tensors, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def normalised(text: str) -> str:
    """Return a text without case, punctuation and spare room.

    Example:
        >>> normalised("What is a  Permit?")
        'what is a permit'
    """
    return " ".join(_WORDS.findall(text.lower()))


def words_of(text: str) -> frozenset[str]:
    """Return the different words of a text."""
    return frozenset(_WORDS.findall(text.lower()))


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the share of words in common (Jaccard, 1912).

    Example:
        >>> overlap(words_of("new roof"), words_of("A new roof?"))
        0.6666666666666666
    """
    both = one | other
    return len(one & other) / len(both) if both else 1.0


def _check(known: Known, route: Route) -> None:
    count, answers = len(known.questions), len(known.answers)
    fits = known.vectors.ndim == 2 and len(known.vectors) == len(known.answer) == count > 0
    fits = fits and bool(((known.answer >= 0) & (known.answer < answers)).all())
    if not fits or len(route.weight) != len(FEATURES):
        raise _strange(f"{count} questions, vectors {known.vectors.shape}, {answers} answers")


def _strange(why: str) -> Problem:
    return Problem(
        "G583",
        "The student of the package cannot be opened.",
        why=f"{why[:1].upper()}{why[1:]}.",
        tries=["genba flywheel LINE", "genba explain G583"],
    )


def vectors_of(texts: Sequence[str], embed: Embed) -> Floats:
    """Return what an encoder makes of texts, as the student keeps it."""
    return np.asarray(embed(list(texts)), dtype=np.float32)
