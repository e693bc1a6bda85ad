"""Texts that say the same: found, grouped, never split apart.

Conversations are alike when what was asked is: most of its runs of four characters are the same.
So are those whose answers are, if the answers are long enough to be no commonplace, and those of
which one contains a good part of the other. What asks and answers what an earlier one does is a
repeat and is left out. Plain texts are alike when most of their runs of five words are the same, as
in the cleaning of large collections (Lee et al., Deduplicating training data makes language models
better, 2022), and the later one is a repeat.

Candidates come from MinHash signatures in bands (Broder, On the resemblance and containment of
documents, 1997); those of conversations are counted exactly before they count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import rensa

from genba.data.texts.shingles import Shingles, runs_of_characters, runs_of_words

ASKED: Final = 0.7  # shared part (Jaccard) of what two questions consist of, to be alike
SAID: Final = 0.8  # of two answers
TEXTS: Final = 0.75  # of two plain texts
WITHIN: Final = 0.5  # of an answer or question that stands in another text
LETTERS: Final = 4
WORDS: Final = 5
_LEAST: Final = 12  # characters of a question; shorter ones are commonplaces
_TALE: Final = 60  # characters of a question; longer ones are no commonplace, whoever asks them
_LONG: Final = 8  # words of an answer; shorter ones are commonplaces
_SLOTS: Final = 128  # of a signature
_WIDE, _NARROW = 4, 8  # slots of a band, for conversations and for plain texts
_DOUBT: Final = 0.15  # more than three standard errors of the share that signatures tell
_AT_ONCE: Final = 1 << 16  # pairs
_BESIDE: Final = 4  # texts that a text is compared with in each band, besides the first of it
_SEED: Final = 1
_CROWD: Final = 20  # texts; a larger group than this and the next is taken for chance
_CROWD_SHARE: Final = 0.1  # of all texts
_COMMON: Final = 16  # texts; a short question or a run of words that more have says nothing

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_NONE: Final = np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """What texts are compared by; everything is plain (see `shingles.plain`), one entry a text."""

    asked: pl.Series  # every message of the user and the assistant before the answer
    said: pl.Series  # the answer, or the plain text
    rejected: pl.Series
    conversation: Flags  # false: plain text

    def of(self, places: Numbers) -> "Keys":
        """Return what some of the texts are compared by."""
        return Keys(
            asked=self.asked.gather(places),
            said=self.said.gather(places),
            rejected=self.rejected.gather(places),
            conversation=self.conversation[places],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Which texts are near-duplicates of each other."""

    first: Numbers  # [N]: number of the first text of the group each one is in
    repeats: Numbers  # [M, 2]: a text and a later one that says the same
    crowded: bool  # near-duplicates chain so far that only equal questions were grouped


def groups(keys: Keys, together: Sequence[tuple[int, int]] = ()) -> Groups:
    """Find near-duplicates in about linear time.

    Args:
        keys: What is compared.
        together: Pairs of texts that belong together for another reason.

    Example:
        >>> asked = pl.Series(["how long does a permit take", "how long does a permit takes", ""])
        >>> said = pl.Series(["ten weeks", "eight weeks", "plain text"])
        >>> found = groups(
        ...     Keys(
        ...         asked=asked,
        ...         said=said,
        ...         rejected=pl.Series(["", "", ""]),
        ...         conversation=np.array([True, True, False]),
        ...     )
        ... )
        >>> found.first.tolist(), found.repeats.tolist()
        ([0, 0, 2], [])
    """
    own = np.array(together, dtype=np.int64).reshape(-1, 2)
    count = len(keys.asked)
    if not count:
        return Groups(first=np.zeros(0, dtype=np.int64), repeats=_NONE, crowded=False)
    repeats = np.concatenate([_texts(keys), _repeats(keys)])
    left = np.setdiff1d(np.arange(count), repeats[:, 1])
    equal, near = (left[pairs] for pairs in _found(keys.of(left)))
    first = joined(count, np.concatenate([own, repeats, equal, near]))
    most = max(_CROWD, int(_CROWD_SHARE * count), int(np.bincount(joined(count, own)).max()))
    crowded = bool(np.bincount(first).max() > most)
    if crowded:
        first = joined(count, np.concatenate([own, repeats, equal]))
    return Groups(first=first, repeats=repeats, crowded=crowded)


