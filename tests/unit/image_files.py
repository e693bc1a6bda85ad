"""Small pictures for tests: parts that differ from each other as parts of one kind do."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genba.core.line import Data, Line, Train
from genba.core.resolve import resolve
from genba.core.values import DatasetVersion
from genba.data.images import Images
from genba.data.sources import source_of
from genba.data.view import DatasetView
from genba.edge.images import encode_png
from genba.runs.progress import SilentProgress
from genba.store.home import Store


def part(seed: int, size: int = 32) -> np.ndarray[Any, Any]:
    """Return smooth noise of its own, uint8 [size, size]."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 256, (8, 8), dtype=np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def png(seed: int, size: int = 32) -> bytes:
    return encode_png(part(seed, size))


def jpeg(pixels: np.ndarray[Any, Any], quality: int = 80) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def mask(size: int = 32) -> bytes:
    marked = np.zeros((size, size), dtype=bool)
    marked[4:9, 4:9] = True
    return encode_png(marked)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def numbered(kind: str, seeds: Iterable[int]) -> dict[str, bytes]:
    return {f"{kind}/{seed:04d}.png": png(seed) for seed in seeds}


def line_of(folder: Path, task: str = "vision.anomaly", seed: int = 0, **data: Any) -> Line:
    fields: dict[str, Any] = {"source": f"files:{folder}"} | data
    return Line(name="parts", task=task, data=Data(**fields), train=Train(seed=seed))


def ingested(
    store: Store, line: Line, parent: DatasetVersion | None = None, split_by: str | None = None
) -> DatasetView:
    version = Images.ingest(
        source_of(line),
        line,
        store,
        SilentProgress(),
        parent=Images.parent(store, parent) if parent else None,
        split_by=split_by or resolve("task", line.task).split_by,
    )
    view = DatasetView(store, version, line)
    Images.refuse_leakage(view)
    return view


def splits_of(view: DatasetView) -> dict[str, str]:
    """Return the split of each image by its name."""
    return {
        str(name): split
        for split in ("train", "calibrate", "test", "purged")
        for chunk in view.chunks(split)
        for name in chunk["name"]
    }
