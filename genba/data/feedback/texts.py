"""What people say about answers in words: good, bad, a better answer, another that they prefer.

To the rest of the house a label is a number. Here 0 is bad, 1 is good, and every better answer is a
number of its own, the same for the same words: so people agree on an answer exactly if their
numbers are equal.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal

from genba.core.codec import nearest
from genba.core.problem import Problem

Kind = Literal["good", "bad", "answer", "prefer"]

#: What can be said, to show to people.
WORDS: Final = ("good", "bad", "answer: …", "prefer: …")
BAD: Final = 0.0
GOOD: Final = 1.0
#: Words for the thumbs, as pages and clients send them.
_THUMBS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("good", "up", "yes", "like", "ok", "👍", "+1", "良い"), "good"),
    **dict.fromkeys(("bad", "down", "no", "dislike", "wrong", "👎", "-1", "悪い"), "bad"),
}
_TEXTS: Final[dict[str, Kind]] = {"answer": "answer", "prefer": "prefer"}
_BITS: Final = 48  # of a digest: exact in a float64, and no two answers alike by chance


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """One thing somebody said about an answer."""

    kind: Kind
    text: str = ""  # the better answer


def spoken(value: str) -> Spoken:
    """Understand what somebody said.

    Raises:
        Problem: G801 when it is none of `WORDS`.

    Example:
        >>> spoken("answer: We open at 9.")
        Spoken(kind='answer', text='We open at 9.')
        >>> spoken("👍").kind
        'good'
    """
    head, colon, text = value.partition(":")
    word = head.strip().lower()
    if colon and word in _TEXTS and text.strip():
        return Spoken(kind=_TEXTS[word], text=text.strip())
    if not colon and word in _THUMBS:
        return Spoken(kind=_THUMBS[word])
    near = nearest(word, (*_THUMBS, *_TEXTS))
    raise Problem(
        "G801",
        f"{value[:80]!r} is nothing that can be said about an answer"
        + (f"; did you mean {near}?" if near else "."),
        why=f"Known: {', '.join(WORDS)}; behind the colon stands the better answer.",
        tries=["value = good", "value = answer: We open at 9."],
    )


def label_of(value: str) -> float:
    """Return what somebody said as a number; see this module.

    Raises:
        Problem: G801 when it is none of `WORDS`.

    Example:
        >>> label_of("good"), label_of("bad"), label_of("answer: A") == label_of("prefer:  a ")
        (1.0, 0.0, True)
    """
    said = spoken(value)
    if said.text:
        return of_text(said.text)
    return GOOD if said.kind == "good" else BAD


def of_text(text: str) -> float:
    """Return the number of an answer: case, width and space make no difference."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return 2.0 + (int.from_bytes(sha256(plain.encode()).digest()[:8], "big") >> (64 - _BITS))


def outcome_of(label: float) -> str:
    """Say how a label judges the answer it is about, in the words of `Task.outcome`."""
    return "confirmed" if label == GOOD else "wrong"


def against(one: float, other: float) -> bool:
    """Say whether two labels contradict each other: bad and a better answer do not.

    Example:
        >>> against(GOOD, BAD), against(BAD, label_of("answer: x"))
        (True, False)
    """
    return one != other and not (BAD in (one, other) and GOOD not in (one, other))


def settled(labels: Iterable[float]) -> float | None:
    """Return the label that people agree on; None where they do not.

    A better answer needs more voices than every other answer and than the one that was given has;
    who only says that it is bad speaks against no better one.

    Args:
        labels: The last word of each author.

    Example:
        >>> better = label_of("answer: We open at 9.")
        >>> settled([BAD, better]) == better, settled([GOOD, better]), settled([GOOD, GOOD, BAD])
        (True, None, 1.0)
    """
    counts = Counter(labels)
    good, bad = counts.pop(GOOD, 0), counts.pop(BAD, 0)
    ranked = counts.most_common(2)
    if not ranked:
        return None if good == bad else GOOD if good > bad else BAD
    label, voices = ranked[0]
    rivals = [good, *(count for _, count in ranked[1:])]
    if voices > max(rivals):
        return label
    return GOOD if good > bad + sum(counts.values()) else None
