"""Generated parts, for checks and drills: grey plates with holes, some with a drawn defect."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.core import io
from genba.core.line import Budget, Data, Limit, Line, Train
from genba.core.protocols import Array, Tensors
from genba.edge.images import encode_png
from genba.tasks.vision.anomaly import patches

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

SIZE: Final = 96  # pixels
GOOD: Final = 120
DEFECTIVE: Final = 16  # of each kind
KINDS: Final = ("blob", "scratch")
_HOLES: Final = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
_DARKER: Final = 0.6
_BLUR: Final = 1.2  # pixels


def example(folder: Path) -> Line:
    """Write generated plates to the folder and return a line that learns what a good one is.

    The layout is good/, one folder per kind of defect, and ground_truth/ with a mask for each
    defect. Nothing in the pictures was ever in front of a camera.
    """
    rng = np.random.default_rng(0)
    for number in range(GOOD):
        _write(folder / "good" / f"{number:03}.png", plate(rng))
    for kind in KINDS:
        for number in range(DEFECTIVE):
            image, mask = spoilt(plate(rng), kind, rng)
            _write(folder / kind / f"{number:03}.png", image)
            _write(folder / "ground_truth" / kind / f"{number:03}_mask.png", mask)
    return Line(
        name="generated-plates",
        task="vision.anomaly",
        data=Data(source=f"files:{folder}"),
        options={"backbone": "filters", "size": SIZE, "overkill": 0.05},
        train=Train(budget=Budget(minutes=1, trials=2)),
        gates={"auroc": Limit(min=0.8), "overkill": Limit(max=0.35)},
    )


def plate(rng: np.random.Generator) -> Bytes:
    """Return a grey plate with four holes on a dark table, uint8 [96, 96]."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64) / SIZE
    shift = rng.normal(0, 0.004, 2)
    y, x = y + shift[0], x + shift[1]
    inside = (np.abs(y - 0.5) < 0.42) & (np.abs(x - 0.5) < 0.42)
    grey = np.where(inside, 165.0 + rng.normal(0, 4), 45.0)
    for cy, cx in _HOLES:
        grey = np.where((y - cy) ** 2 + (x - cx) ** 2 < 0.06**2, 35.0, grey)
    light = 1.0 + rng.normal(0, 0.03) * (x - 0.5) + rng.normal(0, 0.03) * (y - 0.5)
    noisy = grey * light + rng.normal(0, 3, grey.shape)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), dtype=np.uint8)


def spoilt(image: Bytes, kind: str, rng: np.random.Generator) -> tuple[Bytes, Bools]:
    """Draw a defect on a plate; return it with the mask of what was drawn."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64) / SIZE
    cy, cx = rng.uniform(0.35, 0.65, 2)
    if kind == "blob":
        mask = (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(0.03, 0.06) ** 2
    else:
        angle, half = rng.uniform(0, np.pi), rng.uniform(0.1, 0.2)
        along = (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        mask = (np.abs(along) < half) & (np.abs(across) < 0.012)
    change = rng.choice([-1.0, 1.0]) * rng.uniform(40, 70)
    made = np.where(mask, image + change, image.astype(np.float64))
    return np.clip(np.rint(made), 0, 255).astype(np.uint8), mask


def disturbed(tensors: Tensors) -> dict[str, Array]:
    """Return the images as with a failing lamp and a lens out of focus: darker and blurred."""
    images = np.asarray(tensors["image"])
    matrix = patches.blur(images.shape[1], _BLUR).astype(np.float32)
    soft = np.einsum("ab,nbcd->nacd", matrix, images.astype(np.float32))
    soft = np.einsum("ab,ncbd->ncad", matrix, soft) * np.float32(_DARKER)
    return {**tensors, "image": np.clip(np.rint(soft), 0, 255).astype(np.uint8)}


def _write(path: Path, pixels: Bytes | Bools) -> None:
    io.make_dirs_durable(path.parent)
    io.write_durable(path, encode_png(pixels))
