"""Images in memory behind the View protocol, and generated plates to fill it with."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from genba.core.digest import digest_bytes
from genba.core.line import Data, Line, Train
from genba.edge.images import encode_png
from genba.tasks.vision.anomaly import example

Columns = dict[str, npt.NDArray[Any]]


class ImageView:
    """A view over images in memory."""

    modality = "image"
    entities: tuple[str, ...] = ("one",)
    sensors: tuple[str, ...] = ()
    has_clock = False

    def __init__(self, line: Line, columns: Columns, classes: tuple[str, ...]) -> None:
        count = len(columns["image"])
        self.line, self.classes = line, classes
        self._columns: Columns = {
            "entity": np.zeros(count, dtype=np.int32),
            "time": np.arange(count, dtype=np.int64),
            "row": np.arange(count, dtype=np.int64),
            **columns,
        }
        self.digest = digest_bytes(b"".join(columns["image"]))

    def chunks(self, split: str, *, rows: int = 65_536) -> Iterator[Columns]:
        at = np.flatnonzero(self._columns["split"] == split)
        for start in range(0, len(at), min(rows, 64)):
            part = at[start : start + min(rows, 64)]
            yield {n: c[part] for n, c in self._columns.items() if n != "split"}

    def count(self, split: str) -> int:
        return int((self._columns["split"] == split).sum())

    def ends(self) -> npt.NDArray[Any]:
        return np.full(1, np.nan)

    def sheet(self) -> dict[str, Any]:
        return {}


def plates(
    good: int = 90, bad: int = 8, *, labels: bool = True, seed: int = 0, masks: bool = True
) -> Columns:
    """Return generated plates: a fifth each for calibration and test, defects everywhere."""
    rng = np.random.default_rng(seed)
    images: list[bytes] = []
    found: list[bytes | None] = []
    kinds: list[float] = []
    splits: list[str] = []
    cycle = ("train", "train", "train", "calibrate", "test")
    for number in range(good):
        images.append(encode_png(example.plate(rng)))
        found.append(None)
        kinds.append(0.0)
        splits.append(cycle[number % 5])
    for kind, name in enumerate(example.KINDS, start=1):
        for number in range(bad):
            image, mask = example.spoilt(example.plate(rng), name, rng)
            images.append(encode_png(image))
            found.append(encode_png(mask) if masks else None)
            kinds.append(float(kind))
            splits.append(("test", "test", "train")[number % 3])
    return {
        "image": as_objects(images),
        "mask": as_objects(found),
        "label": np.array(kinds) if labels else np.full(len(kinds), np.nan),
        "split": np.array(splits),
    }


def as_objects(values: list[Any]) -> npt.NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def plate_line(train: Train | None = None, **options: Any) -> Line:
    return Line(
        name="plates",
        task="vision.anomaly",
        data=Data(source="files:plates"),
        options={"backbone": "filters", "size": example.SIZE, "overkill": 0.05, **options},
        train=train or Train(),
    )


def plate_view(train: Train | None = None, **how: Any) -> ImageView:
    return ImageView(plate_line(train), plates(**how), ("good", *example.KINDS))