def near_pairs(keys: Keys, *, crowded: bool = False) -> Numbers:
    """Return pairs of texts that are alike, int64 [M, 2]; where it is crowded, equal ones only."""
    equal, near = _found(keys)
    return equal if crowded else np.concatenate([equal, near])


def joined(count: int, pairs: Numbers) -> Numbers:
    """Return the smallest member of each text's group: union-find, all pairs at once.

    Example:
        >>> joined(4, np.array([[0, 2], [2, 3]])).tolist()
        [0, 1, 0, 0]
    """
    first = np.arange(count, dtype=np.int64)
    while len(pairs):
        left, right = first[pairs[:, 0]], first[pairs[:, 1]]
        apart = left != right
        pairs, lower = pairs[apart], np.minimum(left, right)[apart]
        np.minimum.at(first, np.maximum(left, right)[apart], lower)
        while not np.array_equal(first, first[first]):
            first = first[first]
    return first


def _found(keys: Keys) -> tuple[Numbers, Numbers]:
    """Return pairs of conversations that ask the same, and pairs of texts that are alike."""
    at = np.flatnonzero(keys.conversation)
    asked, said = keys.asked.gather(at), keys.said.gather(at)
    telling = _telling(asked)
    long = (said.str.count_matches(" ", literal=True) >= _LONG - 1).to_numpy()
    near: tuple[Numbers, ...]
    near = (_alike(asked, ASKED, telling), _alike(said, SAID, long), _contained(said, long))
    near = (*(at[pairs] for pairs in near), _texts(keys))
    return at[_equal(asked, telling)], np.concatenate(near)


def _texts(keys: Keys) -> Numbers:
    """Return pairs of plain texts that are alike."""
    at = np.flatnonzero(~keys.conversation)
    return at[_alike_texts(keys.said.gather(at))]


def _telling(asked: pl.Series) -> Flags:
    """Say which questions are no commonplaces: not very short, nor short and asked by many."""
    size = asked.str.len_chars()
    often = pl.DataFrame({"text": asked}).select(pl.len().over("text"))["len"]
    flags: Flags = ((size >= _LEAST) & ((size >= _TALE) | (often <= _COMMON))).to_numpy()
    return flags


def _repeats(keys: Keys) -> Numbers:
    """Return pairs of conversations that differ in case, punctuation and spacing only."""
    at = np.flatnonzero(keys.conversation)
    parts = (keys.asked.gather(at), keys.said.gather(at), keys.rejected.gather(at))
    whole = pl.select(pl.concat_str(*parts, separator="\n")).to_series()
    return at[_equal(whole, (parts[1].str.len_bytes() > 0).to_numpy())]


def _equal(texts: pl.Series, counts: Flags) -> Numbers:
    """Return pairs of equal texts, each with the first of its kind, of those that count."""
    at = np.flatnonzero(counts)
    frame = pl.DataFrame({"text": texts.gather(at), "at": at})
    first = frame.select(pl.col("at").first().over("text"))["at"].to_numpy()
    again = first != at
    return np.stack([first[again], at[again]], axis=1).astype(np.int64)


def _alike(texts: pl.Series, least: float, counts: Flags) -> Numbers:
    """Return pairs of texts that share so much of their runs of characters; counted exactly."""
    at = np.flatnonzero(counts)
    found = runs_of_characters(texts.gather(at), LETTERS)
    signature = _signatures(found)
    pairs = _candidates(signature, _WIDE)
    pairs = pairs[_agree(signature, pairs) >= least - _DOUBT]
    share = np.array([_jaccard(found, one, other) for one, other in pairs.tolist()])
    return at[pairs[share >= least]] if len(pairs) else _NONE


