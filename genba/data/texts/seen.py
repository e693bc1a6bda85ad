"""What the texts of a version are like, counted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

_EDGES: Final = (100, 1_000, 10_000, 100_000)  # characters


@dataclass
class Seen:
    """Counts of what is kept."""

    shapes: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    characters: int = 0

    def add(self, frame: pl.DataFrame, *, times: int = 1) -> None:
        """Take rows that are kept.

        Args:
            frame: `messages`, `text`, `answer`, `rejected` and `note`.
            times: -1 takes them back.
        """
        shape = (
            pl.when(pl.col("messages") == "[]")
            .then(pl.lit("plain text"))
            .when(pl.col("rejected") != "")
            .then(pl.lit("preferences"))
            .when(pl.col("answer") == "")
            .then(pl.lit("questions"))
            .otherwise(pl.lit("answers"))
        )
        _count(self.shapes, frame.select(shape.alias("shape"))["shape"].to_list(), times)
        size = pl.col("text").str.len_chars() + pl.col("answer").str.len_chars()
        sizes = frame.select(size.alias("size"))["size"]
        self.characters += times * int(sizes.sum())
        _count(self.lengths, [_range(size) for size in sizes.to_list()], times)
        _count(self.notes, [note for note in frame["note"].to_list() if note], times)

    def summary(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {
            "shapes": dict(+self.shapes),
            "characters": self.characters,
            "length_characters": {
                name: self.lengths[name]
                for name in map(_range, (0, *(edge + 1 for edge in _EDGES)))
                if self.lengths[name]
            },
            "notes": dict(+self.notes),
        }


def _count(counts: Counter[str], values: list[str], times: int) -> None:
    for value, many in Counter(values).items():
        counts[value] += times * many


def _range(size: int) -> str:
    """Return which range of lengths a text belongs to.

    Example:
        >>> _range(28), _range(512), _range(900_000)
        ('up to 100', '101 to 1000', 'over 100000')
    """
    below = 0
    for edge in _EDGES:
        if size <= edge:
            return f"{below + 1} to {edge}" if below else f"up to {edge}"
        below = edge
    return f"over {below}"
