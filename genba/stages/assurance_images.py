"""Faults of cameras and image files, put into real images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core.problem import Problem
from genba.edge.images import decode, encode_png, inspect
from genba.stages.assurance_faults import CRITICAL, MAJOR, MINOR, Fault

Pixels = npt.NDArray[np.uint8]
Random = np.random.Generator

_BLUR: Final = (2, 5)  # pixels of the working size to each side
_NOISE: Final = (20.0, 60.0)  # grey values
_SHIFT: Final = (0.05, 0.2)  # of the width and height
_BRIGHT: Final = (2.0, 4.0)


def black(image: Pixels, chance: Random) -> Pixels:
    """Return what a camera with its cap on sees: nearly nothing."""
    found: Pixels = chance.integers(0, 4, image.shape, dtype=np.uint8)
    return found


def over_exposed(image: Pixels, chance: Random) -> Pixels:
    """Return an image in too much light, cut off at white."""
    brighter = image.astype(np.float32) * chance.uniform(*_BRIGHT)
    return np.asarray(np.minimum(brighter, 255.0), dtype=np.uint8)


def blurred(image: Pixels, chance: Random) -> Pixels:
    """Return an image out of focus: means over a square, twice."""
    reach = int(chance.integers(_BLUR[0], _BLUR[1] + 1))
    found = image.astype(np.float32)
    for _ in range(2):
        for axis in (0, 1):
            found = _mean(found, reach, axis)
    return found.round().astype(np.uint8)


def noisy(image: Pixels, chance: Random) -> Pixels:
    """Return an image with the noise of a hot or starved sensor."""
    noise = chance.normal(0.0, chance.uniform(*_NOISE), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def shifted(image: Pixels, chance: Random) -> Pixels:
    """Return a part that lies elsewhere; what comes into view repeats the edge."""
    height, width = image.shape[:2]
    down, right = (
        int(chance.choice((-1, 1)) * chance.uniform(*_SHIFT) * size) for size in (height, width)
    )
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return image[rows][:, columns]


PIXEL_FAULTS: Final[dict[str, Callable[[Pixels, Random], Pixels]]] = {
    "black": black,
    "over_exposed": over_exposed,
    "blurred": blurred,
    "noise": noisy,
    "shifted": shifted,
}

IMAGE_FAULTS: Final = (
    Fault(name="black", severity=CRITICAL, about="the image is black", layers=("unusual",)),
    Fault(name="over_exposed", severity=CRITICAL, about="two to four times too much light",
          layers=("unusual",)),
    Fault(name="cut_file", severity=CRITICAL, about="the file ends too soon", layers=("schema",)),
    Fault(name="wrong_size", severity=MAJOR, about="the file has half the width",
          layers=("schema",)),
    Fault(name="stale_frame", severity=CRITICAL, about="the camera repeats its newest frame",
          layers=("stuck",)),
    Fault(name="blurred", severity=MAJOR, about="out of focus", layers=("unusual",)),
    Fault(name="noise", severity=MAJOR, about="noise of 20 to 60 grey values",
          layers=("unusual",)),
    Fault(name="shifted", severity=MINOR, about="the part lies 5 to 20 % elsewhere (edge repeated)",
          layers=("unusual",)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """What reading a file came to."""

    pixels: Pixels | None
    size: tuple[int, int] | None
    fault: str = ""


def read(data: bytes, size: int) -> Read:
    """Read a file as a device does: what cannot be decoded is a fault, not an error."""
    try:
        facts = inspect(data)
        return Read(pixels=decode(data, size), size=(facts.width, facts.height))
    except Problem as problem:
        return Read(pixels=None, size=None, fault=f"{problem.code} {problem.what}")


def cut(data: bytes, chance: Random) -> bytes:
    """Return the first part of a file, as a broken transfer leaves it."""
    return data[: max(1, int(len(data) * chance.uniform(0.2, 0.9)))]


def half_width(data: bytes) -> bytes:
    """Return a file in half its width, as another camera or setting sends it."""
    facts = inspect(data)
    pixels = decode(data, max(facts.width, facts.height))
    rows = np.linspace(0, pixels.shape[0] - 1, facts.height).astype(np.int64)
    columns = np.linspace(0, pixels.shape[1] - 1, max(1, facts.width // 2)).astype(np.int64)
    return encode_png(np.ascontiguousarray(pixels[rows][:, columns]))


def _mean(values: npt.NDArray[np.float32], reach: int, axis: int) -> npt.NDArray[np.float32]:
    width = 2 * reach + 1
    room = [(0, 0)] * values.ndim
    room[axis] = (reach + 1, reach)
    total = np.cumsum(np.pad(values, room, mode="edge"), axis=axis, dtype=np.float64)
    count = values.shape[axis]
    high = np.take(total, np.arange(width, width + count), axis=axis)
    low = np.take(total, np.arange(count), axis=axis)
    return ((high - low) / width).astype(np.float32)
