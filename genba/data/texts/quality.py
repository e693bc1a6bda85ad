"""Is a plain text worth reading? The rules of Gopher, on many texts at a time.

Rae et al., Scaling language models: methods, analysis and insights from training Gopher, 2021,
appendix A1.1 and table A1. Words are split as tokenizers do it: signs are words of their own, but
for those within "3.5" or "it's". The rules on words are for texts that put spaces between them, so
they are not asked of others.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.data.texts.tokens import Tokens

LEAST_WORDS: Final = 50
MOST_WORDS: Final = 100_000
_LENGTH: Final = (3.0, 10.0)  # characters of a word on average
_SYMBOLS: Final = 0.1  # hashes, or ellipses, per word
_BULLETS: Final = 0.9  # of lines
_ELLIPSES: Final = 0.3  # of lines
_LETTERS: Final = 0.8  # of words that have a letter
_STOP_WORDS: Final = 2
STOP_WORDS: Final = ("the", "be", "to", "of", "and", "that", "have", "with")
_SAME: Final = {"lines": (0.3, 0.2), "paragraphs": (0.3, 0.2)}  # of their number, of characters
_TOP: Final = {2: 0.2, 3: 0.18, 4: 0.16}  # characters of the commonest run of so many words
_AGAIN: Final = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}  # of runs that were before
_SPACED: Final = (
    0.3  # share of characters of scripts without spaces, from which on words say little
)
_AT_ONCE: Final = 1 << 20  # bytes, unless one text is longer
#: Signs beyond ASCII that people write, as those they stand for.
_SIGNS: Final = {
    "“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "...", "\u00a0": " ", "•": "-",
}  # fmt: skip

Flags = npt.NDArray[np.bool_]
Shares = npt.NDArray[np.float64]
Found = dict[int, tuple[str, str]]
Tell = Callable[..., None]


def reasons(texts: pl.Series, wanted: pl.Series, *, english: bool = False) -> Found:
    """Return why texts are not worth reading: place -> (reason, detail).

    Args:
        texts: Any texts.
        wanted: Which of them are looked at.
        english: Whether two of the commonest English words are asked for.

    Example:
        >>> found = reasons(pl.Series(["spam " * 100, "ham"]), pl.Series([True, False]))
        >>> found[0][0]
        'one run of 2 words makes up too much of it'
    """
    places = np.flatnonzero(wanted.to_numpy())
    if not len(places):
        return {}
    chosen = texts.gather(places).str.replace_many(list(_SIGNS), list(_SIGNS.values()))
    sizes, found = chosen.str.len_bytes().to_numpy().astype(np.int64), {}
    start, held = 0, 0
    for at in range(len(chosen) + 1):
        full = at == len(chosen) or (at > start and held + int(sizes[at]) > _AT_ONCE)
        if full and at > start:
            for place, told in _judged(chosen[start:at], english=english).items():
                found[int(places[start + place])] = told
            start, held = at, 0
        if at < len(chosen):
            held += int(sizes[at])
    return found


def _judged(texts: pl.Series, *, english: bool) -> Found:
    """Judge some texts; what a cheaper rule rejects is not looked at by the next one."""
    found: Found = {}
    places = np.arange(len(texts))
    with np.errstate(divide="ignore", invalid="ignore"):
        for rule in (partial(_worded, english=english), _lined, _topped, _again):
            told: Found = {}
            some = texts.gather(places)
            rule(Tokens(some.to_list()), some, partial(_tell, told))
            found |= {int(places[at]): why for at, why in told.items()}
            places = np.setdiff1d(places, list(found))
            if not len(places):
                break
    return found


def _tell(found: Found, fails: Flags, reason: str, shows: Shares | None = None) -> None:
    """Note what fails, and by how much; who failed before keeps the first reason."""
    for at in np.flatnonzero(fails).tolist():
        found.setdefault(at, (reason, "" if shows is None else f"{shows[at]:.2f}"))


def _worded(tokens: Tokens, texts: pl.Series, tell: Tell, *, english: bool) -> None:
    """Judge the number, the length and the kind of words."""
    spaced = (texts.str.count_matches(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]")
              < texts.str.len_chars() * _SPACED).to_numpy()  # fmt: skip
    words, real = tokens.counts, tokens.counted(tokens.real)
    length = tokens.counted(tokens.real, tokens.sizes) / real
    tell(spaced & (real < LEAST_WORDS), "too few words", real.astype(np.float64))
    tell(spaced & (real > MOST_WORDS), "too many words", real.astype(np.float64))
    tell(spaced & (length < _LENGTH[0]), "words are too short", length)
    tell(spaced & (length > _LENGTH[1]), "words are too long", length)
    for sign, name in (("#", "hash signs"), ("...", "ellipses")):
        share = texts.str.count_matches(sign, literal=True).to_numpy() / words
        tell(spaced & (share > _SYMBOLS), f"too many {name}", share)
    letters = tokens.counted(tokens.lettered) / words
    tell(spaced & (letters < _LETTERS), "too few words with letters", letters)
    if english:
        tell(tokens.stop_words(STOP_WORDS) < _STOP_WORDS, "no English")


def _lined(tokens: Tokens, texts: pl.Series, tell: Tell) -> None:  # noqa: ARG001  # one form
    """Judge lines and paragraphs."""
    bullets, ellipses, lines = tokens.line_marks()
    tell(bullets / lines > _BULLETS, "lines are bullets", bullets / lines)
    tell(ellipses / lines > _ELLIPSES, "lines end in ellipses", ellipses / lines)
    for name, (most, most_characters) in _SAME.items():
        count, again, characters = tokens.same(paragraphs=name == "paragraphs")
        tell(again / count > most, f"the same {name}", again / count)
        share = characters / tokens.characters
        tell(share > most_characters, f"the same {name}", share)


def _topped(tokens: Tokens, texts: pl.Series, tell: Tell) -> None:  # noqa: ARG001  # one form
    """Judge the commonest run of words."""
    for length, most in _TOP.items():
        share = tokens.top(length) / tokens.characters
        tell(share > most, f"one run of {length} words makes up too much of it", share)


def _again(tokens: Tokens, texts: pl.Series, tell: Tell) -> None:  # noqa: ARG001  # one form
    """Judge runs of words that were there before.

    Words in any run that was there before are more than those in runs that a reader would skip, so
    only where they are too many does somebody read, word by word.
    """
    shortest = min(_AGAIN)
    if not (tokens.again(shortest) / tokens.characters > min(_AGAIN.values())).any():
        return  # who repeats little of five words repeats less of more
    for length, most in _AGAIN.items():
        for at in np.flatnonzero(tokens.again(length) / tokens.characters > most).tolist():
            share = np.zeros(len(tokens.counts))
            share[at] = _read(tokens.words(at), length) / tokens.characters[at]
            tell(share > most, f"runs of {length} words come again", share)


def _read(words: list[str], length: int) -> int:
    """Return the characters of runs that were read before; a run that was is not read twice."""
    seen: set[str] = set()
    found = at = 0
    while at < len(words) - length + 1:
        run = "".join(words[at : at + length])
        if run in seen:
            found += len(run)
            at += length
        else:
            seen.add(run)
            at += 1
    return found
