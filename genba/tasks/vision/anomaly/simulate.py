"""Defects drawn on images of good parts, for sets in which nobody has labelled any.

They serve to choose between settings and to say how sensitive a model is; what is measured with
them is marked as modelled. `patch` is CutPaste (Li et al., "CutPaste: Self-Supervised Learning for
Anomaly Detection and Localization", CVPR 2021); the others imitate what happens to real surfaces.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Generator = np.random.Generator

KINDS: Final = ("scratch", "spot", "patch", "smear")
_LENGTH: Final = (0.08, 0.5)  # of a scratch, as a share of the side
_RADIUS: Final = (0.015, 0.08)  # of a spot or a smear
_PATCH: Final = (0.05, 0.2)  # sides of a patch
_CONTRAST: Final = (12.0, 70.0)  # grey levels between a defect and what is under it
_FULL: Final = 255.0
_SEEN: Final = 4.0  # grey levels by which a pixel must differ to belong to the mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Images with one defect each."""

    images: Bytes  # [n, S, S, 3]
    masks: Bools  # [n, S, S]
    kind: npt.NDArray[np.int64]  # index into KINDS


def draw(images: Bytes, seed: int, places: npt.NDArray[np.int64] | None = None) -> Drawn:
    """Draw one defect on every image, the kinds taking turns.

    Args:
        images: Of good parts [n, S, S, 3].
        seed: The same seed draws the same.
        places: The number of each image among all, where these are some of them; what is drawn
            depends on it and the seed only.

    Example:
        >>> drawn = draw(np.full((4, 64, 64, 3), 128, dtype=np.uint8), seed=0)
        >>> drawn.kind.tolist(), drawn.images.shape
        ([0, 1, 2, 3], (4, 64, 64, 3))
    """
    number = np.arange(len(images)) if places is None else places
    kind = np.asarray(number % len(KINDS), dtype=np.int64)
    made, masks = np.empty_like(images), np.zeros(images.shape[:3], dtype=bool)
    for i, image in enumerate(images):
        rng = np.random.default_rng([seed, int(number[i])])
        before = image.astype(np.float32)
        after = _DRAWING[int(kind[i])](before, rng)
        made[i] = np.clip(np.rint(after), 0, _FULL).astype(np.uint8)
        masks[i] = np.abs(made[i].astype(np.float32) - before).max(axis=2) >= _SEEN
    return Drawn(images=made, masks=masks, kind=kind)


def _scratch(image: Floats, rng: Generator) -> Floats:
    """Draw a bent line, lighter or darker than what is under it."""
    size = len(image)
    length = size * _between(rng, _LENGTH)
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8)
    start = rng.uniform(0.1, 0.9, 2) * size
    steps = np.linspace(0, 1, max(8, int(2 * length)))
    turned = angle + bend * steps
    step = length / len(steps)
    y, x = start[0] + np.cumsum(np.sin(turned)) * step, start[1] + np.cumsum(np.cos(turned)) * step
    width = rng.uniform(0.003, 0.008) * size
    cover = np.zeros((size, size), dtype=np.float32)
    grid = np.arange(size, dtype=np.float32)
    for cy, cx in zip(y, x, strict=True):
        near = np.exp(-0.5 * ((grid - cy) / width) ** 2)[:, None]
        cover = np.maximum(cover, near * np.exp(-0.5 * ((grid - cx) / width) ** 2))
    return image + cover[..., None] * _shade(rng)


def _spot(image: Floats, rng: Generator) -> Floats:
    """Draw a soft ellipse, lighter or darker, perhaps with a tint."""
    cover = _ellipse(len(image), rng)
    return image + cover[..., None] * _shade(rng)


def _patch(image: Floats, rng: Generator) -> Floats:
    """Copy a rectangle from elsewhere in the image, a little lighter or darker."""
    size = len(image)
    high, wide = (max(3, int(size * _between(rng, _PATCH))) for _ in range(2))
    (top, left), (y, x) = (
        (int(rng.integers(size - high + 1)), int(rng.integers(size - wide + 1))) for _ in range(2)
    )
    made = image.copy()
    piece = image[top : top + high, left : left + wide]
    if rng.random() < 0.5:
        piece = piece[::-1, ::-1]
    made[y : y + high, x : x + wide] = piece + rng.uniform(-15, 15)
    return made


def _smear(image: Floats, rng: Generator) -> Floats:
    """Replace what is inside an ellipse by its mean colour, as paint or a missing piece does."""
    cover = _ellipse(len(image), rng)[..., None]
    inside = cover > 0.5
    colour = (image * inside).sum(axis=(0, 1)) / max(1.0, float(inside.sum()))
    filled = image + cover * (colour + rng.uniform(-12, 12) - image)
    return np.asarray(filled, dtype=np.float32)


def _ellipse(size: int, rng: Generator) -> Floats:
    """Return how much each pixel is covered, 0 to 1, with a soft edge."""
    centre = rng.uniform(0.1, 0.9, 2) * size
    radii = np.array([_between(rng, _RADIUS), _between(rng, _RADIUS)]) * size
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    dy, dx = y - centre[0], x - centre[1]
    along = (dx * np.cos(turn) + dy * np.sin(turn)) / radii[0]
    across = (dy * np.cos(turn) - dx * np.sin(turn)) / radii[1]
    away = np.sqrt(along**2 + across**2)
    return np.asarray(np.clip((1.25 - away) / 0.5, 0.0, 1.0), dtype=np.float32)


def _shade(rng: Generator) -> Floats:
    """Return a change of colour: lighter or darker, one time in three with a tint."""
    strength = _between(rng, _CONTRAST) * rng.choice([-1.0, 1.0])
    tint = rng.uniform(0.2, 1.0, 3) if rng.random() < 1 / 3 else np.ones(3)
    return np.asarray(strength * tint, dtype=np.float32)


def _between(rng: Generator, bounds: tuple[float, float]) -> float:
    """Draw evenly on a logarithmic scale: small defects are as frequent as large ones."""
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


_DRAWING: Final = (_scratch, _spot, _patch, _smear)
