"""Answers of a larger model to questions that nobody has answered, with where each came from."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array, JsonObject, View
from genba.core.talk import Words
from genba.edge.texts import messages_of
from genba.learn.language.bases import base_of
from genba.learn.language.distil import Sampling, Taught, Teacher, distil_all, json_lines
from genba.learn.language.teachers import Endpoint, Local
from genba.runs.effort import Checkpoint, Effort
from genba.tasks.language.chat import schema
from genba.tasks.language.chat.files import DISTILLED
from genba.tasks.language.chat.yardstick import open_talk

_WEB: Final = ("http://", "https://")
_MOST: Final = 2_000  # questions that are asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Lessons:
    """What a teacher said, and an effort to go on with that remembers it."""

    taught: tuple[Taught, ...]
    effort: Effort

    @property
    def usable(self) -> tuple[Taught, ...]:
        """Those that something can be learned from."""
        return tuple(one for one in self.taught if not one.dropped)

    def arrays(self) -> dict[str, Array]:
        """Return every sample with its provenance, as a model keeps it."""
        lines = "\n".join(json_lines(self.usable)).encode()
        return {DISTILLED: np.frombuffer(lines, dtype=np.uint8)} if lines else {}


def ask_teacher(view: View, settings: JsonObject, effort: Effort) -> Lessons:
    """Let the teacher that a line names answer the questions of its training part.

    Args:
        view: The dataset; questions with an answer are left to people.
        settings: Of the task; `teacher` is empty, or a server and the name of a model there, or
            what `base` may be.
        effort: What was asked already is in its checkpoint and not asked again.

    Raises:
        Problem: G564 when the teacher cannot be asked, G560 when there is no such model.
    """
    name = str(settings.get("teacher") or "")
    questions = _unanswered(view, settings) if name else []
    if not questions:
        return Lessons(taught=(), effort=effort)
    saved = effort.checkpoint.load()
    known = (saved[0].get(_TAUGHT) if saved else None) or []
    if known:
        return _remembered([Taught(**row) for row in known], effort)
    sampling = Sampling(most=int(settings["answer_tokens"]) * 2)
    return _remembered(_asked(name, questions, sampling, effort), effort)


_TAUGHT: Final = "taught"
_REST: Final = "rest"


class _Beside:
    """A checkpoint that keeps what was taught beside what is saved later."""

    def __init__(self, inner: Checkpoint, taught: list[Any]) -> None:
        self._inner, self._taught = inner, taught

    @property
    def spent_s(self) -> float:
        return self._inner.spent_s

    def load(self) -> tuple[dict[str, Any], dict[str, Array]] | None:
        saved = self._inner.load()
        if saved is None or _REST not in saved[0]:
            return None
        return dict(saved[0][_REST]), saved[1]

    def save(self, meta: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        self._inner.save({_TAUGHT: self._taught, _REST: dict(meta)}, arrays)


def _remembered(taught: list[Taught], effort: Effort) -> Lessons:
    beside = copy.copy(effort)
    plain = json.loads(json.dumps([asdict(one) for one in taught]))
    beside.checkpoint = _Beside(effort.checkpoint, plain)
    return Lessons(taught=tuple(taught), effort=beside)


def _asked(name: str, questions: list[Words], sampling: Sampling, effort: Effort) -> list[Taught]:
    if name.startswith(_WEB):
        address, _, model = name.partition(" ")
        return distil_all(questions, Endpoint(address, model.strip()), sampling, effort)
    base = base_of(name, effort.progress)
    talks: Any = open_talk(base.gguf)
    try:
        teacher: Teacher = Local(talks, f"{base.name} {base.digest[:16]}")
        return distil_all(questions, teacher, sampling, effort)
    finally:
        talks.close()


def _unanswered(view: View, settings: JsonObject) -> list[Words]:
    found: list[Words] = []
    for chunk in view.chunks("train"):
        for text, answer in zip(chunk["messages"], chunk["answer"], strict=True):
            messages = messages_of(schema.with_system(text, settings))
            if messages and not str(answer or "").strip():
                found.append(messages)
    return found[:_MOST]
