"""HTML, read with selectolax (Lexbor, the parsing rules of the HTML standard)."""

import re
from typing import Any, Final

from selectolax.lexbor import LexborHTMLParser

from genba.data.documents.values import Section, Text, decoded, in_one_line, plain

_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}charset=["']?([\w-]{2,40})""", re.IGNORECASE)
_HEAD: Final = 4_096  # bytes in which a document states its encoding
_SKIPPED: Final = frozenset(
    ("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form")
    + ("button", "select", "svg", "math", "iframe", "object", "canvas", "audio", "video", "head")
)
#: Classes of what surrounds a document instead of being one.
_AROUND: Final = re.compile(
    r"\b(nav\w*|menu|toc|sidebar|breadcrumbs?|footer|skip-?link|sr-only|visually-hidden)\b"
)
_ASIDE: Final = re.compile(r"\b(note|tip|hint|warning|caution|important|admonition\w*)\b")
_UNSEEN: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|opacity\s*:\s*0(?![.\d])"
)
_BLOCKS: Final = frozenset(
    ("address", "article", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt")
    + ("fieldset", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "main")
    + ("ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul")
)
_HEADING: Final = re.compile(r"h([1-6])")
_ROLES: Final = frozenset(("navigation", "search", "banner", "contentinfo"))
_MOST_NODES: Final = 2_000_000
_OUTERMOST: Final = 1


def read(data: bytes) -> Text:
    """Read a page: what people see of it, without navigation and what is hidden.

    Args:
        data: The file.

    Raises:
        ValueError: When it has more elements than a document has.
    """
    stated = _CHARSET.search(data[:_HEAD])
    tree = LexborHTMLParser(decoded(data, stated[1].decode() if stated else ""))
    named = tree.css_first("title")
    title = in_one_line(named.text()) if named else ""
    writer = _Writer()
    if tree.body is not None:
        _walk(tree.body, writer)
    writer.end_section()
    first = writer.sections[0].place[:1] if writer.sections else ()
    return Text(title=title or "".join(first), sections=tuple(writer.sections))


def _walk(body: Any, writer: "_Writer") -> None:
    """Go through the elements in order, without recursion: how deep they go is up to others."""
    stack = [(body, False)]
    nodes = 0
    while stack:
        node, left = stack.pop()
        nodes += 1
        if nodes > _MOST_NODES:
            raise ValueError(f"It has more than {_MOST_NODES:,} elements.")
        if left:
            writer.leave(node.tag)
            continue
        if node.is_text_node:
            writer.text(node.text_content or "")
            continue
        if not node.is_element_node or _skipped(node):
            continue
        writer.enter(node.tag, _classes(node))
        stack.append((node, True))
        children = []
        child = node.child
        while child is not None:
            children.append((child, False))
            child = child.next
        stack.extend(reversed(children))


def _skipped(node: Any) -> bool:
    if node.tag in _SKIPPED:
        return True
    attributes = node.attributes
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    if attributes.get("role") in _ROLES or _UNSEEN.search((attributes.get("style") or "").lower()):
        return True
    return node.tag != "body" and bool(_AROUND.search(_classes(node)))


def _classes(node: Any) -> str:
    return (node.attributes.get("class") or "").lower()


class _Writer:
    """Puts text together to paragraphs, and paragraphs to sections under their headings."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self._headings: list[tuple[int, str]] = []
        self._paragraphs: list[str] = []
        self._pieces: list[str] = []
        self._inside: list[tuple[str, bool]] = []  # open blocks, and whether each is an aside
        self._as_is = 0  # open <pre>

    def enter(self, tag: str, classes: str) -> None:
        if tag == "br":
            self._pieces.append("\n")
        if tag in ("td", "th") and "".join(self._pieces).strip():
            self._pieces.append(" | ")
        if tag not in _BLOCKS:
            return
        # The first paragraph of an item stands behind its dash.
        if not (tag == "p" and self._pieces == ["- "]):
            self._end_paragraph()
        self._inside.append((tag, bool(_ASIDE.search(classes))))
        self._as_is += tag == "pre"
        if tag == "li":
            self._pieces.append("- ")

    def text(self, text: str) -> None:
        self._pieces.append(text if self._as_is else re.sub(r"\s+", " ", text))

    def leave(self, tag: str) -> None:
        if tag not in _BLOCKS:
            return
        self._inside.pop()
        heading = _HEADING.fullmatch(tag)
        if heading and not any(aside for _, aside in self._inside):
            self._head(int(heading[1]))
        else:
            self._end_paragraph()
        self._as_is -= tag == "pre"

    def end_section(self) -> None:
        self._end_paragraph()
        if self._paragraphs:
            place = tuple(text for _, text in self._headings)
            self.sections.append(Section(place=place, paragraphs=tuple(self._paragraphs)))
        self._paragraphs = []

    def _head(self, level: int) -> None:
        text = in_one_line("".join(self._pieces))
        self._pieces = []
        if not text:
            return
        self.end_section()
        kept = [(n, t) for n, t in self._headings if n < level]
        self._headings = [*kept, (level, text)]

    def _end_paragraph(self) -> None:
        text = plain("".join(self._pieces))
        self._pieces = []
        if self._as_is:
            lines = [line.rstrip() for line in text.strip("\n").splitlines()]
        else:
            lines = [" ".join(line.split()) for line in text.strip().splitlines()]
        kept = "\n".join(line for line in lines if line)
        if kept and kept != "-":
            self._paragraphs.append(kept)