def _alike_texts(texts: pl.Series) -> Numbers:
    """Return pairs of plain texts whose signatures agree."""
    found = runs_of_words(texts, WORDS)
    signature = _signatures(found)
    pairs = _candidates(signature, _NARROW)
    return pairs[_agree(signature, pairs) >= TEXTS]


def _agree(signature: npt.NDArray[np.uint32], pairs: Numbers) -> npt.NDArray[np.float64]:
    """Return the share of slots in which the signatures of pairs agree."""
    found = np.zeros(len(pairs))
    for at in range(0, len(pairs), _AT_ONCE):
        some = pairs[at : at + _AT_ONCE]
        found[at : at + _AT_ONCE] = (signature[some[:, 0]] == signature[some[:, 1]]).mean(axis=1)
    return found


def _signatures(found: Shingles) -> npt.NDArray[np.uint32]:
    if len(found.offsets) < 2:
        return np.zeros((0, _SLOTS), dtype=np.uint32)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        found.hashes, found.offsets.astype(np.uint64), _SLOTS, _SEED
    )
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _candidates(signature: npt.NDArray[np.uint32], wide: int) -> Numbers:
    """Return pairs that agree in a band: each with the first and with a few before it.

    Texts that agree stand in the order of their whole signatures, whatever order they came in, so
    that a later look at the same texts finds the same pairs.
    """
    found = [_NONE]
    place = _ranks(signature)
    for band in range(0, _SLOTS, wide):
        slots = np.ascontiguousarray(signature[:, band : band + wide])
        whole = slots.view(np.dtype((np.void, slots.shape[1] * 4))).ravel()
        order = place[np.argsort(whole[place], kind="stable")]
        same = np.r_[False, whole[order][1:] == whole[order][:-1]]
        if not same.any():
            continue
        leader = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        here = np.flatnonzero(same)
        found.append(np.stack([order[leader[here]], order[here]], axis=1))
        for before in range(1, _BESIDE + 1):
            near = here[here - before >= leader[here]]
            found.append(np.stack([order[near - before], order[near]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0) if len(pairs) else _NONE


def _ranks(signature: npt.NDArray[np.uint32]) -> Numbers:
    """Return texts in the order of their signatures; equal ones as they came."""
    whole = np.ascontiguousarray(signature).view(np.dtype((np.void, _SLOTS * 4))).ravel()
    return np.argsort(whole, kind="stable").astype(np.int64)


def _jaccard(found: Shingles, one: int, other: int) -> float:
    left, right = np.unique(found.of(one)), np.unique(found.of(other))
    both = len(np.intersect1d(left, right, assume_unique=True))
    return both / max(len(left) + len(right) - both, 1)


def _contained(texts: pl.Series, counts: Flags) -> Numbers:
    """Return pairs of which one has a good part of the other, by rare runs of words."""
    at = np.flatnonzero(counts)
    found = runs_of_words(texts.gather(at), _LONG)
    owner = np.repeat(np.arange(len(at)), found.counts)
    order = np.lexsort((owner, found.hashes))
    hashes, owner = found.hashes[order], owner[order]
    once = np.r_[True, (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])][: len(owner)]
    hashes, owner = hashes[once], owner[once]
    often = np.unique(hashes, return_counts=True)[1]
    rare = np.repeat(often <= _COMMON, often)
    hashes, owner = hashes[rare], owner[rare]
    shared = [np.zeros(0, dtype=np.int64)]
    for behind in range(1, min(_COMMON, len(owner))):
        same = hashes[behind:] == hashes[:-behind]
        shared.append(owner[:-behind][same] * len(at) + owner[behind:][same])
    pairs, both = np.unique(np.concatenate(shared), return_counts=True)
    one, other = np.divmod(pairs, max(len(at), 1))
    enough = both >= WITHIN * np.minimum(found.counts[one], found.counts[other])
    kept: Numbers = at[np.stack([one[enough], other[enough]], axis=1)]
    return kept
