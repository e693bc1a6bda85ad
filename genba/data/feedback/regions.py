"""What somebody marks in an image: boxes and polygons as text, or a mask; kept as one small PNG.

A mark is kept on a square grid whatever the size of the image, since every image is made square
before a model sees it; see `genba.edge.images`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from genba.core.problem import Problem
from genba.edge.images import decode_mask, encode_png

#: Cells along each side of a mark.
GRID: Final = 1_024
#: Bytes of a mask as it comes in.
MOST_BYTES: Final = 16 << 20
#: Characters of a region: a hundred polygons of twenty points.
LONGEST: Final = 32_768
_WHITE: Final = 255
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d*)?|-?\.\d+")
_BOX: Final = 4
_CORNERS: Final = 3  # fewest of a polygon

Marked = npt.NDArray[np.bool_]
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """Boxes and polygons; a box has its two corners, a polygon three points or more."""

    shapes: tuple[tuple[Point, ...], ...]
    pixels: bool  # in pixels of the image rather than in fractions of its sides


def parse_region(text: str, where: str) -> Region:
    """Read shapes separated by semicolons.

    Args:
        text: Each shape is a box `x,y,width,height` or a polygon `x,y x,y x,y`. Where no number is
            above 1 they are fractions of the image's width and height, otherwise pixels.
        where: Which row it is, for people.

    Raises:
        Problem: G831.

    Example:
        >>> parse_region("0.1,0.2,0.3,0.4", "row 1").shapes[0][0]
        (0.1, 0.2)
        >>> parse_region("10,10 90,10 50,80", "row 1").pixels
        True
    """
    shapes = [_shape(part.strip(), where) for part in text.split(";") if part.strip()]
    if not shapes:
        raise _not_a_region(text, where)
    numbers = [float(word) for word in _NUMBER.findall(text)]
    if min(numbers) < 0:
        raise _not_a_region(text, where)
    return Region(shapes=tuple(shapes), pixels=max(numbers) > 1.0)


def draw(region: Region, size: tuple[int, int] | None, where: str) -> bytes:
    """Draw a region as a mask.

    Args:
        region: What was marked.
        size: Width and height of the image in pixels; not needed for fractions.
        where: Which row it is, for people.

    Raises:
        Problem: G832 when it lies outside the image, G834 for pixels of an image that is not known.
    """
    if region.pixels and size is None:
        raise Problem(
            "G834",
            "The region is in pixels of an image that is not known.",
            where=where,
            why="No captured prediction with an image fits the row.",
            tries=["region = 0.1,0.2,0.3,0.4  # fractions of the width and height", "mask = …"],
        )
    scale = (1.0 / size[0], 1.0 / size[1]) if region.pixels and size else (1.0, 1.0)
    picture = Image.new("L", (GRID, GRID))
    pen = ImageDraw.Draw(picture)
    for shape in region.shapes:
        points = [(x * scale[0] * GRID, y * scale[1] * GRID) for x, y in shape]
        if len(points) >= _CORNERS:
            pen.polygon([(x - 0.5, y - 0.5) for x, y in points], fill=_WHITE, outline=_WHITE)
        else:
            (left, right), (top, bottom) = (
                _cells(*side) for side in zip(points[0], points[1], strict=True)
            )
            pen.rectangle((left, top, right, bottom), fill=_WHITE)
    return as_mark(np.asarray(picture) > 0, where)


def read_mask(data: bytes, where: str) -> bytes:
    """Return a mask of any size and mode as it is kept.

    Args:
        data: PNG or another image that is not zero where something is marked.
        where: Which row it is, for people.

    Raises:
        Problem: G830 when it cannot be read as an image, G832 when nothing is marked in it.
    """
    if len(data) > MOST_BYTES:
        raise no_mask(f"The mask has {len(data):,} bytes; {MOST_BYTES:,} are taken.", where)
    try:
        marked = decode_mask(data, GRID)
    except Problem as problem:
        raise no_mask(f"The mask cannot be read. {problem.what}", where) from problem
    return as_mark(marked, where)


def as_mark(marked: Marked, where: str) -> bytes:
    """Return cells as the PNG that is kept; the same cells give the same bytes.

    Raises:
        Problem: G832 when no cell is marked.
    """
    if not marked.any():
        raise Problem(
            "G832",
            "Nothing of the image is marked.",
            where=where,
            why="The mask is black everywhere, or the region lies outside the image.",
            tries=["region = 0.1,0.2,0.3,0.4", "leave mask and region out: value = good"],
        )
    return encode_png(marked)


def agreed(masks: Sequence[bytes]) -> bytes | None:
    """Return what most people marked: every cell that at least half of them did.

    The order does not matter. None when there is no mask, or no cell on which half agree.

    Args:
        masks: As they are kept.
    """
    if len(set(masks)) <= 1:
        return masks[0] if masks else None
    votes = np.sum([decode_mask(mask, GRID) for mask in masks], axis=0)
    marked = votes * 2 >= len(masks)
    return as_mark(marked, "") if marked.any() else None


def no_mask(what: str, where: str) -> Problem:
    """Return the problem of a mask that is none."""
    return Problem(
        "G830",
        what,
        where=where,
        why="A mask is an image, best a grey PNG, that is not black where something is marked.",
        tries=["mask = the PNG file in base64", "region = 0.1,0.2,0.3,0.4"],
    )


def _cells(begin: float, end: float) -> tuple[int, int]:
    """Return the first and the last cell that a side covers; a thin one covers one."""
    first = int(begin)
    return first, max(first, int(np.ceil(end)) - 1)


def _shape(text: str, where: str) -> tuple[Point, ...]:
    """Read one box or polygon."""
    points = [part.split(",") for part in text.split()]
    numbers = [[_number(word, text, where) for word in point] for point in points]
    if len(numbers) == 1 and len(numbers[0]) == _BOX:
        x, y, width, height = numbers[0]
        if width > 0 and height > 0:
            return ((x, y), (x + width, y + height))
    elif len(numbers) >= _CORNERS and all(len(point) == 2 for point in numbers):  # x and y
        return tuple((x, y) for x, y in numbers)
    raise _not_a_region(text, where)


def _number(word: str, text: str, where: str) -> float:
    if not _NUMBER.fullmatch(word):
        raise _not_a_region(text, where)
    return float(word)


def _not_a_region(text: str, where: str) -> Problem:
    return Problem(
        "G831",
        f"{text[:80]!r} is no region of an image.",
        where=where,
        why="Known: boxes x,y,width,height and polygons x,y x,y x,y, separated by semicolons; "
        "in fractions of the image where no number is above 1, else in pixels.",
        tries=["region = 0.1,0.2,0.3,0.4", "region = 0.1,0.1 0.4,0.1 0.2,0.5"],
    )
