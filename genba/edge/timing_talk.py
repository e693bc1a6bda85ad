"""Measuring a language model: the first token, tokens per second alone and together.

What a prediction is to other models, an answer of 32 tokens is here: long enough that writing it
takes longer than reading the question, short enough to be measured often. Every question is another
one, so a cache of prompts does not help more than in service.
"""

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors
from genba.core.talk import Ask, Piece, Talks
from genba.core.values import Measure
from genba.edge.texts import messages_of
from genba.edge.timing import REPEATS, load_average

ANSWER_TOKENS: Final = 32
#: How many people ask at the same time where throughput and cost are measured.
TOGETHER: Final = 4
_PATIENCE_S: Final = 120.0
_NS_PER_MS: Final = 1e6


@dataclass(slots=True)
class _Answer:
    """An answer that is being written, and when its tokens came."""

    began_ns: int
    first_ns: int = 0
    last_ns: int = 0
    tokens: int = 0
    problem: Problem | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def hear(self, piece: Piece) -> None:
        """Take a piece; on a thread of the engine."""
        now = time.perf_counter_ns()
        if piece.tokens:
            self.first_ns = self.first_ns or now
            self.last_ns = now
            self.tokens += len(piece.tokens)
        if piece.finish:
            self.problem = piece.problem
            self.done.set()


def talk_timings(engine: Talks, tensors: Tensors) -> dict[str, Measure]:
    """Measure answers of 32 tokens, one at a time and four at a time.

    Args:
        engine: A loaded engine.
        tensors: Real questions: `messages`; they are used in turn.

    Returns:
        `latency_ms_p50` and `latency_ms_p99` of an answer alone, `first_token_ms`, `tokens_per_s`
        alone; and of four at a time `tokens_per_s_together`, `cpu_ms` per answer, `rows_per_s`
        (answers); and `load`.

    Raises:
        Problem: G607 when an answer does not come within two minutes, and what the engine says.
    """
    prompts = _Prompts(engine, tensors["messages"])
    _ask(engine, prompts.take(1))  # the first one pays for buffers
    alone = [_ask(engine, prompts.take(1))[0] for _ in range(REPEATS)]
    waits = [(a.last_ns - a.began_ns) / _NS_PER_MS for a in alone]
    rates, cpu_ms = [], []
    for _ in range(REPEATS // 2):
        before, began = time.process_time_ns(), time.perf_counter_ns()
        answers = _ask(engine, prompts.take(TOGETHER))
        spent = max(a.last_ns for a in answers) - began
        cpu_ms.append((time.process_time_ns() - before) / _NS_PER_MS / len(answers))
        rates.append(sum(a.tokens for a in answers) * 1e9 / spent)
    return {
        "latency_ms_p50": _median(waits, "ms"),
        "latency_ms_p99": Measure(value=max(waits), unit="ms", n=len(waits)),
        "first_token_ms": _median([(a.first_ns - a.began_ns) / _NS_PER_MS for a in alone], "ms"),
        "tokens_per_s": _median([_rate(a) for a in alone], "tokens/s"),
        "tokens_per_s_together": _median(rates, "tokens/s"),
        "cpu_ms": _median(cpu_ms, "ms"),
        "rows_per_s": _median([rate / ANSWER_TOKENS for rate in rates], "answers/s"),
        "load": Measure(value=load_average(), unit="processes"),
    }


class _Prompts:
    """Questions as tokens, in turn."""

    def __init__(self, engine: Talks, messages: Array) -> None:
        self._tokens = [
            np.asarray(engine.vocabulary.prompt(messages_of(text)), dtype=np.int64)
            for text in messages
        ]
        self._next = 0

    def take(self, count: int) -> list[Array]:
        """Return the next questions."""
        found = [self._tokens[(self._next + at) % len(self._tokens)] for at in range(count)]
        self._next += count
        return found


def _ask(engine: Talks, prompts: Sequence[Array]) -> list[_Answer]:
    """Ask questions at the same time and wait for all answers."""
    answers = []
    for tokens in prompts:
        answer = _Answer(time.perf_counter_ns())
        answers.append(answer)
        engine.ask(Ask(tokens=tokens, most=ANSWER_TOKENS, ignore_end=True), answer.hear)
    for answer in answers:
        if not answer.done.wait(_PATIENCE_S):
            raise Problem(
                "G607",
                f"The engine {engine.name} did not answer within {_PATIENCE_S:.0f} s.",
                tries=["genba doctor", "genba explain G607"],
            )
        if answer.problem is not None:
            raise answer.problem
    return answers


def _rate(answer: _Answer) -> float:
    return answer.tokens * 1e9 / max(1, answer.last_ns - answer.began_ns)


def _median(values: Sequence[float], unit: str) -> Measure:
    return Measure(
        value=statistics.median(values),
        unit=unit,
        low=min(values),
        high=max(values),
        n=len(values),
    )
