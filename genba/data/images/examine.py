"""One image file at a time: kept, kept with a note, or rejected with its reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from genba.core.digest import digest_bytes
from genba.core.problem import Problem
from genba.data.images import alike
from genba.edge.images import ImageFacts, as_served, depth, encode_png, inspect, read_mask

#: Why a file is rejected, by the code of the problem it would be on its own.
REASONS: Final = {
    "G230": "not an image",
    "G231": "damaged or cut off",
    "G232": "a kind of image that is not read",
    "G233": "too large",
    "G234": "too small",
}
EMPTY: Final = "empty file"
#: A mask may be of another size than its image, but not of another shape.
_PROPORTION: Final = 0.02
_EDGES: Final = (64, 128, 256, 512, 1_024, 2_048, 4_096)  # pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """An image that is whole."""

    image: bytes  # JPEG or PNG
    mask: bytes | None  # grey PNG
    digest: str  # of the file as it was found
    look: bytes


@dataclass
class Seen:
    """What the images of a version are like, counted."""

    sizes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    bytes: int = 0
    masks: int = 0

    def add(self, facts: ImageFacts, size: int) -> None:
        """Take an image that is kept."""
        shape = (facts.width, facts.height)
        self.sizes[_range(max(shape))] += 1
        self.modes[facts.mode] += 1
        self.formats[facts.format] += 1
        self.bytes += size
        area = facts.width * facts.height
        if self.smallest is None or area < self.smallest[0] * self.smallest[1]:
            self.smallest = shape
        if self.largest is None or area > self.largest[0] * self.largest[1]:
            self.largest = shape

    def summary(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {
            "bytes": self.bytes,
            "masks": self.masks,
            "longer_side_px": dict(self.sizes),
            "smallest_px": list(self.smallest or ()),
            "largest_px": list(self.largest or ()),
            "modes": dict(self.modes),
            "formats": dict(self.formats),
            "notes": dict(self.notes),
        }


def examine(image: bytes, mask: bytes | None, seen: Seen) -> Kept:
    """Look at a file and what belongs to it; every pixel is decoded once.

    Args:
        image: The file.
        mask: The file of its mask, if there is one; one that is all zero is none.
        seen: Where what is kept is counted.

    Raises:
        Problem: G230 to G234 when the image is rejected.
    """
    facts = inspect(image)
    kept = Kept(
        image=as_served(image),
        mask=None,
        digest=digest_bytes(image),
        look=alike.look(image),
    )
    marks = _mask(mask, facts, seen) if mask is not None else None
    seen.add(facts, len(kept.image))
    for note in _notes(image, facts):
        seen.notes[note] += 1
    if marks is None:
        return kept
    seen.masks += 1
    return Kept(image=kept.image, mask=marks, digest=kept.digest, look=kept.look)


def reason(problem: Problem, image: bytes) -> tuple[str, str]:
    """Return why a file is rejected, in the same few words for every such file, and the detail."""
    if not image:
        return EMPTY, ""
    return REASONS.get(problem.code, problem.what), problem.why or problem.what


def values(digest: str, size: int, where: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a rejected file: never its pixels."""
    return {"sha256": digest, "bytes": size, **{n: v for n, v in where.items() if v is not None}}


def _mask(mask: bytes, facts: ImageFacts, seen: Seen) -> bytes | None:
    try:
        marked = read_mask(mask)
    except Problem as problem:
        seen.notes[f"mask left out: {reason(problem, mask)[0]}"] += 1
        return None
    height, width = marked.shape
    if abs(np.log((width / height) / (facts.width / facts.height))) > _PROPORTION:
        seen.notes["mask left out: of another shape than its image"] += 1
        return None
    return encode_png(marked) if marked.any() else None


def _notes(image: bytes, facts: ImageFacts) -> list[str]:
    told = {
        "turned as EXIF says": facts.rotated,
        "first of several images in one file": facts.animated,
        "transparency laid on white": facts.transparent,
        "stored as PNG": facts.format not in ("JPEG", "PNG"),
        f"{facts.mode} turned into RGB": facts.mode in ("CMYK", "YCbCr", "LAB", "HSV", "P", "PA"),
        "16-bit colour, the high byte counts": facts.bits > 8 and not facts.mode.startswith("I"),
    }
    found = [note for note, holds in told.items() if holds]
    if facts.mode.startswith("I"):
        found.append(f"{facts.bits}-bit grey, {depth(image)} bits used")
    return found


def _range(side: int) -> str:
    """Return which range of sizes a side belongs to.

    Example:
        >>> _range(28), _range(512), _range(9_000)
        ('up to 64', '257 to 512', 'over 4096')
    """
    below = 0
    for edge in _EDGES:
        if side <= edge:
            return f"{below + 1} to {edge}" if below else f"up to {edge}"
        below = edge
    return f"over {below}"
