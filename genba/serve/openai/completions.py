"""`POST /v1/completions`: text or tokens in, how they go on out; and how likely the prompt is.

With `echo` and `logprobs` the prompt itself is scored, which is how evaluations such as `lm-eval`
compare answers. Such a request with at most one new token is a measurement and no prediction: it is
neither captured nor open to feedback.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec
import numpy as np

from genba.core.protocols import Array
from genba.serve.lanes.speech import Heard, Told, Wish
from genba.serve.openai.calls import About, Event, reason, usage
from genba.serve.openai.fields import (
    Count,
    Few,
    Heat,
    Name,
    Seed,
    Share,
    Stop,
    StreamOptions,
    bad_field,
    stops,
)
from genba.serve.openai.tokens import Names, completion_logprobs, prompt_tokens

_TOP: Final = 20
_PROMPTS: Final = 256
Tokens = list[Annotated[int, msgspec.Meta(ge=0, le=2**31)]]


class CompletionRequest(msgspec.Struct, frozen=True):
    """The body of a request."""

    model: Name
    prompt: str | list[str | int | Tokens]
    max_tokens: Count | None = None
    temperature: Heat | None = None
    top_p: Share | None = None
    n: Few = 1
    stop: str | Stop | None = None
    seed: Seed | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=_TOP)] | None = None
    echo: bool = False
    min_tokens: Count = 0
    ignore_eos: bool = False

    @property
    def kept(self) -> bool:
        """Whether the answers are predictions, and not a measurement of the prompt."""
        measured = self.echo and self.logprobs is not None
        return not (measured and self.max_tokens is not None and self.max_tokens <= 1)

    def prompts(self) -> list[str | Array]:
        """Return the prompts.

        Raises:
            Refusal: 400 for a list that is neither texts nor tokens.
        """
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if given and all(isinstance(one, int) for one in given):
            return [np.array(given, dtype=np.int64)]
        if not 1 <= len(given) <= _PROMPTS or any(isinstance(one, int) for one in given):
            what = f"prompt is a text, a list of tokens, or up to {_PROMPTS} of these."
            raise bad_field(what, "prompt")
        return [p if isinstance(p, str) else np.array(p, dtype=np.int64) for p in given]


class CompletionForm:
    """How texts that go on look.

    Args:
        asked: The request.
        names: Tells what tokens are called.
    """

    done: ClassVar = True

    def __init__(self, asked: CompletionRequest, names: Names) -> None:
        self.streamed = asked.stream
        self._asked = asked
        self._names = names
        self._prompts = asked.prompts()
        if asked.stream and asked.echo:
            raise bad_field("echo and stream are not offered together.", "echo", code="G782")

    def wishes(self) -> list[Wish]:
        """Return what is wanted of the model."""
        asked = self._asked
        scored = asked.logprobs if asked.echo else None
        return [
            Wish(
                prompt=prompt,
                stop=stops(asked.stop),
                seed=None if asked.seed is None else asked.seed + number,
                least=asked.min_tokens,
                ignore_end=asked.ignore_eos,
                logs=asked.logprobs is not None,
                likeliest=asked.logprobs or 0,
                scored=scored,
            )
            for prompt in self._prompts
            for number in range(asked.n)
        ]

    def texts(self) -> list[str]:
        """Return the prompt of every answer as it is kept; tokens by their text."""
        vocabulary = self._names.vocabulary
        assert vocabulary is not None
        texts = [p if isinstance(p, str) else vocabulary.decode(p.tolist()) for p in self._prompts]
        return [text for text in texts for _ in range(self._asked.n)]

    def hears(self, row: int, heard: Heard, about: About) -> Iterator[Event]:
        """Return the events for a piece of an answer."""
        logs = self._logs(heard.tokens)
        choice = {"index": row, "text": heard.text, "logprobs": logs, "finish_reason": None}
        yield "", self._chunk(about, [choice])

    def ends(self, told: Sequence[Told], about: About) -> Iterator[Event]:
        """Return the events at the end."""
        for row, one in enumerate(told):
            choice = {"index": row, "text": "", "logprobs": None, "finish_reason": reason(one)}
            yield "", {**self._chunk(about, [choice]), "genba": about.told(one)}
        if self._asked.stream_options.include_usage:
            spent = usage(told, prompts=len(self._prompts))
            yield "", {**self._chunk(about, []), "usage": spent}

    def whole(self, told: Sequence[Told], about: About) -> dict[str, Any]:
        """Return the answers at once."""
        spent = usage(told, prompts=len(self._prompts))
        choices = [self._choice(row, one) for row, one in enumerate(told)]
        return {**self._chunk(about, choices), "usage": spent, "genba": about.told(told[0])}

    def _choice(self, row: int, told: Told) -> dict[str, Any]:
        text, tokens = told.text, list(told.tokens)
        if self._asked.echo:
            vocabulary = self._names.vocabulary
            assert vocabulary is not None
            text = vocabulary.decode(told.prompt, special=True) + text
            tokens = prompt_tokens(told) + tokens
        return {
            "index": row,
            "text": text,
            "logprobs": self._logs(tokens),
            "finish_reason": reason(told),
        }

    def _logs(self, tokens: Sequence[Any]) -> dict[str, Any] | None:
        wanted = self._asked.logprobs
        return None if wanted is None else completion_logprobs(tokens, self._names, wanted)

    def _chunk(self, about: About, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"cmpl-{about.prediction}",
            "object": "text_completion",
            "created": about.created,
            "model": about.model,
            "system_fingerprint": about.package[:16],
            "choices": choices,
        }
