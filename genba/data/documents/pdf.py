"""PDF, read with pypdf, page by page."""

import io
import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from pypdf import PdfReader

from genba.data.documents.values import Section, Text, in_one_line, plain

_MOST_PAGES: Final = 5_000
_REPEATED: Final = 0.5  # of the pages: a line that is on so many belongs to the paper, not the text
_FEWEST: Final = 4  # pages, before anything counts as repeated
_NUMBER: Final = re.compile(r"\d+")
_BROKEN_WORD: Final = re.compile(r"(\w)-\n(?=[a-zà-ÿ])")
_LEADERS: Final = re.compile(r"(?:\. ?){6,}")  # a line of a table of contents
_SENTENCE_END: Final = re.compile(r"[.!?:]$")
_SHORT: Final = 0.6  # of the longest line: behind a shorter one that ends a sentence is a paragraph

logging.getLogger("pypdf").setLevel(logging.ERROR)  # what it repairs on the way nobody can change


def read(data: bytes) -> Text:
    """Read the text of a PDF; scans without text have none.

    Args:
        data: The file.

    Raises:
        ValueError: When it is damaged, needs a password, or has too many pages.
    """
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("It needs a password.")
        if len(reader.pages) > _MOST_PAGES:
            raise ValueError(f"It has more than {_MOST_PAGES:,} pages.")
        pages = [_lines(page.extract_text()) for page in reader.pages]
        title = in_one_line(str((reader.metadata or {}).get("/Title") or ""))
    except ValueError:
        raise
    except Exception as error:  # damaged files make the library raise anything
        raise ValueError(f"It is damaged: {type(error).__name__}: {error}") from error
    sections = [
        Section(place=(f"page {number}",), paragraphs=tuple(paragraphs))
        for number, lines in enumerate(_without_repeated(pages), 1)
        if (paragraphs := _paragraphs(lines))
    ]
    if not sections:
        raise ValueError("There is no text in it; it may be a scan.")
    return Text(title=title, sections=tuple(sections))


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in plain(text).splitlines())
    return [line for line in lines if line and not _LEADERS.search(line)]


def _without_repeated(pages: Sequence[list[str]]) -> list[list[str]]:
    """Leave out headers, footers and page numbers: first and last lines that many pages share."""
    if len(pages) < _FEWEST:
        return list(pages)
    edges = [{_shape(line) for line in (*lines[:2], *lines[-2:])} for lines in pages]
    count = Counter(shape for page in edges for shape in page)
    repeated = {shape for shape, n in count.items() if n >= _REPEATED * len(pages)}
    return [
        [
            line
            for at, line in enumerate(lines)
            if _shape(line) not in repeated or 2 <= at < len(lines) - 2
        ]
        for lines in pages
    ]


def _shape(line: str) -> str:
    """Return a line with its numbers made equal."""
    return _NUMBER.sub("0", line)


def _paragraphs(lines: Sequence[str]) -> list[str]:
    """Put lines together again: a short line that ends a sentence ends a paragraph."""
    longest = max((len(line) for line in lines), default=0)
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        paragraphs[-1].append(line)
        if len(line) < _SHORT * longest and _SENTENCE_END.search(line):
            paragraphs.append([])
    joined = (_BROKEN_WORD.sub(r"\1", "\n".join(p)).replace("\n", " ") for p in paragraphs)
    return [text for text in joined if text]
