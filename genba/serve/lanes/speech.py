"""What is wanted of a language model, who hears it being written, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from genba.core.protocols import Array
from genba.core.talk import Finish, Scored, Words

#: Of one token: its number, the logarithm of its probability, and the likeliest in its place.
Written = tuple[int, float, tuple[tuple[int, float], ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """One answer that is wanted: what the tensors of a request do not say of it."""

    words: Words = ()  # a conversation
    prompt: str | Array | None = None  # in its place: text or tokens to go on from, as they are
    tools: Sequence[Mapping[str, Any]] = ()  # that the template of the model is told of
    stop: tuple[str, ...] = ()  # texts that end the answer, and are left out of it
    end: tuple[int, ...] = ()  # tokens that end it
    seed: int | None = None
    least: int = 0  # tokens before an end is taken
    ignore_end: bool = False
    logs: bool = False  # whether the client is told the tokens and how likely they are
    likeliest: int = 0  # alternatives of each token
    schema: str | None = None  # JSON schema that the answer follows
    scored: int | None = None  # alternatives of each token of the prompt; None: it is not scored
    plain: bool = True  # words will do: a student may answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What may be said now, and the tokens that were written for it."""

    text: str = ""
    tokens: tuple[Written, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One answer, whole."""

    text: str
    finish: Finish
    blocked: bool = False  # a rail says something in place of the answer, or of the rest of it
    by: str = "model"
    sources: str = "[]"  # JSON: the passages it rests on
    prompt: Sequence[int] = ()  # tokens
    tokens: Sequence[Written] = ()
    scored: Scored | None = None  # of the prompt
    log_probability: float = 0.0  # mean of all tokens, the end included
    counted: tuple[int, int] = (0, 0)  # tokens of prompt and answer that were computed


class Listener(Protocol):
    """Who hears answers while they are written; everything is called on the event loop."""

    @property
    def spoken(self) -> bool:
        """Whether the client has got something of the answer: then nobody can begin anew."""
        ...

    def hears(self, row: int, heard: Heard, parameters: Mapping[str, str]) -> None:
        """Take the next piece of one answer; `parameters` has prediction, package and role."""
        ...

    def ends(self, told: Sequence[Told]) -> None:
        """Take the whole answers; the request is answered with what `write` makes of them."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """A request to a language model, beyond its tensors: a wish for every row."""

    wishes: Sequence[Wish] = ()  # made of the tensors where there are none
    listener: Listener | None = None
    access: frozenset[str] = frozenset()  # tags of the caller: which documents may answer
    kept: bool = True  # whether it is a prediction: captured, and open to feedback
    tokens: int = 0  # that it may need at most, prompts included, as far as that is known


@dataclass(slots=True)
class Counts:
    """Tokens of a part, for whoever counts them."""

    prompt: int = 0
    answer: int = 0
    first_s: Sequence[float] = field(default_factory=tuple)  # from the request to the first token
