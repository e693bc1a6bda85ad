"""Words, lines and paragraphs of many texts at once, as places in one array of bytes."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.data.splits import mix
from genba.data.texts.shingles import hashed

_BREAK: Final = 0x0A
_SPACE, _WORD, _SIGN, _LETTER = 0, 1, 2, 3

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]


def _classes() -> npt.NDArray[np.uint8]:
    """Return what each byte is; what is beyond ASCII is a letter."""
    kinds = np.full(256, _SIGN, dtype=np.uint8)
    kinds[[0x20, 0x09, 0x0A, 0x0B, 0x0C, 0x0D]] = _SPACE
    kinds[0x30:0x3A] = _WORD
    kinds[[*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0x80, 0x100)]] = _LETTER
    kinds[[0x27, 0x5F]] = _WORD  # ' and _ are within words
    return kinds


_CLASS: Final = _classes()
#: Signs that do not end a word between letters: "3.5", "a@b"; others do: "and/or", "a:b", "x-ray".
_JOINS: Final = (_CLASS == _SIGN) & ~np.isin(np.arange(256), np.frombuffer(b",:<>=/-~", np.uint8))


class Tokens:
    """The words of texts.

    Args:
        texts: Together no more than a few megabytes.

    Attributes:
        counts: Words and signs of each text.
        characters: Characters of each text.
        sizes: Characters of each word.
        real: Whether a word is no sign.
        lettered: Whether a word has a letter.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        raw = [text.encode() for text in texts]
        self._data = np.frombuffer(b"\n".join(raw), dtype=np.uint8)
        lengths = np.array([len(data) for data in raw], dtype=np.int64)
        self._ends = np.cumsum(lengths + 1) - 1
        self._begins = self._ends - lengths
        self._texts = texts
        kinds = _CLASS[self._data]
        inside = _within(self._data, kinds)
        starts = inside.copy()
        starts[1:] &= ~inside[:-1]
        other = np.ones(len(self._data), dtype=bool)
        other[1:] = (self._data[1:] != self._data[:-1]) | inside[:-1]
        signs = (kinds == _SIGN) & ~inside
        starts |= signs & other  # "----" is one word
        self.first = np.flatnonzero(starts)
        stops = np.flatnonzero(~inside)
        ends = np.append(stops, len(self._data))[np.searchsorted(stops, self.first)]
        changes = np.append(np.flatnonzero(other), len(self._data))
        same = changes[np.searchsorted(changes, self.first, side="right")]
        self.last = np.where(signs[self.first], same, ends)
        self._chars = np.zeros(len(self._data) + 1, dtype=np.int64)
        np.cumsum((self._data & 0xC0) != 0x80, out=self._chars[1:])
        lettered = np.zeros(len(self._data) + 1, dtype=np.int64)
        np.cumsum(kinds == _LETTER, out=lettered[1:])
        self.characters = self._chars[self._ends] - self._chars[self._begins]
        self.sizes = self._chars[self.last] - self._chars[self.first]
        self.real = ~signs[self.first]
        self.lettered = lettered[self.last] > lettered[self.first]
        self._bounds = np.searchsorted(self.first, np.append(self._begins, len(self._data) + 1))
        self.counts = np.diff(self._bounds)
        self._owner = np.repeat(np.arange(len(texts)), self.counts)

    @cached_property
    def hashes(self) -> Hashes:
        """The hash of each word."""
        return hashed(self._data, self.first, self.last)

    def counted(self, flags: Flags, weight: Numbers | None = None) -> Numbers:
        """Return how many words of each text are flagged, or what those weigh together."""
        given = flags if weight is None else np.where(flags, weight, 0)
        return np.bincount(self._owner, weights=given, minlength=len(self._texts)).astype(np.int64)

    def words(self, text: int) -> list[str]:
        """Return the words of one text."""
        start, some = self._begins[text], slice(self._bounds[text], self._bounds[text + 1])
        data = self._data[start : self._ends[text]].tobytes()
        pairs = zip(
            (self.first[some] - start).tolist(), (self.last[some] - start).tolist(), strict=True
        )
        return [data[begin:end].decode() for begin, end in pairs]

    def stop_words(self, words: Sequence[str]) -> Numbers:
        """Return how many different ones of a few words each text has."""
        data = np.frombuffer("".join(words).encode(), dtype=np.uint8)
        ends = np.cumsum([len(word) for word in words])
        wanted = hashed(data, ends - [len(word) for word in words], ends)
        found = np.zeros(len(self._texts), dtype=np.int64)
        for word in wanted:
            found += np.bincount(self._owner[self.hashes == word], minlength=len(found)) > 0
        return found

    def line_marks(self) -> tuple[Numbers, Numbers, Numbers]:
        """Return how many lines begin with a bullet, end with an ellipsis, and are there."""
        begins, ends, owner = self._lines()
        solid = np.flatnonzero(_CLASS[self._data] != _SPACE)
        if not len(solid):
            none = np.zeros(len(self._texts), dtype=np.int64)
            return none, none, np.maximum(none, 1)
        at = np.searchsorted(solid, begins)
        first = solid[np.minimum(at, len(solid) - 1)]
        bullet = (at < len(solid)) & (first < ends) & (self._data[first] == ord("-"))
        last = solid[np.maximum(np.searchsorted(solid, ends) - 1, 0)]
        ellipsis = (last >= begins + 2) & (last < ends)
        for back in range(3):
            ellipsis &= self._data[np.maximum(last - back, 0)] == ord(".")
        count = np.maximum(self._summed(owner, np.ones(len(owner))), 1)
        return self._summed(owner, bullet), self._summed(owner, ellipsis), count

    def same(self, *, paragraphs: bool) -> tuple[Numbers, Numbers, Numbers]:
        """Return how many lines or paragraphs there are, were there before, and their characters.

        What is empty is none.
        """
        begins, ends, owner = self._lines(paragraphs=paragraphs)
        keys = hashed(self._data, begins, ends) ^ mix(owner.astype(np.uint64))
        again = _again(keys)
        size = self._chars[ends] - self._chars[begins]
        count = np.maximum(self._summed(owner, np.ones(len(owner))), 1)
        return count, self._summed(owner, again), self._summed(owner, np.where(again, size, 0))

    def top(self, length: int) -> Numbers:
        """Return the characters of all places of the commonest run of words of each text."""
        runs, owner, begin = self._runs(length)
        found = np.zeros(len(self._texts), dtype=np.int64)
        if not len(runs):
            return found
        order = np.argsort(runs, kind="stable")
        starts = np.flatnonzero(np.append(True, runs[order][1:] != runs[order][:-1]))
        often = np.diff(np.append(starts, len(order)))
        place = order[starts]  # the first place of each run
        text, at = owner[place], begin[place]
        size = self._spans[at + length] - self._spans[at] + length - 1
        ranked = np.lexsort((place, -often, text))
        leads = np.flatnonzero(np.append(True, text[ranked][1:] != text[ranked][:-1]))
        best = ranked[leads]
        found[text[best]] = often[best] * size[best]
        return found

    def again(self, length: int) -> Numbers:
        """Return the characters of words that stand in a run that was there before."""
        runs, _, begin = self._runs(length)
        marks = np.zeros(len(self.first) + 1, dtype=np.int64)
        places = begin[_again(runs)]
        np.add.at(marks, places, 1)
        np.add.at(marks, np.minimum(places + length, len(self.first)), -1)
        covered = np.cumsum(marks)[:-1] > 0
        return self.counted(covered, self.sizes)

    @cached_property
    def _spans(self) -> Numbers:
        return np.append(0, np.cumsum(self.sizes))

    def _runs(self, length: int) -> tuple[Hashes, Numbers, Numbers]:
        """Return the hash of every run of words, its text, and the place of its first word."""
        count = len(self.first) - length + 1
        if count < 1:
            none = np.zeros(0, dtype=np.int64)
            return none.astype(np.uint64), none, none
        runs = np.zeros(count, dtype=np.uint64)
        with np.errstate(over="ignore"):
            for at in range(length):
                runs = runs * np.uint64(0x9E3779B97F4A7C55) + self.hashes[at : at + count]
        whole = np.flatnonzero(self._owner[:count] == self._owner[length - 1 :])
        owner = self._owner[:count][whole]
        return mix(runs[whole]) ^ mix(owner.astype(np.uint64)), owner, whole

    def _lines(self, *, paragraphs: bool = False) -> tuple[Numbers, Numbers, Numbers]:
        """Return where lines or paragraphs that are not empty begin and end, and their texts."""
        breaks = np.flatnonzero(self._data == _BREAK)
        if paragraphs:
            double = np.flatnonzero(np.diff(breaks) == 1)
            breaks = np.unique(np.append(breaks[double], breaks[double + 1]))
        begins = np.unique(np.concatenate([self._begins, breaks + 1]))
        begins = begins[begins < len(self._data)]
        owner = np.searchsorted(self._ends, begins, side="right")
        at = np.searchsorted(breaks, begins)
        ends = np.minimum(np.append(breaks, len(self._data))[at], self._ends[owner])
        some = ends > begins
        return begins[some], ends[some], owner[some]

    def _summed(self, owner: Numbers, values: npt.NDArray[np.generic]) -> Numbers:
        found = np.bincount(owner, weights=values.astype(np.float64), minlength=len(self._texts))
        return found.astype(np.int64)


def _within(data: npt.NDArray[np.uint8], kinds: npt.NDArray[np.uint8]) -> Flags:
    """Say which bytes are of words: letters, digits, and a sign between two of them."""
    found: Flags = (kinds == _WORD) | (kinds == _LETTER)
    if len(data) > 2:
        found[1:-1] |= _JOINS[data[1:-1]] & found[:-2] & found[2:]
    return found


def _again(keys: Hashes) -> Flags:
    """Say which keys were there before.

    Example:
        >>> _again(np.array([3, 1, 3, 3], dtype=np.uint64)).tolist()
        [False, False, True, True]
    """
    order = np.argsort(keys, kind="stable")
    found = np.zeros(len(keys), dtype=bool)
    found[order[1:]] = keys[order][1:] == keys[order][:-1]
    return found
