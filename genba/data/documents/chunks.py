"""From documents to passages: small enough to be about one thing, whole enough to be understood."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from genba.data.documents.values import Section, Text

WORDS: Final = 120  # of a passage at most; what a sentence encoder reads of a text is not much more
_FEW: Final = 25  # words: a section this short goes together with the next one beside it
_OVERLAP: Final = 30  # words of the passage before that are said again where a text was cut
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")
_CJK: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CJK_PER_WORD: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A passage of a document."""

    place: str  # headings, or the page
    text: str


def pieces_of(text: Text, words: int = WORDS) -> list[Piece]:
    r"""Cut a document into passages that do not cross its sections.

    Args:
        text: The document.
        words: Of a passage at most; a sentence that is longer is cut.

    Example:
        >>> from genba.data.documents.values import Section
        >>> section = Section(place=("Oil",), paragraphs=("Use SAE 30. " * 3, "Not more."))
        >>> [p.text for p in pieces_of(Text(title="", sections=(section,)), 6)]
        ['Use SAE 30. Use SAE 30.', 'Use SAE 30.\nNot more.']
    """
    made: list[Piece] = []
    for section in _together(text.sections):
        place = " > ".join(part for part in section.place if part != text.title)
        made += [Piece(place=place, text=t) for t in _packed(section.paragraphs, words)]
    return made


def size(text: str) -> int:
    """Return how many words a text has; two characters of Chinese or Japanese count as one.

    Example:
        >>> size("one two"), size("電源を切る")
        (2, 3)
    """
    cjk = len(_CJK.findall(text))
    return len(_CJK.sub(" ", text).split()) + -(-cjk // _CJK_PER_WORD)


def _together(sections: Sequence[Section]) -> Iterator[Section]:
    """Yield sections; a very short one goes together with the next one below the same heading."""
    waiting: Section | None = None
    for section in sections:
        if waiting is not None:
            if waiting.place[:-1] == section.place[: len(waiting.place) - 1]:
                section = _joined(waiting, section)
            else:
                yield waiting
            waiting = None
        if sum(map(size, section.paragraphs)) < _FEW:
            waiting = section
        else:
            yield section
    if waiting is not None:
        yield waiting


def _joined(first: Section, second: Section) -> Section:
    """Return two sections as one, under what their headings have in common."""
    same = 0
    for one, other in zip(first.place, second.place, strict=False):
        if one != other:
            break
        same += 1
    paragraphs = [
        paragraph
        for section in (first, second)
        for paragraph in (*section.place[same:], *section.paragraphs)
    ]
    return Section(place=first.place[:same], paragraphs=tuple(paragraphs))


def _packed(paragraphs: Sequence[str], words: int) -> Iterator[str]:
    """Yield texts of at most so many words, cut between paragraphs where that is possible."""
    held: list[tuple[str, str]] = []  # what goes before each unit, and the unit
    for before, unit in _units(paragraphs, words):
        if held and sum(size(u) for _, u in held) + size(unit) > words:
            yield _text(held)
            held = _tail(held, before, words)
        held.append((before, unit))
    if held:
        yield _text(held)


def _units(paragraphs: Sequence[str], words: int) -> Iterator[tuple[str, str]]:
    """Yield paragraphs, long ones as sentences, long sentences in pieces."""
    for paragraph in paragraphs:
        if size(paragraph) <= words:
            yield "\n", paragraph.strip()
            continue
        before = "\n"
        for sentence in filter(str.strip, _SENTENCE.split(paragraph)):
            for piece in _cut(sentence.strip(), words):
                yield before, piece
                before = " "


def _cut(sentence: str, words: int) -> Iterator[str]:
    if size(sentence) <= words:
        yield sentence
        return
    if _CJK.search(sentence):
        step = words * _CJK_PER_WORD
        yield from (sentence[at : at + step] for at in range(0, len(sentence), step))
        return
    parts = sentence.split()
    yield from (" ".join(parts[at : at + words]) for at in range(0, len(parts), words))


def _tail(held: list[tuple[str, str]], before: str, words: int) -> list[tuple[str, str]]:
    """Return what is said again where a paragraph was cut in two: its last sentence."""
    last = held[-1]
    again = before == " " and len(held) > 1 and size(last[1]) <= min(_OVERLAP, words // 4)
    return [last] if again else []


def _text(held: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{before if at else ''}{unit}" for at, (before, unit) in enumerate(held))
