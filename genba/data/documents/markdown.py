"""Markdown, read with markdown-it (CommonMark and tables)."""

import re
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from genba.data.documents.values import Section, Text, decoded, in_one_line, plain

_FRONT: Final = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_TITLE: Final = re.compile(r"^title:\s*(.+?)\s*$", re.MULTILINE)
_CODE: Final = ("fence", "code_block")


def read(data: bytes) -> Text:
    r"""Read a text in Markdown; HTML in it is left out.

    Example:
        >>> text = read(b"# Pumps\n\nA pump *moves* water.\n\n## Oil\n\n- 2 litres\n")
        >>> [(s.place, s.paragraphs) for s in text.sections]
        [(('Pumps',), ('A pump moves water.',)), (('Pumps', 'Oil'), ('- 2 litres',))]
    """
    source = decoded(data)
    front = _FRONT.match(source)
    titled = _TITLE.search(front[1]) if front else None
    tokens = (
        MarkdownIt("commonmark").enable("table").parse(source[front.end() :] if front else source)
    )
    headings: list[tuple[int, str]] = []
    paragraphs: list[str] = []
    sections: list[Section] = []

    def end() -> None:
        if paragraphs:
            place = tuple(text for _, text in headings)
            sections.append(Section(place=place, paragraphs=tuple(paragraphs)))
            paragraphs.clear()

    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type in _CODE:
            paragraphs.append(plain(token.content).strip("\n"))
        elif token.type == "tr_open":
            paragraphs.append("")
        elif token.type == "inline" and before is not None:
            text = _said(token)
            if before.type == "heading_open":
                end()
                level = int(before.tag[1:])
                headings[:] = [*((n, t) for n, t in headings if n < level), (level, text)]
            elif before.type in ("td_open", "th_open"):
                paragraphs[-1] = " | ".join(filter(None, (paragraphs[-1], text)))
            elif text:
                paragraphs.append(f"- {text}" if _in_item(tokens, token) else text)
    end()
    first = sections[0].place[:1] if sections else ()
    return Text(
        title=titled[1].strip("\"'") if titled else "".join(first), sections=tuple(sections)
    )


def _said(token: Token) -> str:
    parts = [
        "\n" if child.type == "hardbreak" else " " if child.type == "softbreak" else child.content
        for child in token.children or ()
        if child.type not in ("html_inline", "image")
    ]
    return in_one_line("".join(parts))


def _in_item(tokens: list[Token], token: Token) -> bool:
    """Say whether a paragraph is the first of an item of a list."""
    at = tokens.index(token)
    return at > 1 and tokens[at - 2].type == "list_item_open"
