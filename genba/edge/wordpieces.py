"""Text as pieces of words: what a sentence encoder reads.

Wu et al., "Google's neural machine translation system", 2016 (WordPiece); cleaning and splitting as
Devlin et al., "BERT", NAACL 2019. The library does the work; what it is told comes from a small
description of our own in the graph's metadata, never from a configuration file of somebody else.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from genba.core.problem import Problem

_UNKNOWN: Final = "[UNK]"
_BEGIN, _END = "[CLS]", "[SEP]"
_MOST_WORDS: Final = 1 << 20
_MOST_PIECES: Final = 8_192
_CHARACTERS: Final = 32  # per piece that may be kept: what is behind them is cut before reading


class WordPieces:
    """Turns texts into numbers of pieces.

    Args:
        description: JSON: `words` (one per line, in the order of their numbers), `lowercase` and
            `most` (pieces of a text, its begin and end included).

    Raises:
        Problem: G580 when the description is not one.
    """

    def __init__(self, description: str) -> None:
        words, lowercase, most = _checked(description)
        numbers = {word: number for number, word in enumerate(words)}
        self._begin, self._end = numbers[_BEGIN], numbers[_END]
        self._kept = most - 2
        self._pieces = Tokenizer(models.WordPiece(numbers, unk_token=_UNKNOWN))
        self._pieces.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        self._pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def read(self, texts: Sequence[bytes | str]) -> list[list[int]]:
        """Return the numbers of each text's pieces; a long text is cut.

        Args:
            texts: UTF-8 where they are bytes; what is no UTF-8 is replaced.
        """
        return [self._one(text) for text in texts]

    def pieces(self, text: str) -> list[tuple[int, int]]:
        """Return where each piece of a text begins and ends, in characters."""
        found = self._pieces.encode(text[: _CHARACTERS * self._kept])
        return [(int(first), int(behind)) for first, behind in found.offsets[: self._kept]]

    def _one(self, text: bytes | str) -> list[int]:
        if isinstance(text, bytes):
            text = text[: 4 * _CHARACTERS * self._kept].decode("utf-8", "replace")
        found = self._pieces.encode(text[: _CHARACTERS * self._kept])
        return [self._begin, *found.ids[: self._kept], self._end]


def _checked(description: str) -> tuple[list[str], bool, int]:
    try:
        body: Any = json.loads(description)
        words, lowercase, most = body["words"].split("\n"), body["lowercase"], body["most"]
        _require(0 < len(words) <= _MOST_WORDS, "no words, or too many")
        _require(len(set(words)) == len(words), "a word twice")
        _require({_UNKNOWN, _BEGIN, _END} <= set(words), "no unknown, no begin or no end")
        _require(isinstance(lowercase, bool), "`lowercase` is neither true nor false")
        _require(type(most) is int and 2 < most <= _MOST_PIECES, "`most` is out of range")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(
            "G580",
            "The graph does not say how text is read.",
            why=f"{type(error).__name__}: {error}",
            tries=["genba run LINE", "genba explain G580"],
        ) from error
    return words, lowercase, most


def _require(fact: bool, what: str) -> None:
    if not fact:
        raise ValueError(what)
