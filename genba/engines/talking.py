"""What engines of language models have in common: checks, texts in and out, one thread."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors
from genba.core.talk import Ask, Finish, Piece, Talks
from genba.edge.texts import as_text, messages_of
from genba.engines.batches import row_count
from genba.engines.refusal import in_short

_MESSAGES: Final = "messages"
_GIVEN: Final = "given"
_PARAMETERS: Final = {"max_tokens": 128.0, "temperature": 0.0, "top_p": 1.0}


def refuse(what: str, why: str = "") -> Problem:
    """Return the Problem of a question that asks for what this engine cannot do."""
    return Problem("G641", what, why=why, tries=["leave it out", "genba explain G641"])


def check_ask(ask: Ask, *, context: int, size: int) -> None:
    """Refuse a question that cannot be answered whole.

    Args:
        ask: The question.
        context: Most tokens of prompt and answer together.
        size: How many tokens the vocabulary has.

    Raises:
        Problem: G640 when it does not fit into the context, G602 for what is no token or no
            usable number.
    """
    tokens = np.asarray(ask.tokens)
    check_tokens(tokens, size)
    if ask.most < 1 or len(tokens) + ask.most > context:
        raise too_long(len(tokens), ask.most, context)
    usable = ask.temperature >= 0 and 0 < ask.top_p <= 1 and 0 <= ask.least <= ask.most
    if not usable or ask.likeliest < 0:
        raise Problem(
            "G602",
            "A number of the question is outside of what is possible.",
            why=f"temperature {ask.temperature}, top_p {ask.top_p}, least {ask.least}, "
            f"likeliest {ask.likeliest}",
            tries=["temperature 0 or more, top_p above 0 and at most 1", "genba explain G602"],
        )


def too_long(prompt: int, answer: int, context: int) -> Problem:
    """Return the Problem of what does not fit into the context; all in tokens."""
    return Problem(
        "G640",
        f"The prompt has {prompt} tokens and the answer may have {answer}; "
        f"together there is room for {context}.",
        tries=["ask for a shorter answer", "shorten the conversation", "genba explain G640"],
    )


def broken(error: Exception) -> Problem:
    """Return the Problem of a runtime that fails while it answers."""
    return Problem(
        "G644",
        "The runtime of the language model failed while it was answering.",
        why=in_short(error),
        tries=["ask again", "genba explain G644"],
    )


def at_least(settings: Any, **lowest: float) -> None:
    """Refuse settings below what is possible; raises Problem G103.

    Args:
        settings: What was chosen.
        lowest: The lowest possible value by name.
    """
    for name, least in lowest.items():
        value = getattr(settings, name)
        if value < least:
            raise Problem(
                "G103",
                f"engine.settings.{name} must be {least} or more, not {value}.",
                tries=[f"{name} = {least}"],
            )


def check_tokens(tokens: Array, size: int) -> None:
    """Refuse what are not tokens; raises Problem G602."""
    whole = tokens.ndim == 1 and tokens.dtype.kind in "iu" and len(tokens) > 0
    if not whole or tokens.min() < 0 or tokens.max() >= size:
        raise Problem(
            "G602",
            f"Tokens are whole numbers from 0 to {size - 1}, at least one of them.",
            tries=["encode the text with the vocabulary of this model", "genba explain G602"],
        )


@dataclass
class Collected:
    """An answer as it comes together; hand its `said` to `Talks.ask` and wait."""

    tokens: list[int] = field(default_factory=list)
    log_probability: list[float] = field(default_factory=list)
    likeliest: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    finish: Finish = ""
    problem: Problem | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    def said(self, piece: Piece) -> None:
        """Take a piece."""
        self.tokens += piece.tokens
        self.log_probability += piece.log_probability
        self.likeliest += piece.likeliest
        if piece.finish:
            self.finish, self.problem = piece.finish, piece.problem
            self._done.set()

    def wait(self, seconds: float | None = None) -> "Collected":
        """Return when the answer is over; raises what stopped it.

        Raises:
            Problem: The one of the last piece, where it has one.
            TimeoutError: When it takes longer than so many seconds.
        """
        if not self._done.wait(seconds):
            raise TimeoutError(f"no answer within {seconds} s")
        if self.problem is not None:
            raise self.problem
        return self


def ask_and_wait(talks: Talks, ask: Ask, seconds: float | None = None) -> Collected:
    """Return a whole answer."""
    collected = Collected()
    talks.ask(ask, collected.said)
    return collected.wait(seconds)


def answer_texts(talks: Talks, tensors: Tensors) -> dict[str, Array]:
    """Answer a batch of texts, see `genba.core.talk.Talks.run`.

    Raises:
        Problem: G602 when the tensors are not those of the signature, G640 when one does not fit.
    """
    rows = _columns(tensors)
    count = len(rows[_MESSAGES])
    answers = np.empty(count, dtype=object)
    log_probability = np.zeros(count, dtype=np.float32)
    tokens = np.zeros((count, 2), dtype=np.int32)
    waiting: list[tuple[int, Collected]] = []
    for row in range(count):
        prompt = talks.vocabulary.prompt(messages_of(rows[_MESSAGES][row]))
        given = as_text(rows[_GIVEN][row])
        if given:
            answers[row] = given.encode()
            log_probability[row], length = _score_given(talks, prompt, given)
            tokens[row] = len(prompt), length
            continue
        collected = Collected()
        ask = Ask(
            tokens=np.array(prompt, dtype=np.int64),
            most=int(rows["max_tokens"][row]),
            temperature=float(rows["temperature"][row]),
            top_p=float(rows["top_p"][row]),
        )
        talks.ask(ask, collected.said)
        tokens[row, 0] = len(prompt)
        waiting.append((row, collected))
    for row, collected in waiting:
        collected.wait()
        answers[row] = talks.vocabulary.decode(collected.tokens).encode()
        log_probability[row] = _mean(collected.log_probability)
        tokens[row, 1] = len(collected.tokens)
    return {"answer": answers, "log_probability": log_probability, "tokens": tokens}


def _columns(tensors: Tensors) -> dict[str, Array]:
    known = {_MESSAGES, _GIVEN, *_PARAMETERS}
    if _MESSAGES not in tensors or not tensors.keys() <= known:
        raise Problem(
            "G602",
            f"A language model takes {', '.join(sorted(known))}, not {', '.join(sorted(tensors))}.",
            tries=["name the tensors as the signature does", "genba explain G602"],
        )
    rows = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    count = row_count(rows)
    rows.setdefault(_GIVEN, np.full(count, b"", dtype=object))
    for name, value in _PARAMETERS.items():
        rows.setdefault(name, np.full(count, value, dtype=np.float32))
    shapes = {name: tensor.shape for name, tensor in rows.items() if tensor.ndim != 1}
    kinds = [rows[name].dtype.kind in "fiu" for name in _PARAMETERS]
    if shapes or not all(kinds):
        raise Problem(
            "G602",
            "Every tensor of a language model has one value for each row, parameters numbers.",
            why=", ".join(f"{n}: {t.dtype} {t.shape}" for n, t in rows.items()),
            tries=["compare the tensors with the signature", "genba explain G602"],
        )
    return rows


def _mean(log_probability: Sequence[float]) -> float:
    """Return the mean of what is known: an engine may not tell it of every token (NaN)."""
    known = [value for value in log_probability if not math.isnan(value)]
    return sum(known) / len(known) if known else 0.0


def _score_given(talks: Talks, prompt: Sequence[int], given: str) -> tuple[float, int]:
    """Return the mean logarithm per token of a given answer, its end included, and their count."""
    answer = talks.vocabulary.encode(given)
    answer += talks.vocabulary.end[:1]
    scored = talks.score(np.array([*prompt, *answer], dtype=np.int64), since=len(prompt))
    return float(np.mean(scored.log_probability[len(prompt) :])), len(answer)
