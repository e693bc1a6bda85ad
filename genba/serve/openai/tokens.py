"""Tokens and how likely they are, as the OpenAI API tells them."""

import math
from collections.abc import Sequence
from typing import Any

from genba.core.talk import Vocabulary
from genba.serve.lanes.speech import Told, Written


class Names:
    """What tokens are called; the vocabulary is known once a package was chosen."""

    def __init__(self) -> None:
        self.vocabulary: Vocabulary | None = None

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token; special ones by their name."""
        assert self.vocabulary is not None
        return self.vocabulary.bytes_of([token], special=True)

    def text(self, token: int) -> str:
        """Return a token as text; what is no whole character is replaced."""
        return self.bytes_of(token).decode("utf-8", "replace")

    def unique(self, token: int, taken: Sequence[str]) -> str:
        r"""Return a token as a key that no other one has.

        Tokens that are parts of characters all look alike as text; they are written as bytes.
        """
        text = self.text(token)
        if "\ufffd" in text or text in taken:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.bytes_of(token))
        return text


def chat_logprobs(tokens: Sequence[Written], names: Names) -> list[dict[str, Any]]:
    """Return tokens in the form of chat completions."""
    return [
        {
            **_entry(token, log, names),
            "top_logprobs": [_entry(other, p, names) for other, p in likeliest],
        }
        for token, log, likeliest in tokens
    ]


def _entry(token: int, log: float, names: Names) -> dict[str, Any]:
    spelled = names.bytes_of(token)
    return {
        "token": spelled.decode("utf-8", "replace"),
        "logprob": log,
        "bytes": list(spelled),
    }


def prompt_tokens(told: Told) -> list[Written]:
    """Return the tokens of a prompt that was scored; the first of them has no probability."""
    scored = told.scored
    if scored is None:
        return [(token, math.nan, ()) for token in told.prompt]
    best = scored.likeliest or ((),) * len(told.prompt)
    logs = scored.log_probability.tolist()
    return list(zip(told.prompt, logs, best, strict=True))


def completion_logprobs(
    tokens: Sequence[Written], names: Names, wanted: int, start: int = 0
) -> dict[str, Any]:
    """Return tokens in the form of completions.

    Args:
        tokens: In order.
        names: What they are called.
        wanted: How many alternatives of each; the token itself is among them too.
        start: Characters before the first one.
    """
    texts: list[str] = []
    offsets: list[int] = []
    tops: list[dict[str, float] | None] = []
    for token, log, likeliest in tokens:
        texts.append(names.text(token))
        offsets.append(start)
        start += len(texts[-1])
        tops.append(_top(token, log, likeliest[:wanted], names))
    return {
        "tokens": texts,
        "token_logprobs": [None if math.isnan(log) else log for _, log, _ in tokens],
        "top_logprobs": tops if wanted else None,
        "text_offset": offsets,
    }


def _top(
    token: int, log: float, likeliest: Sequence[tuple[int, float]], names: Names
) -> dict[str, float] | None:
    if math.isnan(log):
        return None
    made: dict[str, float] = {}
    for other, p in [*likeliest, *([] if token in dict(likeliest) else [(token, log)])]:
        made[names.unique(other, tuple(made))] = p
    return made
