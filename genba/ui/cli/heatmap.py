"""An image with what is unusual about it in red."""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from genba.core.io import make_dirs_durable, write_durable
from genba.core.protocols import Array
from genba.edge.images import decode, encode_png, inspect

_LARGEST: Final = 1_024  # pixels of the longer side
_FROM, _FULL = 0.5, 1.5  # of the map, where red begins and where there is no more of it
_STRONGEST: Final = 0.75  # of the colour; the part stays visible below it


def overlay(data: bytes, heat: Array) -> bytes:
    """Return an image with a heat map over it, as PNG in the proportions of the image.

    Args:
        data: The image file.
        heat: float [height, width], 1.0 = at the threshold; scaled to the image.

    Raises:
        Problem: G23x when the file is no image.
    """
    facts = inspect(data)
    longest = max(facts.width, facts.height)
    scale = min(1.0, _LARGEST / longest)
    size = (max(1, round(facts.width * scale)), max(1, round(facts.height * scale)))
    square = Image.fromarray(decode(data, min(_LARGEST, longest)))
    pixels = np.asarray(square.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    plain = np.nan_to_num(np.asarray(heat, dtype=np.float32), posinf=_FULL)
    wide = Image.fromarray(plain).resize(size, Image.Resampling.BILINEAR)
    share = np.clip((np.asarray(wide) - _FROM) / (_FULL - _FROM), 0.0, 1.0) * _STRONGEST
    red = np.array([255, 0, 0], dtype=np.float32)
    mixed = pixels * (1 - share[..., None]) + red * share[..., None]
    return encode_png(mixed.round().astype(np.uint8))


def place_of(target: Path, name: str, taken: set[Path], *, several: bool) -> Path:
    """Return where the picture of an image goes: the target, or a file of its name in it.

    Args:
        target: As it was asked for: a file, or for several images a folder.
        name: Of the image.
        taken: Places that are used already; the new one is added.
        several: Whether there is more than one image.
    """
    place = target
    if several or target.is_dir():
        stem = Path(name).stem
        place, number = target / f"{stem}.png", 1
        while place in taken:  # images of several folders may have one name
            number += 1
            place = target / f"{stem}-{number}.png"
    taken.add(place)
    return place


def write(place: Path, picture: bytes) -> None:
    """Write a picture, with the folder it goes to."""
    make_dirs_durable(place.absolute().parent)
    write_durable(place.absolute(), picture)
