"""The rows of files of any size as samples, a bounded stretch at a time, always cut the same way.

A sample needs rows around its own, so the last rows of every entity are carried from one stretch
to the next. Reading a second time gives the same stretches: what was answered before is read
again, which costs little, and is not asked again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import polars as pl
import pyarrow.parquet

from genba.core.digest import digest_json
from genba.core.line import Line
from genba.core.protocols import Array, JsonObject
from genba.core.resolve import resolve
from genba.core.task import Samples, Task
from genba.core.values import Manifest, Signature
from genba.data.intake import Intake
from genba.data.sources.files import FileSource
from genba.data.spill import Spill
from genba.ui.cli.predict_input import (
    Part,
    around,
    columns_of,
    data_of,
    galleries,
    image_files,
    taken,
)

PART_ROWS: Final = 65_536  # of the input, answered in one part of the output
PART_IMAGES: Final = 1_024
REQUEST_ROWS: Final = 256
_STRETCH_BYTES: Final = 32 << 20  # of samples in memory at once
_REQUEST_BYTES: Final = 8 << 20
_ITEM: Final = 8  # bytes of one number, at most

Reject = Callable[[str, int, Sequence[Mapping[str, Any]]], None]


class Disorder(Exception):
    """A row is older than one of its entity before it, so the rows must be sorted first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """What is answered in one part of the output."""

    index: int
    parts: Iterator[Part]
    fraction: float | None  # of the input, with this stretch; None where it cannot be known


class Questions(Protocol):
    """What a batch asks about."""

    images: bool

    def stamp(self) -> str:
        """Return a digest of names, sizes and times of the files; quick."""
        ...

    def fingerprint(self) -> str:
        """Return a digest of the input."""
        ...

    def stretches(self, done: Callable[[int], bool], reject: Reject) -> Iterator[Stretch]:
        """Yield what is to be answered; of a stretch that is done, nothing is asked."""
        ...


class Pictures:
    """Images, in the order of their names.

    Args:
        path: A file, a folder or a pattern.
        tensor: Name of the input that takes them.
        part_images: How many are answered in one part.
    """

    images = True

    def __init__(self, path: Path, tensor: str, *, part_images: int = PART_IMAGES) -> None:
        self._files = image_files(path)
        self._tensor = tensor
        self._part_images = part_images

    def stamp(self) -> str:
        """Return a digest of names, sizes and times."""
        return _stamp(self._files)

    def fingerprint(self) -> str:
        """Return the same: reading every image twice would cost much."""
        return self.stamp()

    def stretches(self, done: Callable[[int], bool], reject: Reject) -> Iterator[Stretch]:
        """Yield so many images at a time."""
        del reject  # whoever is asked says which image cannot be used
        numbered = list(enumerate(self._files))
        for index, start in enumerate(range(0, len(numbered), self._part_images)):
            some = numbered[start : start + self._part_images]
            yield Stretch(
                index=index,
                parts=iter(()) if done(index) else galleries(some, self._tensor),
                fraction=(start + len(some)) / len(numbered),
            )


