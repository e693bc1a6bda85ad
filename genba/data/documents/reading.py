"""From sources to passages: every document read, cut, and taken in or refused with its reason."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from genba.core.digest import digest_bytes, digest_json
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.data.documents.chunks import Piece, pieces_of
from genba.data.documents.held import Held
from genba.data.documents.sources import Found, open_source
from genba.edge.passages import MOST_PASSAGES, Document, Entry
from genba.runs.progress import Progress

_ID: Final = 16  # characters
_SAME: Final = "the same passage is in another document"

#: Says why a passage is refused, "" where it is not.
Judge = Callable[[str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """What was not taken in."""

    document: str
    reason: str
    passages: int  # 0: the whole document


@dataclass(slots=True)
class Read:
    """What was read."""

    documents: list[Document] = field(default_factory=list)
    passages: list[Entry] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def reasons(self) -> dict[str, int]:
        """Return how many passages or documents were refused for each reason."""
        found: dict[str, int] = {}
        for one in self.refused:
            found[one.reason] = found.get(one.reason, 0) + max(1, one.passages)
        return found


def read_all(sources: Sequence[Held], judge: Judge, progress: Progress) -> Read:
    """Read every document of some sources.

    A passage that is there twice is kept once for each circle of people who may see it.

    Args:
        sources: Of a line.
        judge: Is shown every passage before it is taken in.
        progress: Who is told how far it is.

    Raises:
        Problem: G652 when a source has no documents, G653 when there are too many passages, G901
            when a library is missing, G902 or G222 for packages.
    """
    read = Read()
    seen: set[tuple[tuple[str, ...], int | None, str]] = set()
    for one in sources:
        source = open_source(one.source, progress)
        for found in source.documents():
            progress.step(f"reading {one.source}: {found.name}")
            text, why = _text(found)
            if why:
                read.refused.append(Refused(document=found.name, reason=why, passages=0))
                continue
            title, pieces = text
            document = Document(
                name=found.name,
                title=title,
                source=one.source,
                digest=digest_bytes(found.data),
                access=one.access,
                changed_ms=found.changed_ms,
                until_ms=one.until_ms,
                licence=source.licence,
                attribution=source.attribution,
            )
            fresh = [p for p in pieces if (one.access, one.until_ms, p.text) not in seen]
            seen.update((one.access, one.until_ms, p.text) for p in pieces)
            _take(read, document, fresh, judge)
            if len(fresh) < len(pieces):
                count = len(pieces) - len(fresh)
                read.refused.append(Refused(document=found.name, reason=_SAME, passages=count))
    if len(read.passages) > MOST_PASSAGES:
        raise _too_many(len(read.passages))
    return read


def _text(found: Found) -> tuple[tuple[str, list[Piece]], str]:
    """Return title and pieces of a document, and why it is refused."""
    try:
        text = resolve("document", found.format)(found.data)
    except ValueError as error:
        return ("", []), f"cannot be read: {error}"
    pieces = pieces_of(text)
    return (text.title or found.name, pieces), "" if pieces else "there is no text in it"


def _take(read: Read, document: Document, pieces: Sequence[Piece], judge: Judge) -> None:
    """Take in the passages of a document that are not refused."""
    kept: list[Piece] = []
    for piece in pieces:
        why = judge(piece.text)
        if why:
            read.refused.append(Refused(document=document.name, reason=why, passages=1))
        else:
            kept.append(piece)
    if not kept:
        return
    number = len(read.documents)
    read.documents.append(document)
    read.passages += _entries(document, number, kept)


def _entries(document: Document, number: int, pieces: Sequence[Piece]) -> Iterator[Entry]:
    for at, piece in enumerate(pieces):
        told = [document.source, document.name, document.title, piece.place, piece.text, at]
        yield Entry(id=digest_json(told)[:_ID], document=number, place=piece.place, text=piece.text)


def _too_many(count: int) -> Problem:
    return Problem(
        "G653",
        f"The documents have {count:,} passages; a package holds up to {MOST_PASSAGES:,}.",
        where="documents",
        tries=["genba documents remove LINE SOURCE", "genba explain G653"],
    )
