"""Inspection sets for the benchmark: generated parts, and crops of a photograph with drawn defects.

Nothing here shares code with the defects that Genba simulates for itself: whoever chooses settings
by drawn defects must not be judged by the same ones. Every defect is drawn; none is real.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from genba.core.digest import digest_bytes
from genba.core.line import Data, Line
from genba.edge.images import encode_png

Pixels = npt.NDArray[np.uint8]
Rng = np.random.Generator
GOOD_TRAIN, GOOD_TEST, PER_KIND = 240, 60, 30
KINDS = ("scratch", "blob", "patch")


@dataclass(frozen=True, kw_only=True)
class Set:
    """Good parts to learn from and to calibrate with, and a test set."""

    train: list[Pixels]
    calibrate: list[Pixels]
    good: list[Pixels]
    bad: list[tuple[str, Pixels, npt.NDArray[np.bool_]]]


def spoilt(
    image: Pixels, kind: str, rng: Rng, scale: float
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Draw a defect in the image's own resolution with Pillow; return it with its mask."""
    picture = Image.fromarray(image)
    mask = Image.new("L", picture.size, 0)
    pen, (width, height) = ImageDraw.Draw(mask), picture.size
    side = min(width, height)
    if kind == "patch":
        edge = int(side * rng.uniform(0.08, 0.18))
        to, away = ([int(v) for v in rng.integers(0, side - edge, 2)] for _ in range(2))
        left, top = away
        piece = picture.crop((left, top, left + edge, top + edge)).rotate(90)
        made = picture.copy()
        made.paste(piece, (to[0], to[1]))
        pen.rectangle((*to, to[0] + edge, to[1] + edge), fill=255)
        return np.asarray(made), np.asarray(mask) > 0
    if kind == "scratch":
        points = [(rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height)]
        for _ in range(int(rng.integers(2, 5))):
            step = rng.normal(0, 0.12 * side * scale, 2)
            points.append((points[-1][0] + step[0], points[-1][1] + step[1]))
        pen.line(points, fill=255, width=max(1, round(side * 0.008)))
        mask = mask.filter(ImageFilter.GaussianBlur(side * 0.002))
    else:
        radius = side * rng.uniform(0.015, 0.05) * scale
        x, y = rng.uniform(0.12, 0.88) * width, rng.uniform(0.12, 0.88) * height
        flat = radius * rng.uniform(0.5, 1.0)
        pen.ellipse((x - radius, y - flat, x + radius, y + flat), fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(radius * 0.3))
    cover = np.asarray(mask, dtype=np.float64) / 255
    change = rng.choice([-1, 1]) * rng.uniform(20, 60) * cover
    changed = image + (change[..., None] if image.ndim == 3 else change)
    return np.clip(changed, 0, 255).astype(np.uint8), cover > 0.25


