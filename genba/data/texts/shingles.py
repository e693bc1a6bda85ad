"""Texts as sets of hashed pieces, many texts at a time and the same in every version.

Texts are made plain (no case, punctuation or spacing; every Chinese or Japanese character is a word
of its own) and laid behind each other as one array of bytes. With prefix sums of a polynomial over
it, the hash of any piece is two look-ups, so runs of characters and runs of words cost the same
(Karp and Rabin, Efficient randomized pattern-matching algorithms, 1987; here modulo 2**64 and
scrambled afterwards).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.data.splits import mix

_BASE: Final = 0x9E3779B97F4A7C55  # odd, so that it can be divided by modulo 2**64
_SPACE: Final = 0x20
_PIECE: Final = 1 << 20  # bytes worked on at a time, unless one text is longer
_UNSPACED: Final = r"[\p{Han}\p{Hiragana}\p{Katakana}]"

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shingles:
    """The pieces of texts: those of text i are `hashes[offsets[i]:offsets[i + 1]]`."""

    hashes: Hashes
    offsets: Numbers  # [texts + 1]

    def of(self, text: int) -> Hashes:
        """Return the pieces of one text."""
        return self.hashes[self.offsets[text] : self.offsets[text + 1]]

    @property
    def counts(self) -> Numbers:
        """How many pieces each text has."""
        return np.diff(self.offsets)


def plain(texts: pl.Series) -> pl.Series:
    """Return texts without case, punctuation and spacing, words apart by one space.

    Example:
        >>> plain(pl.Series(["  What's a ＰＥＲＭＩＴ?", "確認申請とは"])).to_list()
        ['what s a permit', '確 認 申 請 と は']
    """
    texts = texts.str.normalize("NFKC").str.to_lowercase()
    unspaced = texts.str.contains(_UNSPACED)
    if unspaced.any():
        apart = texts.str.replace_all(f"({_UNSPACED})", " $1 ")
        texts = apart.zip_with(unspaced, texts)
    return texts.str.replace_all(r"[^\p{L}\p{N}\p{M}]+", " ").str.strip_chars(" ")


def runs_of_characters(texts: pl.Series, length: int) -> Shingles:
    """Return every run of so many characters of plain texts; a shorter text is one run.

    Example:
        >>> found = runs_of_characters(pl.Series(["abcd", "abc", ""]), 3)
        >>> found.counts.tolist(), bool(found.hashes[0] == found.hashes[2])
        ([2, 1, 0], True)
    """
    return _cut(texts, length, words=False)


def runs_of_words(texts: pl.Series, length: int) -> Shingles:
    """Return every run of so many words of plain texts; a shorter text is one run.

    Example:
        >>> runs_of_words(pl.Series(["a bc d", "bc d"]), 2).counts.tolist()
        [2, 1]
    """
    return _cut(texts, length, words=True)


def _cut(texts: pl.Series, length: int, *, words: bool) -> Shingles:
    sizes = texts.str.len_bytes().to_numpy().astype(np.int64)
    found, counts = [], []
    for start, stop in _pieces(sizes):
        data = np.frombuffer("".join(texts[start:stop].to_list()).encode(), dtype=np.uint8)
        ends = np.cumsum(sizes[start:stop])
        hashes, count = _runs(data, ends - sizes[start:stop], ends, length, words=words)
        found.append(hashes)
        counts.append(count)
    offsets = np.concatenate([[0], *counts]).cumsum().astype(np.int64)
    hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *found])
    return Shingles(hashes=hashes, offsets=offsets)


def _pieces(sizes: Numbers) -> list[tuple[int, int]]:
    """Return stretches of texts that are worked on together."""
    found, start, held = [], 0, 0
    for at, size in enumerate(sizes.tolist()):
        if at > start and held + size > _PIECE:
            found.append((start, at))
            start, held = at, 0
        held += size
    return [*found, (start, len(sizes))] if len(sizes) else []


def _runs(
    data: npt.NDArray[np.uint8], begins: Numbers, ends: Numbers, length: int, *, words: bool
) -> tuple[Hashes, Numbers]:
    """Return the hashes of all runs, text by text, and how many each text has."""
    first, last = _units(data, begins, words=words)
    per_text = np.diff(np.searchsorted(first, [*begins.tolist(), len(data)]))
    per_text[begins == ends] = 0
    counts = np.where(per_text > length, per_text - length + 1, np.minimum(per_text, 1))
    offsets = np.cumsum(per_text) - per_text
    at = np.repeat(offsets - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    wide = np.minimum(np.repeat(per_text, counts), length)
    return hashed(data, first[at], last[at + wide - 1]), counts.astype(np.int64)


def _units(data: npt.NDArray[np.uint8], begins: Numbers, *, words: bool) -> tuple[Numbers, Numbers]:
    """Return where characters or words begin and end; none crosses from one text to another."""
    if not words:
        first = np.flatnonzero((data & 0xC0) != 0x80)  # the first bytes of UTF-8 characters
        return first, np.r_[first[1:], len(data)]
    inside = data != _SPACE
    starts = inside.copy()
    starts[1:] &= ~inside[:-1]
    border = begins[begins < len(data)]
    starts[border] |= inside[border]  # a text begins with a word
    first = np.flatnonzero(starts)
    stops = np.flatnonzero(~inside)
    last = np.r_[stops, len(data)][np.searchsorted(stops, first)]
    after = np.r_[first[1:], len(data)]
    return first, np.minimum(last, after)


def hashed(data: npt.NDArray[np.uint8], first: Numbers, last: Numbers) -> Hashes:
    """Return the hash of each piece of some bytes, from its first to behind its last one."""
    powers, inverse = _powers(1 << max(len(data), 1).bit_length())
    with np.errstate(over="ignore"):
        sums = np.zeros(len(data) + 1, dtype=np.uint64)
        np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers[: len(data)], out=sums[1:])
        return mix((sums[last] - sums[first]) * inverse[first])


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Return the powers of the base and of its inverse modulo 2**64."""
    found = []
    for base in (_BASE, pow(_BASE, -1, 1 << 64)):
        powers = np.full(count, base, dtype=np.uint64)
        powers[0] = 1
        with np.errstate(over="ignore"):
            np.multiply.accumulate(powers, out=powers)
        found.append(powers)
    return found[0], found[1]
