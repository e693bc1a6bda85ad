"""Answers of a larger model, for a smaller one to learn from, each with where it came from.

What is learned are whole answers (sequence-level distillation: Kim & Rush 2016,
https://arxiv.org/abs/1606.07947), so teacher and student need no vocabulary in common. An answer
that was cut short, or is empty, teaches the wrong thing and is dropped, with its reason.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from genba.core.digest import digest_json
from genba.core.talk import Words
from genba.runs.effort import Effort


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How a teacher is asked."""

    samples: int = 1  # answers of each question
    most: int = 256  # tokens of an answer
    temperature: float = 0.0
    top_p: float = 1.0
    at_once: int = 4  # questions that are asked at the same time


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What a teacher said."""

    text: str
    finish: str  # "stop": it came to its end
    model: str  # as the teacher calls itself
    tokens: int = 0  # of the answer, where it says so


class Teacher(Protocol):
    """A larger model. `answer` may be called on several threads."""

    name: str  # what it is, for people: an address and a model, a file

    def answer(self, messages: Words, sampling: Sampling, seed: int) -> Answered:
        """Answer a conversation.

        Raises:
            Problem: G564 when it cannot be asked.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Taught:
    """An answer to learn from, or why there is none."""

    messages: Sequence[Mapping[str, Any]]  # what was asked
    answer: str
    dropped: str  # "" or the reason why nobody should learn from it
    provenance: Mapping[str, Any]  # teacher, model, sampling, seed, digests of question and answer


def distil_all(
    questions: Iterable[Words], teacher: Teacher, sampling: Sampling, effort: Effort
) -> list[Taught]:
    """Ask a teacher; what it said is kept in checkpoints and not asked for again.

    Args:
        questions: Conversations up to where an answer begins.
        teacher: Who answers.
        sampling: How.
        effort: Seed, budget (when it is spent, the rest stays unasked), checkpoint, progress.

    Raises:
        Problem: G564 when the teacher cannot be asked.
    """
    wanted = [
        (list(messages), effort.seed + sample)
        for messages in questions
        for sample in range(sampling.samples)
    ]
    of = digest_json([wanted, asdict(sampling), teacher.name])
    saved = effort.checkpoint.load()
    rows = saved[0]["rows"] if saved and saved[0].get("of") == of else []
    found = [Taught(**row) for row in rows]

    def ask(question: tuple[list[Mapping[str, Any]], int]) -> Taught:
        messages, seed = question
        return _taught(messages, seed, sampling, teacher)

    with ThreadPoolExecutor(sampling.at_once, thread_name_prefix="teacher") as pool:
        while len(found) < len(wanted) and not effort.expired:
            effort.check()
            found += pool.map(ask, wanted[len(found) :][: 4 * sampling.at_once])
            effort.checkpoint.save({"of": of, "rows": [asdict(taught) for taught in found]})
            effort.progress.step(f"asking {teacher.name}", len(found), len(wanted))
    return found


def _taught(
    messages: Sequence[Mapping[str, Any]], seed: int, sampling: Sampling, teacher: Teacher
) -> Taught:
    said = teacher.answer(messages, sampling, seed)
    text = said.text.strip()
    dropped = "" if text else "empty"
    if text and said.finish != "stop":
        dropped = f"not finished: {said.finish or 'unknown'}"
    return Taught(
        messages=messages,
        answer=text,
        dropped=dropped,
        provenance={
            "teacher": teacher.name,
            "model": said.model,
            "seed": seed,
            "most_tokens": sampling.most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "finish": said.finish,
            "tokens": said.tokens,
            "question_sha256": digest_json(list(messages)),
            "answer_sha256": digest_json(text),
        },
    )


def json_lines(taught: Iterable[Taught]) -> Iterator[str]:
    """Yield what is to be learned as JSON Lines that the text formats read, provenance included.

    Example:
        >>> asked = [{"role": "user", "content": "Open?"}]
        >>> row = Taught(messages=asked, answer="9 to 5", dropped="", provenance={"teacher": "t"})
        >>> print(*json_lines([row]))  # doctest: +ELLIPSIS
        {"messages": [..., {"role": "assistant", "content": "9 to 5"}], "provenance": {...}}
    """
    for row in taught:
        if not row.dropped:
            messages = [*row.messages, {"role": "assistant", "content": row.answer}]
            line = {"messages": messages, "provenance": dict(row.provenance)}
            yield json.dumps(line, ensure_ascii=False)
