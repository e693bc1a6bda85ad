"""A small generated dataset: shapes that no camera ever saw, and the line that reads them."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from genba.core import io
from genba.core.line import Budget, Data, Limit, Line, Train
from genba.core.protocols import Array, Tensors
from genba.edge.images import encode_png

CLASSES: Final = ("bar", "disc", "ring")
_EACH: Final = 60
_SIDE: Final = 48
_DARKER: Final = 0.5  # of the light is left


def example(folder: Path) -> Line:
    """Write generated images, one folder per class, and return a line that reads them."""
    chance = np.random.default_rng(0)
    for name in CLASSES:
        io.make_dirs_durable(folder / "shapes" / name)
        for number in range(_EACH):
            png = encode_png(draw(name, chance))
            io.write_durable(folder / "shapes" / name / f"{number:03d}.png", png)
    return Line(
        name="generated-shapes",
        task="vision.classify",
        data=Data(source=f"files:{folder / 'shapes'}"),
        options={"backbones": ["filters"], "size": 64},
        train=Train(budget=Budget(minutes=0.5, trials=2)),
        gates={"accuracy": Limit(min=0.7)},
    )


def draw(name: str, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a generated picture of one shape, uint8 [48, 48, 3].

    Args:
        name: One of `CLASSES`.
        chance: Decides place, size, colours and noise.
    """
    ground = chance.integers(40, 110, 3)
    colour = tuple(int(c) for c in np.clip(ground + chance.integers(60, 140, 3), 0, 255))
    picture = Image.new("RGB", (_SIDE, _SIDE), tuple(int(c) for c in ground))
    pen = ImageDraw.Draw(picture)
    x, y = chance.integers(18, _SIDE - 18, 2)
    reach = int(chance.integers(9, 15))
    if name == "bar":
        pen.rectangle((x - reach, y - 3, x + reach, y + 3), fill=colour)
    elif name == "disc":
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    else:
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=3)
    noisy = np.asarray(picture, dtype=np.float64) + chance.normal(0, 8, (_SIDE, _SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def disturbed(tensors: Tensors) -> dict[str, Array]:
    """Return the images as if a lamp had grown dim."""
    image = np.asarray(tensors["image"], dtype=np.float64) * _DARKER
    return {**tensors, "image": image.astype(np.uint8)}
