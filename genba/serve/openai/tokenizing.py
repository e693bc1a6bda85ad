"""Tokens of a text, as evaluations ask for them: `/tokenize`, `/detokenize`, `/tokenizer_info`.

These addresses are those of vLLM's server. With them `lm-eval` needs no tokenizer of its own
(`tokenizer_backend=remote`). A request may name its `model`; without that there must be one only.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from genba.core.problem import Problem
from genba.core.talk import Talks
from genba.serve.http.request import Request
from genba.serve.http.responses import MISTAKE, Refusal, encode_json, overloaded
from genba.serve.lanes.service import Service
from genba.serve.lanes.talk import TalkLane
from genba.serve.openai.chat import Message
from genba.serve.openai.fields import Name, bad_field

if TYPE_CHECKING:
    from genba.serve.http.routes import App

_ROUTE: Final = "tokenize"
Tokens = list[Annotated[int, msgspec.Meta(ge=0, le=2**31)]]


class TokenizeRequest(msgspec.Struct, frozen=True):
    """The body of a request for tokens."""

    model: Name | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = False
    add_generation_prompt: bool = True
    return_token_strs: bool = False

    def checked(self) -> "TokenizeRequest":
        """Return the request itself if it can be answered.

        Raises:
            Refusal: 400 for what it cannot have.
        """
        if (self.prompt is None) == (self.messages is None):
            raise bad_field("Either prompt or messages is given.", "prompt")
        if not self.add_generation_prompt:
            raise bad_field(
                "add_generation_prompt is always true here.", "add_generation_prompt", code="G782"
            )
        return self


class DetokenizeRequest(msgspec.Struct, frozen=True):
    """The body of a request for text."""

    tokens: Tokens
    model: Name | None = None


def tokenized(app: "App", request: Request, service: Service, asked: TokenizeRequest) -> None:
    """Answer with tokens."""
    _aside(app, request, service, partial(_tokens, asked.checked()))


def detokenized(app: "App", request: Request, service: Service, asked: DetokenizeRequest) -> None:
    """Answer with text."""
    _aside(app, request, service, partial(_text, asked.tokens))


def told(talks: Talks) -> dict[str, Any]:
    """Return what is known of a vocabulary."""
    vocabulary = talks.vocabulary
    first = getattr(vocabulary, "first", ())
    return {
        "tokenizer_class": type(vocabulary).__name__,
        "eos_token": vocabulary.decode(vocabulary.end[:1], special=True),
        "bos_token": vocabulary.decode(first, special=True) if first else None,
        "vocab_size": vocabulary.size,
        "max_model_len": talks.context,
    }


def _tokens(asked: TokenizeRequest, talks: Talks) -> dict[str, Any]:
    vocabulary = talks.vocabulary
    if asked.messages is not None:
        words = [m.words(f"messages[{i}]") for i, m in enumerate(asked.messages)]
        tokens = vocabulary.prompt(words)
    else:
        tokens = vocabulary.encode(asked.prompt or "", special=True)
        if asked.add_special_tokens:
            tokens = [*getattr(vocabulary, "first", ()), *tokens]
    names = [vocabulary.decode([token], special=True) for token in tokens]
    return {
        "count": len(tokens),
        "max_model_len": talks.context,
        "tokens": tokens,
        "token_strs": names if asked.return_token_strs else None,
    }


def _text(tokens: list[int], talks: Talks) -> dict[str, Any]:
    return {"prompt": talks.vocabulary.decode(tokens, special=True)}


def _aside(
    app: "App", request: Request, service: Service, work: Callable[[Talks], dict[str, Any]]
) -> None:
    """Do something on a thread of the lane and answer with it."""
    lane, talks = service.lane, service.model.talks
    assert isinstance(lane, TalkLane)
    assert talks is not None
    if not lane.aside(partial(work, talks), partial(_answer, app, request)):
        raise overloaded("Too many requests for tokens are waiting.")


def _answer(app: "App", request: Request, found: Any, error: Exception | None) -> None:
    if error is None:
        app.answer(request, _ROUTE, 200, encode_json(found))
        return
    refusal = MISTAKE
    if isinstance(error, Refusal):
        refusal = error
    elif isinstance(error, Problem):
        refusal = Refusal(400, error.code, error.what)
    app.metrics.refused(_ROUTE, refusal, trace=request.trace)
    request.refuse(refusal)
