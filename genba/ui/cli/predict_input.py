"""What `genba predict` asks about: rows of a file or images, a bounded part at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from genba.core.line import Data, Line
from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.core.resolve import resolve
from genba.core.task import Samples, Task
from genba.core.values import Manifest
from genba.data.intake import Intake
from genba.data.sources.files import FileSource
from genba.edge.images import as_served
from genba.edge.texts import as_text

_MOST_ROWS: Final = 1_000_000
_MOST_IMAGES: Final = 10_000
_ROWS: Final = 256  # of one request
_IMAGES: Final = 16
_BYTES: Final = 8 << 20
_SLICE: Final = 4_096  # rows that are turned into samples at a time
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some samples of a package; everything has one entry per sample."""

    tensors: Mapping[str, Array]  # as the signature's inputs; images as files
    entities: tuple[str, ...] = ()
    times: Array | None = None
    rows: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    names: tuple[str, ...] = ()  # of image files

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self.rows)

    def some(self, which: slice) -> "Part":
        """Return some of the samples."""
        return Part(
            tensors={n: t[which] for n, t in self.tensors.items()},
            entities=self.entities[which],
            times=None if self.times is None else self.times[which],
            rows=self.rows[which],
            names=self.names[which],
        )


def parts(
    line: Line, manifest: Manifest, path: Path, rejected: Counter[str], *, every: bool
) -> Iterator[Part]:
    """Yield what a file, folder or pattern holds as samples of a package.

    Checks of the line are not applied: what a package makes of impossible values is its business.

    Args:
        line: Says which columns mean what.
        manifest: Of the package that will be asked; says how rows become samples.
        path: CSV, Parquet or JSON Lines; or images; or a pattern.
        rejected: Counts what cannot be used, by reason.
        every: Also where a package looks ahead, ask about every row, not the newest one only.

    Raises:
        Problem: What the reader says of a file it cannot read; G722 when nothing can be used or
            there is too much.
    """
    image = next((t.name for t in manifest.signature.inputs if t.role == "image"), None)
    if image is not None:
        yield from _images(path, image)
        return
    task: Task = resolve("task", line.task)()
    frame, names = _rows(line, manifest, path, rejected)
    for history in frame.partition_by("code", maintain_order=True):
        name = names[int(history["code"][0])]
        first, last = 0, len(history)
        if manifest.settings.get("ahead") and not every:
            first = _newest(history, manifest)
            last = first + 1
        for samples in _samples(task, history, manifest, name, range(first, last)):
            yield from _cut(samples, name)


def _images(path: Path, name: str) -> Iterator[Part]:
    files = image_files(path)
    if len(files) > _MOST_IMAGES:
        raise _too_many(path, f"{len(files):,} images", _MOST_IMAGES)
    yield from galleries(enumerate(files), name)


def galleries(files: Iterable[tuple[int, Path]], name: str) -> Iterator[Part]:
    """Yield numbered image files as samples, as many at a time as one request may hold.

    Args:
        files: Number and file of each.
        name: Of the input that takes images.
    """
    waiting: list[tuple[int, Path, bytes]] = []
    for index, file in files:
        waiting.append((index, file, _content(file)))
        if len(waiting) == _IMAGES or sum(len(data) for _, _, data in waiting) > _BYTES:
            yield _gallery(waiting, name)
            waiting = []
    if waiting:
        yield _gallery(waiting, name)


def _content(file: Path) -> bytes:
    """Return a file as packages take it; what is no image is refused by whoever is asked."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Problem(
            "G722",
            f"{file} cannot be read: {error.strerror}.",
            where=str(file),
            tries=[f"ls -l {file}", "genba explain G722"],
        ) from error
    try:
        return as_served(data)
    except Problem:
        return data


def _gallery(waiting: Sequence[tuple[int, Path, bytes]], name: str) -> Part:
    images = np.empty(len(waiting), dtype=object)
    images[:] = [data for _, _, data in waiting]
    return Part(
        tensors={name: images},
        entities=("",) * len(waiting),
        rows=np.array([index for index, _, _ in waiting]),
        names=tuple(str(file) for _, file, _ in waiting),
    )


def image_files(path: Path) -> list[Path]:
    """Return the images of a folder and the folders in it, or those that a pattern names."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = (p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
    else:
        root = Path(path.anchor) if path.is_absolute() else Path()
        found = root.glob(str(path.relative_to(path.anchor)))
    files = sorted(p for p in found if p.is_file())
    if not files:
        raise Problem(
            "G722",
            f"{path} holds no image.",
            where=str(path),
            why=f"Files are looked for that end in {', '.join(_SUFFIXES)}.",
            tries=[f"ls {path}", "genba explain G722"],
        )
    return files


