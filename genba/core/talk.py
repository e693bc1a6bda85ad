"""The seam of language models: an engine that writes answers piece by piece, many at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from genba.core.problem import Problem
from genba.core.protocols import Array, Tensors

#: Why an answer is over: its own end, a stop string, enough tokens, nobody reads it, or an error.
Finish = Literal["", "end", "stop", "length", "cancelled", "error"]
Words = Sequence[Mapping[str, Any]]  # messages: `role`, `content` and what the role has besides


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One question to a language model, as tokens."""

    tokens: Array  # int64 [N]: the whole prompt, template applied
    most: int = 128  # new tokens
    least: int = 0  # new tokens before an end is taken
    temperature: float = 0.0  # 0 = always the likeliest token
    top_p: float = 1.0
    seed: int | None = None  # None: another answer each time, where temperature is above 0
    end: tuple[int, ...] = ()  # tokens that end an answer, besides those of the model
    ignore_end: bool = False  # for load tests: write `most` tokens whatever comes
    likeliest: int = 0  # how many alternatives of each token are wanted with their probabilities
    schema: str | None = None  # JSON schema (draft 2020-12) that the text must follow


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Tokens that were written since the last piece; the last one has `finish`."""

    tokens: tuple[int, ...] = ()
    log_probability: tuple[float, ...] = ()  # natural logarithm, of each token
    likeliest: tuple[tuple[tuple[int, float], ...], ...] = ()  # of each token: (token, log p)
    finish: Finish = ""
    problem: Problem | None = None  # with finish "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What a model thinks of tokens that were given."""

    log_probability: Array  # float64 [N]: of each token given those before it; NaN for the first
    likeliest: tuple[tuple[tuple[int, float], ...], ...] = ()  # of each token


Said = Callable[[Piece], None]  # called on a thread of the engine, in order, never after `finish`


class Ticket(Protocol):
    """A question that is being answered."""

    def cancel(self) -> None:
        """Stop writing; a last piece with finish "cancelled" may still come. May be repeated."""
        ...


class Vocabulary(Protocol):
    """How text becomes tokens and back; see `genba.edge.vocabulary`."""

    size: int
    end: tuple[int, ...]  # tokens that end an answer

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the tokens of a text; `special`: names such as <|im_end|> in it are tokens."""
        ...

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Return the text of tokens; `special`: with the names of special tokens."""
        ...

    def bytes_of(self, tokens: Sequence[int], *, special: bool = False) -> bytes:
        """Return the bytes of tokens, which may begin or end inside a character."""
        ...

    def prompt(self, messages: Words, *, tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Return the tokens of a conversation, up to where the answer begins."""
        ...


@runtime_checkable
class Talks(Protocol):
    """An engine of a language model. It is an `Engine` too: `run` answers texts, see there."""

    name: ClassVar[str]
    vocabulary: Vocabulary
    context: int  # most tokens of prompt and answer together
    slots: int  # questions that are answered at the same time; others wait

    def ask(self, ask: Ask, said: Said) -> Ticket:
        """Begin to answer; returns at once. May be called on any thread.

        Raises:
            Problem: G640 when prompt and answer do not fit into the context, G641 for what this
                engine cannot do (it never ignores silently what was asked for).
        """
        ...

    def score(self, tokens: Array, *, likeliest: int = 0, since: int = 1) -> Scored:
        """Say how likely tokens are; waits for it. May be called on any thread.

        Args:
            tokens: int64 [N].
            likeliest: How many alternatives of each token are wanted.
            since: The first token that is asked for; NaN stands for those before it.

        Raises:
            Problem: G640 when they do not fit into the context.
        """
        ...

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer a batch of texts.

        Args:
            tensors: `messages` (object [N]: UTF-8 bytes, JSON messages or plain text of the user),
                `given` (object [N]: UTF-8 bytes of an answer that is scored instead of one being
                written, b"" where one is to be written; may be left out) and the parameters
                `max_tokens`, `temperature`, `top_p` (float32 [N]; may be left out).

        Returns:
            `answer` (object [N]: UTF-8 bytes), `log_probability` (float32 [N]: mean natural
            logarithm per token of the answer, its end included) and `tokens` (int32 [N, 2]: of
            prompt and answer).
        """
        ...

    def stats(self) -> Mapping[str, float]:
        """Return counts for monitoring: running, waiting, prompt_tokens, answer_tokens, ..."""
        ...

    def close(self) -> None:
        """Free what the runtime holds; what is being written ends with "cancelled"."""
        ...
