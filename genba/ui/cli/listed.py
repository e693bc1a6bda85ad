"""A line guessed from a manifest: a table that names image files and says what is on them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from genba.data.sources.imagelayout import SPLITS
from genba.data.sources.imagenames import is_image
from genba.ui.cli.guess import time_column

_MOSTLY: Final = 0.9  # of the values of a column are names of images
_MASK: Final = re.compile(r"mask|ground_?truth|(^|_)(gt|seg)(_|$)", re.IGNORECASE)
_CLASS: Final = re.compile(
    r"(^|_)(label|class|category|kind|type|defect|target|product|name|y)(_?(name|id))?s?$",
    re.IGNORECASE,
)
_SPLIT: Final = "split"
_EACH: Final = 2  # images of a class, on average, from which on a column of words tells classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What the columns of a manifest seem to mean, and why, by the dotted path of the setting."""

    image: str
    mask: str | None = None
    label: str | None = None
    time: str | None = None
    classes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)


def listed(frame: pl.DataFrame) -> Listed | None:
    """Guess the meaning of the columns of a manifest; None where no column names images.

    Example:
        >>> found = listed(pl.DataFrame({"file": ["a.png", "b.png"], "class": ["nut", "nut"]}))
        >>> (found.image, found.label) if found else None
        ('file', 'class')
    """
    names = [c.name for c in frame if _names_images(c)]
    if not names:
        return None
    masks = [name for name in names if _MASK.search(name)]
    images = [name for name in names if name not in masks] or names
    mask = masks[0] if masks and masks[0] != images[0] else None
    reasons = {"data.image": "guessed: its values are names of images"}
    if mask:
        reasons["data.mask"] = "guessed: by its name"
    time = time_column(frame.drop(names), reasons)
    label = _label(frame, [*names, time], reasons)
    said = frame[label].drop_nulls().cast(pl.String).to_list() if label else []
    return Listed(
        image=images[0],
        mask=mask,
        label=label,
        time=time,
        classes=Counter(said),
        reasons=reasons,
    )


def _names_images(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return False
    texts = column.drop_nulls().to_list()
    count = sum(is_image(Path(text.strip().replace("\\", "/"))) for text in texts)
    return bool(texts) and count >= _MOSTLY * len(texts)


def _label(frame: pl.DataFrame, taken: Sequence[str | None], reasons: dict[str, str]) -> str | None:
    """Return the column of classes: one that is called so, else the only one of few words."""
    free = [c for c in frame if c.name not in taken and not _is_split(c)]
    few = [c for c in free if 1 <= c.drop_nulls().n_unique() * _EACH <= len(c)]
    named = [c for c in few if not c.dtype.is_float() and _CLASS.search(c.name)]
    words = [c for c in few if c.dtype == pl.String]
    for column in (*named, *(words if len(words) == 1 else [])):
        reasons["data.label"] = f"guessed: {column.drop_nulls().n_unique()} classes"
        return column.name
    return None


def _is_split(column: pl.Series) -> bool:
    values = {str(value).strip().lower() for value in column.drop_nulls().unique()}
    return column.name == _SPLIT or bool(values) and values <= set(SPLITS)