def _too_many(path: Path, what: str, most: int) -> Problem:
    return Problem(
        "G722",
        f"{path} has {what}; {most:,} are taken at a time.",
        where=str(path),
        why="genba predict holds every answer in memory.",
        tries=[f"genba predict LINE --input {path} --batch --to OUT.parquet", "genba explain G722"],
    )


def data_of(line: Line, manifest: Manifest, path: Path) -> Data:
    """Return what to read of a file for a package: its sensors, and what says whose row it is."""
    sensors = tuple(str(s) for s in manifest.settings["sensors"])
    output = line.data.output if line.data.output in sensors else None
    return Data(
        source=f"files:{path}",
        time=line.data.time,
        entity=line.data.entity,
        inputs=tuple(s for s in sensors if s != output),
        output=output,
    )


def _rows(
    line: Line, manifest: Manifest, path: Path, rejected: Counter[str]
) -> tuple[pl.DataFrame, Sequence[str]]:
    """Return the usable rows in the order of entity and time, and the names of the entities."""
    data = data_of(line, manifest, path)
    intake = Intake(data)
    frames: list[pl.DataFrame] = []
    for batch, _ in FileSource(str(path), data).batches():
        frames.append(intake.take(batch)[0])
        if intake.read > _MOST_ROWS:
            raise _too_many(path, "more rows", _MOST_ROWS)
    rejected.update(intake.rejected)
    if not sum(map(len, frames)):
        raise Problem(
            "G722",
            f"{path} has no row that can be used.",
            where=str(path),
            why="; ".join(f"{n} rows: {why}" for why, n in intake.rejected.items()),
            tries=[f"head -3 {path}", "genba explain G722"],
        )
    return pl.concat(frames).sort("code", "time", "row"), intake.entities


def _newest(history: pl.DataFrame, manifest: Manifest) -> int:
    """Return the position of the newest row with a reading of what is forecast.

    Rows behind it are the future as far as it is known: calendar, weather, plans.
    """
    outputs = [name for name in manifest.settings.get("outputs") or () if name in history.columns]
    read = np.zeros(len(history), dtype=np.bool_)
    for name in outputs:
        read |= np.isfinite(history[name].cast(pl.Float64).fill_null(np.nan).to_numpy())
    return int(np.flatnonzero(read)[-1]) if read.any() else len(history) - 1


def _samples(
    task: Task, history: pl.DataFrame, manifest: Manifest, name: str, wanted: range
) -> Iterator[Samples]:
    """Turn some rows of one entity into samples; they may look at the rows around them."""
    settings = manifest.settings
    before, after = around(manifest)
    columns = columns_of(history, manifest, name)
    for start in range(wanted.start, wanted.stop, _SLICE):
        stop = min(start + _SLICE, wanted.stop)
        near = slice(max(0, start - before), stop + after)
        made = task.samples({n: c[near] for n, c in columns.items()}, settings)
        yield taken(made, columns["row"][start:stop])


def around(manifest: Manifest) -> tuple[int, int]:
    """Return how many rows before and behind its own a sample may need."""
    settings = manifest.settings
    before = int(settings.get("context") or settings.get("lags") or 0)
    return before, int(settings.get("ahead") or 0)


def columns_of(history: pl.DataFrame, manifest: Manifest, name: str) -> dict[str, Array]:
    """Return rows of one entity as a task takes them."""
    index = manifest.entities.index(name) if name in manifest.entities else -1
    return {c: history[c].to_numpy() for c in history.columns if history.schema[c].is_numeric()} | {
        "entity": np.full(len(history), index, dtype=np.int32),
        "label": np.full(len(history), np.nan),
    }


def taken(samples: Samples, rows: Array) -> Samples:
    """Return the samples of some rows."""
    at = np.flatnonzero(np.isin(samples.row, rows))
    arrays = {n: getattr(samples, n)[at] for n in ("entity", "time", "row", "label", "truth")}
    return replace(samples, tensors={n: t[at] for n, t in samples.tensors.items()}, **arrays)


def _cut(samples: Samples, entity: str) -> Iterator[Part]:
    count = len(samples.row)
    whole = Part(
        tensors=samples.tensors,
        entities=(entity,) * count,
        times=samples.time,
        rows=samples.row,
        names=("",) * count,
    )
    size = sum(t.nbytes for t in samples.tensors.values()) // max(1, count)
    step = max(1, min(_ROWS, _BYTES // max(1, size)))
    for start in range(0, count, step):
        yield whole.some(slice(start, start + step))


def as_json(value: Any) -> Any:
    """Return an output of one sample as JSON: what is not a number is None, bytes are text."""
    if isinstance(value, list):
        plain = [as_json(inner) for inner in value]
        return plain[0] if len(plain) == 1 else plain
    if isinstance(value, bytes):
        return as_text(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
