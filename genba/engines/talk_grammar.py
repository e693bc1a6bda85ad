"""Answers that must follow a JSON schema: which tokens may come next, by llguidance."""

from collections.abc import Sequence
from typing import Any, Final

import llguidance
import numpy as np

from genba.core.protocols import Array
from genba.edge.vocabulary import GgufVocabulary
from genba.engines.refusal import in_short
from genba.engines.talking import refuse

#: Without it, a model may write spaces until its tokens are used up.
_HOW: Final = {"whitespace_flexible": False}
_MOST_SCHEMA: Final = 100_000  # characters


class Grammars:
    """Makes grammars for a vocabulary; the vocabulary is prepared when the first is asked for."""

    def __init__(self, vocabulary: GgufVocabulary) -> None:
        self._vocabulary = vocabulary
        self._prepared: Any = None

    def of_schema(self, schema: str) -> "Grammar":
        """Return a grammar that follows a JSON schema.

        Raises:
            Problem: G641 for a schema that cannot be followed.
        """
        if len(schema) > _MOST_SCHEMA:
            raise refuse(f"A schema of more than {_MOST_SCHEMA} characters is not followed.")
        if self._prepared is None:
            ends = list(self._vocabulary.end)
            words = llguidance.TokenizerWrapper(_Words(self._vocabulary))
            self._prepared = llguidance.LLTokenizer(words, eos_token=ends)
        try:
            written = llguidance.LLMatcher.grammar_from_json_schema(schema, defaults=_HOW)
        except ValueError as error:
            raise refuse("The schema is no JSON.", in_short(error)) from error
        matcher = llguidance.LLMatcher(self._prepared, written, log_level=0)
        if matcher.is_error():
            raise refuse("The schema cannot be followed.", matcher.get_error()[:200])
        return Grammar(matcher, self._vocabulary.size)


class Grammar:
    """Follows one answer."""

    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher = matcher
        self._size = size

    def allowed(self) -> Array:
        """Return which tokens may come next: bool [tokens]."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self._size].view(np.bool_)

    def take(self, token: int) -> None:
        """Go on behind a token."""
        self._matcher.consume_token(token)

    def follows(self, tokens: Sequence[int], *, whole: bool) -> bool:
        """Say whether a text of somebody else follows; `whole`: and is not just a beginning."""
        if self._matcher.validate_tokens(list(tokens)) < len(tokens):
            return False
        self._matcher.consume_tokens(list(tokens))
        return bool(self._matcher.is_accepting()) or not whole

    @property
    def over(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())


class _Words:
    """A vocabulary as llguidance wants to see it."""

    def __init__(self, vocabulary: GgufVocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.end[0]
        self.bos_token_id = None
        self.special_token_ids = sorted(vocabulary.control)
        special = set(self.special_token_ids)
        self.tokens: Sequence[bytes] = [
            vocabulary.bytes_of([i], special=i in special) for i in range(vocabulary.size)
        ]

    def __call__(self, text: bytes | str) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._vocabulary.encode(plain)
