"""Plain text: paragraphs between empty lines."""

import re
from typing import Final

from genba.data.documents.values import Section, Text, decoded, plain

_EMPTY: Final = re.compile(r"\n\s*\n")
_TITLE: Final = 100  # characters that a title has at most


def read(data: bytes) -> Text:
    r"""Read plain text; a short first line that stands alone is its title.

    Example:
        >>> text = read(b"Pumps\n\nA pump\nmoves water.\n")
        >>> text.title, text.sections[0].paragraphs
        ('Pumps', ('A pump\nmoves water.',))
    """
    blocks = [b.strip("\n") for b in _EMPTY.split(plain(decoded(data).replace("\r\n", "\n")))]
    paragraphs = [b for b in blocks if b.strip()]
    title = ""
    if len(paragraphs) > 1 and "\n" not in paragraphs[0] and len(paragraphs[0]) <= _TITLE:
        title = paragraphs.pop(0).strip()
    kept = (Section(place=(), paragraphs=tuple(paragraphs)),) if paragraphs else ()
    return Text(title=title, sections=kept)
