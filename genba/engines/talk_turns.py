"""Questions that are being answered, and what of them is computed next."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.talk import Ask, Finish, Piece, Said, Scored
from genba.engines.talk_choice import Chosen, choose, generator, judge
from genba.engines.talk_grammar import Grammar
from genba.engines.talk_pages import Held

#: Rows of logits that are held at a time when given tokens are scored; 25 MB for 50,000 tokens.
_SCORED_ROWS: Final = 128
_SEEN: Final = 3  # tokens that must have come before in the same order, to guess what follows


@dataclass(frozen=True, slots=True)
class Part:
    """What is computed of a question in one step."""

    tokens: Array  # int64
    past: int  # tokens before them
    pages: Sequence[int]
    wanted: int  # of these tokens, from the end: whose next token is asked for


class Turn:
    """A question that is being answered.

    Args:
        ask: The question.
        said: Takes the pieces.
        ends: Tokens that end the answer.
        grammar: What the answer must follow.
        guesses: Most tokens that are guessed and checked at a time.
    """

    def __init__(
        self, ask: Ask, said: Said, ends: frozenset[int], grammar: Grammar | None, guesses: int
    ) -> None:
        self.prompt = len(ask.tokens)
        self.room = self.prompt + ask.most
        self.held: Held | None = None
        self.stopped = False  # somebody has cancelled
        self.done = 0  # tokens whose keys and values are in the cache
        self.length = self.prompt
        self.guessed = self.right = 0
        self._ask = ask
        self._said = said
        self._ends = ends
        self._grammar = grammar
        self._chance = generator(ask)
        self._tokens = np.empty(self.room, dtype=np.int64)
        self._tokens[: self.prompt] = ask.tokens
        self._guesses = guesses
        self._memory = _Memory(ask.tokens.tolist()) if guesses else None
        self._guess: list[int] = []

    @property
    def tokens(self) -> Array:
        """All tokens so far."""
        return self._tokens[: self.length]

    @property
    def known(self) -> Array:
        """Tokens that may be looked up among what was computed before."""
        return self._tokens[: self.prompt]

    @property
    def written(self) -> int:
        """Tokens of the answer so far."""
        return self.length - self.prompt

    def part(self, most: int, guesses: int) -> Part:
        """Return what to compute next.

        Args:
            most: Most tokens of the prompt.
            guesses: Most tokens to guess.
        """
        assert self.held is not None
        left = self.tokens[self.done :]
        self._guess = []
        if len(left) > 1 and self.written == 0:  # in the prompt
            now = left[:most]
            return Part(now, self.done, self.held.pages, int(len(now) == len(left)))
        room = self.room - self.length - 1
        few = min(guesses, self._guesses, room)
        self._guess = self._memory.guess(few) if self._memory and few > 0 else []
        both = np.concatenate([left, self._guess]).astype(np.int64)
        return Part(both, self.done, self.held.pages, len(both))

    def take(self, part: Part, logits: Array, best: Array) -> bool:
        """Go on with what was computed; returns whether the answer is over."""
        if not part.wanted:
            self.done += len(part.tokens)
            return False
        before = self.length
        chosen, finish = self._choose(logits, best)
        right = len(chosen) - 1
        self.guessed += len(self._guess)
        self.right += right
        self._guess = []
        self.done = before + right
        self.say(
            Piece(
                tokens=tuple(c.token for c in chosen),
                log_probability=tuple(c.log_probability for c in chosen),
                likeliest=tuple(c.likeliest for c in chosen) if self._ask.likeliest else (),
                finish=finish,
            )
        )
        return bool(finish)

    def say(self, piece: Piece) -> None:
        """Hand a piece on; who cannot take it is not asked again."""
        try:
            self._said(piece)
        except Exception:  # noqa: BLE001  # one listener's fault is not that of all others
            self.stopped = True

    def _choose(self, logits: Array, best: Array) -> tuple[list[Chosen], Finish]:
        """Return tokens as long as what was guessed is what is chosen."""
        found: list[Chosen] = []
        for row, guess in enumerate([*self._guess, -1]):
            allowed = self._allowed(logits.shape[1])
            chosen = choose(logits[row], best[row, 0], self._ask, self._chance, allowed)
            found.append(chosen)
            finish = self._add(chosen.token)
            if finish or chosen.token != guess:
                return found, finish
        return found, ""

    def _add(self, token: int) -> Finish:
        self._tokens[self.length] = token
        self.length += 1
        if self._memory:
            self._memory.add(token)
        if token in self._ends:
            return "end"
        if self._grammar:
            self._grammar.take(token)
            if self._grammar.over:
                return "end"
        return "length" if self.length == self.room else ""

    def _allowed(self, size: int) -> Array | None:
        if self._grammar is not None:
            return self._grammar.allowed()
        if self.written >= self._ask.least:
            return None
        allowed = np.ones(size, dtype=np.bool_)
        allowed[list(self._ends)] = False
        return allowed


class Scoring:
    """Given tokens whose probabilities are asked for.

    Args:
        tokens: int64 [N], two or more.
        since: The first of them that is asked for, 1 or more.
        likeliest: Alternatives of each token.
    """

    written = 0

    def __init__(self, tokens: Array, since: int, likeliest: int) -> None:
        self.room = len(tokens) - 1  # what follows the last is not asked for
        self.held: Held | None = None
        self.stopped = False
        self.done = 0
        self.problem: Problem | None = None
        self._all = tokens
        self._since = since
        self._likeliest = likeliest
        self._found: list[float] = []
        self._alternatives: list[tuple[tuple[int, float], ...]] = []
        self._over = threading.Event()

    @property
    def tokens(self) -> Array:
        """The tokens to compute."""
        return self._all[:-1]

    @property
    def known(self) -> Array:
        """Tokens that may be looked up among what was computed before: nothing is asked of them."""
        return self._all[: self._since]

    def part(self, most: int, guesses: int) -> Part:  # noqa: ARG002  # nothing is guessed
        """Return what to compute next, at most so many tokens."""
        assert self.held is not None
        silent = max(self._since - 1 - self.done, 0)  # before the first that is asked for
        now = self.tokens[self.done :][: min(most, silent + _SCORED_ROWS)]
        return Part(now, self.done, self.held.pages, max(len(now) - silent, 0))

    def take(self, part: Part, logits: Array, best: Array) -> bool:
        """Go on with what was computed; returns whether all is known."""
        self.done += len(part.tokens)
        if part.wanted:
            asked = self._all[self.done - part.wanted + 1 : self.done + 1]
            found, alternatives = judge(logits, best, asked.tolist(), self._likeliest)
            self._found += found
            self._alternatives += alternatives
        return self.done == self.room

    def say(self, piece: Piece) -> None:
        """Learn that it is over."""
        self.problem = piece.problem
        self._over.set()

    def wait(self) -> Scored:
        """Return the probabilities when all is computed.

        Raises:
            Problem: What went wrong.
        """
        self._over.wait()
        if self.problem is not None:
            raise self.problem
        before = len(self._all) - len(self._found)
        return Scored(
            log_probability=np.concatenate([np.full(before, np.nan), self._found]),
            likeliest=(*[()] * before, *self._alternatives),
        )


@dataclass(slots=True)
class _Memory:
    """Guesses that a text goes on as it did where it was the same before.

    Source: prompt lookup decoding (Saxena 2023), the draft of speculative decoding (Leviathan et
    al. 2023) without a second model.
    """

    tokens: list[int]
    _after: dict[tuple[int, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for at in range(_SEEN, len(self.tokens)):
            self._after[tuple(self.tokens[at - _SEEN : at])] = at

    def add(self, token: int) -> None:
        self._after[tuple(self.tokens[-_SEEN:])] = len(self.tokens)
        self.tokens.append(token)

    def guess(self, count: int) -> list[int]:
        at = self._after.get(tuple(self.tokens[-_SEEN:]))
        return [] if at is None else self.tokens[at : at + count]
