"""What a document says, whatever it was written in."""

import unicodedata
from dataclasses import dataclass
from typing import Final

#: Invisible characters, which people do not see and a language model reads.
_KEPT_CONTROLS: Final = "\n\t"


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """What stands under one heading, or on one page."""

    place: tuple[str, ...]  # headings from the outermost in, or a page
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A document as text."""

    title: str
    sections: tuple[Section, ...]


def plain(text: str) -> str:
    r"""Return a text as people see it: composed, without invisible characters.

    Controls, zero-width and direction marks, private and tag characters go: they are how
    instructions are hidden in documents (Unicode TR 36; Boucher et al., "Bad Characters", 2022).

    Example:
        >>> plain("Power\u200b off\ufeff \U000e0041now")
        'Power off now'
    """
    composed = unicodedata.normalize("NFC", text).replace("\u00a0", " ").replace("\u00ad", "")
    return "".join(c for c in composed if c in _KEPT_CONTROLS or unicodedata.category(c)[0] != "C")


def in_one_line(text: str) -> str:
    r"""Return a text without line breaks and repeated spaces.

    Example:
        >>> in_one_line(" a \n  b ")
        'a b'
    """
    return " ".join(plain(text).split())


def decoded(data: bytes, stated: str = "") -> str:
    r"""Return bytes as text: as a byte order mark or the document says, else UTF-8, else Latin-1.

    Example:
        >>> decoded("Größe".encode()), decoded("Größe".encode("latin-1"))
        ('Größe', 'Größe')
    """
    marks = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
    named = [code for mark, code in marks if data.startswith(mark)]
    for code in (*named, stated, "utf-8"):
        try:
            return data.decode(code)
        except (LookupError, UnicodeDecodeError):
            continue
    return data.decode("cp1252", "replace")