def brick(wheel: Path) -> Callable[[Rng, str], Pixels]:
    """Return a maker of crops of scikit-image's brick photograph; splits share no pixel."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read("skimage/data/brick.png")
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    bounds = {"train": (0, 210), "calibrate": (210, 345), "test": (345, 512)}

    def make(rng: Rng, split: str) -> Pixels:
        low, high = bounds[split]
        x, y = int(rng.integers(low, high - 128 + 1)), int(rng.integers(0, 512 - 128 + 1))
        crop = whole[y : y + 128, x : x + 128] * rng.uniform(0.95, 1.05)
        return np.clip(crop + rng.normal(0, 1.5, crop.shape), 0, 255).astype(np.uint8)

    return make


def plate(rng: Rng, *, shift: int = 2, turn: float = 0.0, colour: bool = False) -> Pixels:
    """Return a plate with holes (and, in colour, two printed labels) on a dark table."""
    size, grey = 256, int(165 * rng.uniform(0.95, 1.05))
    table = (40, 44, 50) if colour else (45, 45, 45)
    metal = (grey, int(grey * 0.97), int(grey * 0.9)) if colour else (grey,) * 3
    picture = Image.new("RGB", (size, size), table)
    pen = ImageDraw.Draw(picture)
    pen.rounded_rectangle((28, 28, size - 28, size - 28), 14, fill=metal)
    for x, y, r in ((64, 64, 12), (192, 64, 12), (64, 192, 12), (192, 192, 12), (128, 128, 26)):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(30, 30, 30))
    if colour:
        pen.rectangle((96, 180, 160, 206), fill=(180, 40, 40))
        pen.line((100, 193, 156, 193), fill=(230, 230, 220), width=3)
        pen.rectangle((90, 50, 166, 76), fill=(60, 90, 170))
    else:
        pen.line((90, 60, 166, 60), fill=(grey - 30,) * 3, width=4)
    if turn:
        picture = picture.rotate(
            rng.uniform(-turn, turn), Image.Resampling.BILINEAR, fillcolor=table
        )
    moved = np.roll(
        np.asarray(picture, dtype=np.float64), rng.integers(-shift, shift + 1, 2), (0, 1)
    )
    y, x = np.mgrid[0:size, 0:size] / size
    light = 1 + rng.uniform(-0.08, 0.08) * (x - 0.5) + rng.uniform(-0.08, 0.08) * (y - 0.5)
    noise = rng.normal(0, 4, (size, size)) + rng.normal(0, 5, (size, 1))
    found = np.clip(moved * light[..., None] + noise[..., None], 0, 255)
    return np.asarray(found if colour else found[..., 0], dtype=np.uint8)


def tile(rng: Rng) -> Pixels:
    """Return a cloudy grey surface of varying shape; half of them have a bright edge."""
    width, height = int(rng.integers(180, 320)), int(rng.integers(180, 420))

    def cloud(rows: int, columns: int) -> npt.NDArray[Any]:
        small = Image.fromarray(rng.normal(0, 1, (rows, columns)).astype(np.float32))
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))

    grey = 110 + rng.uniform(-15, 15) + 12 * cloud(8, 8) + 5 * cloud(height // 4, width // 4)
    grey = grey + 5 * cloud(height, width // 30) + rng.normal(0, 4, (height, width))
    if rng.random() < 0.5:
        grey[:, : int(rng.integers(3, 14))] += 40
    return np.asarray(np.clip(grey, 0, 255), dtype=np.uint8)


def sets(wheel: Path | None) -> Iterator[tuple[str, Set]]:
    """Yield (name, set); bricks only where the wheel of scikit-image is at hand."""
    makers: dict[str, tuple[Callable[[Rng, str], Pixels], float]] = {
        "plates, grey": (lambda r, _: plate(r), 0.7),
        "plates, colour": (lambda r, _: plate(r, colour=True), 0.7),
        "plates, loose": (lambda r, _: plate(r, colour=True, shift=12, turn=8), 0.7),
        "tiles": (lambda r, _: tile(r), 0.6),
    }
    if wheel is not None:
        makers["brick"] = (brick(wheel), 1.4)
    for name, (make, scale) in makers.items():
        rng = np.random.default_rng(1)
        good = {
            split: [make(rng, split) for _ in range(count)]
            for split, count in (("train", GOOD_TRAIN), ("calibrate", 60), ("test", GOOD_TEST))
        }
        bad = [
            (kind, *spoilt(make(rng, "test"), kind, rng, scale))
            for kind in KINDS
            for _ in range(PER_KIND)
        ]
        yield (
            name,
            Set(train=good["train"], calibrate=good["calibrate"], good=good["test"], bad=bad),
        )


class SetView:
    """A set behind the View protocol."""

    modality = "image"
    entities: tuple[str, ...] = ("one",)
    sensors: tuple[str, ...] = ()
    has_clock = False
    classes: tuple[str, ...] = ("good", *KINDS)

    def __init__(self, found: Set) -> None:
        self.line = Line(name="quality", task="vision.anomaly", data=Data(source="files:quality"))
        rows: list[tuple[str, float, Pixels, Any]] = [("train", 0.0, p, None) for p in found.train]
        rows += [("calibrate", 0.0, p, None) for p in found.calibrate]
        rows += [("test", 0.0, p, None) for p in found.good]
        rows += [("test", 1.0 + KINDS.index(k), p, encode_png(m)) for k, p, m in found.bad]
        self._rows = [(split, label, encode_png(p), mask) for split, label, p, mask in rows]
        self.digest = digest_bytes(b"".join(row[2] for row in self._rows))

    def chunks(self, split: str, *, rows: int = 64) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield the images of a split, at most 64 at a time."""
        at = [i for i, row in enumerate(self._rows) if row[0] == split]
        for start in range(0, len(at), min(64, rows)):
            part = at[start : start + min(64, rows)]
            image, mask = np.empty(len(part), dtype=object), np.empty(len(part), dtype=object)
            image[:], mask[:] = [self._rows[i][2] for i in part], [self._rows[i][3] for i in part]
            yield {
                "entity": np.zeros(len(part), dtype=np.int32),
                "time": np.array(part, dtype=np.int64),
                "row": np.array(part, dtype=np.int64),
                "label": np.array([self._rows[i][1] for i in part]),
                "image": image,
                "mask": mask,
            }

    def count(self, split: str) -> int:
        """Return the number of images in a split."""
        return sum(row[0] == split for row in self._rows)

    def ends(self) -> npt.NDArray[Any]:
        """Return nothing: parts do not end."""
        return np.full(1, np.nan)

    def sheet(self) -> dict[str, Any]:
        """Return nothing is known."""
        return {}
