"""How well personal data are found: precision and recall on texts in which they are marked."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from genba.edge.personal import Span, find

LABELLED: Final = Path(__file__).with_name("personal.txt")
_MARK: Final = re.compile(r"\{\{([a-z_]+):(.*?)\}\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was found of one kind."""

    right: int  # the same letters, the same kind
    wrong: int  # found, and not marked
    missed: int  # marked, and not found

    @property
    def precision(self) -> float:
        """How much of what was found is personal."""
        return self.right / max(self.right + self.wrong, 1)

    @property
    def recall(self) -> float:
        """How much of what is personal was found."""
        return self.right / max(self.right + self.missed, 1)


def labelled(path: Path = LABELLED) -> list[tuple[str, list[Span]]]:
    """Return texts and what is personal in them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [unmarked(line) for line in lines if line and not line.startswith("#")]


def unmarked(text: str) -> tuple[str, list[Span]]:
    """Return a text without its marks, and what they said.

    Example:
        >>> unmarked("Call {{phone:03-1234-5678}}.")
        ('Call 03-1234-5678.', [Span(kind='phone', start=5, end=17)])
    """
    plain, spans, at = "", [], 0
    for mark in _MARK.finditer(text):
        plain += text[at : mark.start()]
        spans.append(Span(mark[1], len(plain), len(plain) + len(mark[2])))
        plain += mark[2]
        at = mark.end()
    return plain + text[at:], spans


def measured(texts: list[tuple[str, list[Span]]]) -> dict[str, Found]:
    """Return how much was found, by kind; "" is all of them together.

    Args:
        texts: Texts and what is personal in them.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for text, marked in texts:
        found = set(find(text))
        for kind, spans in (
            ("right", found & set(marked)),
            ("wrong", found - set(marked)),
            ("missed", set(marked) - found),
        ):
            for span in spans:
                counts[kind, span.kind] += 1
                counts[kind, ""] += 1
    kinds = sorted({kind for _, kind in counts})
    return {
        kind: Found(
            right=counts["right", kind], wrong=counts["wrong", kind], missed=counts["missed", kind]
        )
        for kind in kinds
    }
