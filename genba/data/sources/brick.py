"""Parts cut from the photograph of a brick wall: real texture, defects drawn by a program.

No set of inspection images is in a package of the registry. So good parts are crops of a real
texture, moved, turned a little, mirrored and lit differently, and defects are drawn on some of
them. Crops to train with come from the left half of the photograph; those to calibrate and to test
with come from the right half, so what is tested on was never seen in training.

Whoever changes how anything is drawn raises `version` in packaged.toml: other images are another
data set.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from genba.edge.images import decode, encode_png

SIZE: Final = 224  # pixels
#: How many good parts and how many of each kind of defect a split has.
GOOD: Final = {"train": 480, "calibrate": 160, "test": 160}
DEFECTIVE: Final = {"train": 6, "calibrate": 6, "test": 28}
_PHOTO: Final = 512  # pixels
_SEED: Final = 20_260_101
_TURN: Final = np.deg2rad(3.0)
_LIGHT: Final = 0.08  # share by which brightness differs
_NOISE: Final = 1.5  # grey levels
_ROWS: Final = 64  # of a batch

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Chance = np.random.Generator


def batches(files: Mapping[str, bytes]) -> Iterator[pa.RecordBatch]:
    """Yield the parts as PNG, with a mask where a defect was drawn.

    Args:
        files: The photograph, by its path in the package.
    """
    (photo,) = (decode(data, _PHOTO)[..., 0].astype(np.float64) for data in files.values())
    chance = np.random.default_rng(_SEED)
    rows = []
    for split, kind, number in _plan():
        part = _crop(photo, "train" if split == "train" else "test", chance)
        mask = None
        if kind != "good":
            part, mask = KINDS[kind](part, photo, chance)
        lit = part * chance.uniform(1 - _LIGHT, 1 + _LIGHT)
        seen = lit + chance.normal(0, _NOISE, lit.shape)
        rows.append(
            {
                "image": encode_png(np.clip(np.rint(seen), 0, 255).astype(np.uint8)),
                "name": f"{split}/{kind}/{number:03d}.png",
                "mask": None if mask is None else encode_png(mask),
                "label": kind,
                "split": split,
            }
        )
        if len(rows) == _ROWS:
            yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)


_SCHEMA: Final = pa.schema(
    [
        ("image", pa.binary()),
        ("name", pa.string()),
        ("mask", pa.binary()),
        ("label", pa.string()),
        ("split", pa.string()),
    ]
)


def _plan() -> Iterator[tuple[str, str, int]]:
    for split, good in GOOD.items():
        yield from ((split, "good", number) for number in range(good))
        for kind in KINDS:
            yield from ((split, kind, number) for number in range(DEFECTIVE[split]))


def _crop(photo: Floats, half: str, chance: Chance) -> Floats:
    """Return a part of one half of the photograph, turned by up to 3 degrees and mirrored."""
    turn = chance.uniform(-_TURN, _TURN)
    reach = SIZE / 2 * (abs(np.cos(turn)) + abs(np.sin(turn))) + 1
    left = 0 if half == "train" else _PHOTO // 2
    y0 = chance.uniform(reach, _PHOTO - reach)
    x0 = chance.uniform(left + reach, left + _PHOTO // 2 - reach)
    y, x = np.mgrid[0:SIZE, 0:SIZE] - (SIZE - 1) / 2
    found = _between(
        photo, y0 + y * np.cos(turn) + x * np.sin(turn), x0 + x * np.cos(turn) - y * np.sin(turn)
    )
    across, down = chance.integers(0, 2, 2)
    return found[:: 1 - 2 * int(down), :: 1 - 2 * int(across)]


def _between(photo: Floats, y: Floats, x: Floats) -> Floats:
    """Return the photograph at places between its pixels (bilinear)."""
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = y - top, x - left
    upper = photo[top, left] * (1 - right) + photo[top, left + 1] * right
    lower = photo[top + 1, left] * (1 - right) + photo[top + 1, left + 1] * right
    found: Floats = upper * (1 - down) + lower * down
    return found


def _scratch(part: Floats, photo: Floats, chance: Chance) -> tuple[Floats, Bools]:  # noqa: ARG001  # drawn without it
    """Draw a thin, slightly bent line that is brighter or darker than what it crosses."""
    length, bend = chance.uniform(50, 120), chance.uniform(-0.25, 0.25)
    angle, width = chance.uniform(0, np.pi), chance.uniform(1.0, 1.8)
    along = np.linspace(-0.5, 0.5, 400) * length
    aside = bend * (along**2 / length - length / 12)
    cy, cx = chance.uniform(70, SIZE - 70, 2)
    y = cy + along * np.sin(angle) + aside * np.cos(angle)
    x = cx + along * np.cos(angle) - aside * np.sin(angle)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    near = np.full((SIZE, SIZE), np.inf)
    for at, to in zip(y[::4], x[::4], strict=True):
        near = np.minimum(near, (rows - at) ** 2 + (columns - to) ** 2)
    return _painted(part, np.clip(width + 0.5 - np.sqrt(near), 0, 1), _contrast(chance))


def _blob(part: Floats, photo: Floats, chance: Chance) -> tuple[Floats, Bools]:  # noqa: ARG001  # drawn without it
    """Draw a stain with a soft edge and an uneven outline."""
    cy, cx = chance.uniform(40, SIZE - 40, 2)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    around = np.arctan2(rows - cy, columns - cx)
    radius = chance.uniform(8, 16) * (
        1 + 0.2 * np.sin(2 * around + chance.uniform(0, 6)) + 0.1 * np.sin(5 * around)
    )
    away = np.hypot(rows - cy, columns - cx)
    return _painted(part, np.clip((radius - away) / 4 + 0.5, 0, 1), _contrast(chance))


def _patch(part: Floats, photo: Floats, chance: Chance) -> tuple[Floats, Bools]:
    """Replace a rectangle by texture from elsewhere, turned by a right angle."""
    height, width = chance.integers(28, 56, 2)
    y, x = chance.integers(8, SIZE - 64, 2)
    oy, ox = chance.integers(0, _PHOTO - 64, 2)
    piece = photo[oy : oy + width, ox : ox + height].T
    made, mask = part.copy(), np.zeros(part.shape, dtype=np.bool_)
    made[y : y + height, x : x + width] = piece
    mask[y : y + height, x : x + width] = True
    return made, mask


def _missing(part: Floats, photo: Floats, chance: Chance) -> tuple[Floats, Bools]:  # noqa: ARG001  # drawn without it
    """Break a piece out: an angular hole with a flat, dark ground."""
    cy, cx = chance.uniform(40, SIZE - 40, 2)
    corners = np.sort(chance.uniform(0, 2 * np.pi, 6))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    inside = np.ones(part.shape, dtype=np.bool_)
    for angle in corners:
        edge = chance.uniform(10, 20)
        inside &= (rows - cy) * np.sin(angle) + (columns - cx) * np.cos(angle) < edge
    inside &= np.hypot(rows - cy, columns - cx) < 26
    ground = part.min() + chance.uniform(5, 20)
    return np.where(inside, 0.15 * part + 0.85 * ground, part), inside


def _contrast(chance: Chance) -> float:
    return float(chance.choice([-1.0, 1.0]) * chance.uniform(35, 60))


def _painted(part: Floats, cover: Floats, contrast: float) -> tuple[Floats, Bools]:
    return part + contrast * cover, cover >= 0.5


KINDS: Final[Mapping[str, Callable[[Floats, Floats, Chance], tuple[Floats, Bools]]]] = {
    "scratch": _scratch,
    "blob": _blob,
    "patch": _patch,
    "missing": _missing,
}