class Rows:
    """Rows of tables.

    Args:
        line: Says which columns mean what.
        manifest: Of the package that is asked; says how rows become samples.
        path: CSV, Parquet, JSON Lines; a folder or a pattern of them.
        scratch: Where rows are sorted that do not fit in memory; rows stay in the order of the
            input when None.
        part_rows: How many are answered in one part.
    """

    images = False

    def __init__(
        self,
        line: Line,
        manifest: Manifest,
        path: Path,
        scratch: Path | None,
        *,
        part_rows: int = PART_ROWS,
    ) -> None:
        self._manifest = manifest
        self._data = data_of(line, manifest, path)
        self._source = FileSource(str(path), self._data)
        self._task: Task = resolve("task", line.task)()
        self._scratch = scratch
        self._part_rows = part_rows
        self._intake = Intake(self._data)
        self._read: float | None = 0.0  # fraction of the input

    def stamp(self) -> str:
        """Return a digest of names, sizes and times."""
        return _stamp(self._source.paths())

    def fingerprint(self) -> str:
        """Return a digest of the contents of the files."""
        return self._source.facts().fingerprint

    def stretches(self, done: Callable[[int], bool], reject: Reject) -> Iterator[Stretch]:
        """Yield so many usable rows at a time.

        Raises:
            Disorder: When rows must be sorted and there is no scratch.
            Problem: What the reader says of a file it cannot read.
        """
        self._intake = Intake(self._data)
        frames = self._frames(reject)
        if self._scratch is not None:
            frames = self._sorted(frames, self._scratch)
        windows = _Windows(
            self._task, self._manifest, self._intake, by_time=self._scratch is not None
        )
        index = -1
        for index, frame in enumerate(_cut(frames, self._part_rows)):
            yield self._stretch(index, windows, frame, done)
        if windows.after and windows.held is not None:
            yield self._stretch(index + 1, windows, None, done)

    def _stretch(
        self,
        index: int,
        windows: "_Windows",
        frame: pl.DataFrame | None,
        done: Callable[[int], bool],
    ) -> Stretch:
        if done(index):
            if frame is not None:
                windows.pass_by(frame)
            return Stretch(index=index, parts=iter(()), fraction=self._read)
        parts = windows.last() if frame is None else windows.take(frame)
        return Stretch(index=index, parts=parts, fraction=self._read)

    def _frames(self, reject: Reject) -> Iterator[pl.DataFrame]:
        """Yield the usable rows as they come."""
        progress = _Progress(self._source.paths())
        for number, (batch, cursor) in enumerate(self._source.batches()):
            good, bad = self._intake.take(batch)
            if self._scratch is None and self._intake.out_of_order:
                raise Disorder
            reject("unreadable", number, bad.to_dicts())
            self._read = progress.fraction(cursor)
            if good.height:
                yield good

    def _sorted(self, frames: Iterator[pl.DataFrame], scratch: Path) -> Iterator[pl.DataFrame]:
        with Spill(scratch) as spill:
            for frame in frames:
                spill.add(frame)
            answered = 0
            for piece in spill.pieces():
                answered += piece.height
                self._read = answered / spill.rows
                yield piece.sort("time", "row")


class _Windows:
    """Turns rows that come entity by entity or mixed, in the order of time, into samples."""

    def __init__(self, task: Task, manifest: Manifest, intake: Intake, *, by_time: bool) -> None:
        self.before, self.after = around(manifest)
        self._by_time = by_time  # else in the order of the input
        self.held: pl.DataFrame | None = None  # the last rows of every entity
        self._task = task
        self._manifest = manifest
        self._intake = intake
        size = _sample_bytes(manifest.signature)
        self._rows = max(REQUEST_ROWS, min(PART_ROWS, _STRETCH_BYTES // size))
        self._request = max(1, min(REQUEST_ROWS, _REQUEST_BYTES // size))

    def pass_by(self, frame: pl.DataFrame) -> None:
        """Take rows that were answered before."""
        self._hold(frame if self.held is None else pl.concat([self.held, frame]))

    def take(self, frame: pl.DataFrame) -> Iterator[Part]:
        """Yield the samples of rows whose surroundings are known now."""
        for step in frame.iter_slices(self._rows):
            near, rest = self._with_held(step)
            yield from self._answer(near, len(near) - len(step), final=False)
            self._hold(near, rest)

    def last(self) -> Iterator[Part]:
        """Yield the samples of rows behind which nothing comes any more."""
        if self.held is not None:
            yield from self._answer(self.held, len(self.held), final=True)

    def _with_held(self, step: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Return rows with those of the same entities before them, and what is held of others."""
        if self.held is None:
            return step, None
        here = pl.col("code").is_in(step["code"].unique().to_list())
        return pl.concat([self.held.filter(here), step]), self.held.filter(~here)

    def _hold(self, near: pl.DataFrame, rest: pl.DataFrame | None = None) -> None:
        keep = self.before + self.after
        if not keep:
            return
        newest = near.group_by("code", maintain_order=True).tail(keep)
        self.held = newest if rest is None else pl.concat([rest, newest])

    def _answer(self, near: pl.DataFrame, held: int, *, final: bool) -> Iterator[Part]:
        """Yield samples; the first `held` rows are known from before."""
        made: list[Samples] = []
        codes: list[Array] = []
        fresh = pl.int_range(pl.len()) >= held
        for history in near.with_columns(fresh.alias("_new")).partition_by(
            "code", maintain_order=True
        ):
            old = len(history) - int(history["_new"].sum())
            start = old - min(self.after, old)
            stop = len(history) if final else len(history) - self.after
            if stop <= start:
                continue
            code = int(history["code"][0])
            columns = columns_of(history.drop("_new"), self._manifest, self._intake.entities[code])
            whole = self._task.samples(columns, self._manifest.settings)
            some = taken(whole, columns["row"][start:stop])
            made.append(some)
            codes.append(np.full(len(some.row), code, dtype=np.int32))
        if made:
            yield from self._requests(made, np.concatenate(codes))

    def _requests(self, made: Sequence[Samples], codes: Array) -> Iterator[Part]:
        """Put the samples of all entities into the order of the rows, and cut them."""
        rows = np.concatenate([s.row for s in made])
        times = np.concatenate([s.time for s in made])
        order = np.lexsort((rows, times)) if self._by_time else np.argsort(rows)
        tensors = {n: np.concatenate([s.tensors[n] for s in made]) for n in made[0].tensors}
        names = self._intake.entities
        for start in range(0, len(rows), self._request):
            at = order[start : start + self._request]
            yield Part(
                tensors={n: t[at] for n, t in tensors.items()},
                entities=tuple(names[code] for code in codes[at].tolist()),
                times=times[at],
                rows=rows[at],
                names=("",) * len(at),
            )


class _Progress:
    """How much of some files was read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        sizes = [path.stat().st_size for path in paths]
        ends = np.cumsum(sizes).tolist()
        self._total = max(1, sum(sizes))
        self._ends = dict(zip(map(str, paths), zip(sizes, ends, strict=True), strict=True))
        self._lengths: dict[str, int] = {}

    def fraction(self, cursor: JsonObject) -> float | None:
        """Return the fraction behind a cursor; None where a file is packed."""
        name = str(cursor["file"])
        if name.lower().endswith(".gz"):
            return None
        size, end = self._ends[name]
        if name not in self._lengths:
            self._lengths[name] = _length(Path(name), size)
        within = min(1.0, int(cursor["offset"]) / max(1, self._lengths[name]))
        return float((end - size * (1 - within)) / self._total)


def _length(path: Path, size: int) -> int:
    """Return how far the offsets of a file go: rows of Parquet, bytes of text."""
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return size
    return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)


def _stamp(files: Sequence[Path]) -> str:
    stats = [(file, file.stat()) for file in files]
    return digest_json([[str(f), s.st_size, s.st_mtime_ns] for f, s in stats])


def _cut(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Yield frames of exactly so many rows, the last one of the rest."""
    waiting: list[pl.DataFrame] = []
    height = 0
    for frame in frames:
        waiting.append(frame)
        height += frame.height
        while height >= rows:
            whole = pl.concat(waiting)
            yield whole.head(rows)
            rest = whole.slice(rows)
            waiting, height = ([rest] if rest.height else []), rest.height
    if height:
        yield pl.concat(waiting)


def _sample_bytes(signature: Signature) -> int:
    sizes = [int(np.prod([max(1, n) for n in t.shape[1:]])) * _ITEM for t in signature.inputs]
    return max(1, sum(sizes))


def questions(line: Line, manifest: Manifest, path: Path, scratch: Path | None) -> Questions:
    """Return what a file, folder or pattern asks of a package.

    Raises:
        Problem: G722 for images that are not there, G201 for tables.
    """
    image = next((t.name for t in manifest.signature.inputs if t.role == "image"), None)
    if image is not None:
        return Pictures(path, image)
    return Rows(line, manifest, path, scratch)
