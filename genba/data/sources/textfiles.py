"""Texts in files on this machine: JSON Lines, JSON, CSV, Parquet, or a folder of documents."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from genba.core.digest import digest_file, digest_json
from genba.core.line import Data
from genba.core.problem import Problem
from genba.core.protocols import JsonObject, SourceFacts
from genba.data.formats import texts
from genba.data.formats.dialogues import Sample

_LINES: Final = (".jsonl", ".ndjson")
_WHOLE: Final = (".json",)
_DELIMITED: Final = {".csv": ",", ".tsv": "\t"}
_COLUMNS: Final = (".parquet", ".pq")
#: Files that are one text each.
_DOCUMENTS: Final = (".txt", ".md", ".markdown", ".rst", ".text")
_RECORDS: Final = (*_LINES, *_WHOLE, *_DELIMITED, *_COLUMNS)
_MOST_BYTES: Final = 256 << 20  # of a file that is read as a whole
_NOT_TEXT: Final = "not UTF-8 text"
_TOO_LARGE: Final = "too large"
_GZIP: Final = b"\x1f\x8b"
_PARQUET_ROWS: Final = 4_096

Found = Iterator[list[dict[str, Any]]]


class TextFiles:
    """The texts of files.

    Args:
        address: As it was written, for messages.
        files: Files and folders; in folders, everything below that looks like texts.
        data: Says what columns with unusual names mean.
    """

    def __init__(self, address: str, files: Sequence[Path], data: Data) -> None:
        self.address = address
        self.data = data
        self.root = files[0] if len(files) == 1 and files[0].is_dir() else None
        self.paths = tuple(_wanted(files))
        if not self.paths:
            raise Problem(
                "G201",
                f"No file with texts matches {address}.",
                where="data.source",
                why=f"Read are {', '.join((*_RECORDS, *_DOCUMENTS))}, also packed by gzip; looked "
                f"for from {Path.cwd()}.",
                tries=[f"ls {address}", 'source = "files:/the/whole/path/faq.jsonl"'],
            )

    def facts(self, address: str = "") -> SourceFacts:  # noqa: ARG002  # as of images
        """Read every file once to fingerprint its content; where the files lie does not matter."""
        named = [self._name(path) if _is_document(path) else "" for path in self.paths]
        digests = [digest_file(path) for path in self.paths]
        return SourceFacts(
            fingerprint=digest_json([list(pair) for pair in zip(named, digests, strict=True)]),
            location=str(self.paths[0] if len(self.paths) == 1 else self.address),
            bytes=sum(path.stat().st_size for path in self.paths),
        )

    def batches(self, cursor: JsonObject | None = None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield (Arrow record batch, cursor behind it); those before a cursor are passed over."""
        start = int(cursor["record"]) if cursor else 0
        done = 0
        for batch, records in texts.batches(self._rows(start), self.address):
            done = start + records
            yield batch, {"record": done}

    def _rows(self, start: int) -> Found:
        at = 0
        for path in self.paths:
            before = path.stat()
            for found in self._of(path):
                at += 1
                if at > start:
                    yield found
            after = path.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise Problem(
                    "G213",
                    f"{path.name} changed while it was read.",
                    where=str(path),
                    why="Something is still writing to it, so what was read may be half of it.",
                    tries=["run again when the file is complete"],
                )

    def _of(self, path: Path) -> Found:
        name, kind = self._name(path), _kind(path)
        if kind in _COLUMNS:
            yield from self._parquet(path, name)
        elif kind in _LINES:
            yield from self._lines(path, name)
        elif kind in _WHOLE:
            yield from self._whole(path, name)
        elif kind in _DELIMITED:
            yield from self._delimited(path, name, _DELIMITED[kind])
        else:
            yield [_document(path, name)]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if self.root else path.name

    def _read(self, record: Any, name: str, line: int) -> list[dict[str, Any]]:
        return texts.rows(record, self.data, name=f"{name}:{line}", line=line)

    def _lines(self, path: Path, name: str) -> Found:
        decode = msgspec.json.Decoder().decode
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    record = line.decode(errors="replace")  # a row with a reason
                yield self._read(record, name, number)

    def _whole(self, path: Path, name: str) -> Found:
        """Yield the records of a list, or of the one list that an object holds."""
        try:
            found = msgspec.json.decode(_content(path))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Problem(
                "G206",
                f"{path.name} is not JSON.",
                where=str(path),
                why=str(error),
                tries=[f"head -c 300 {path}", "export the file again"],
            ) from error
        lists = (
            [v for v in found.values() if isinstance(v, list)] if isinstance(found, dict) else []
        )
        records = found if isinstance(found, list) else max(lists, key=len, default=[found])
        for number, record in enumerate(records, start=1):
            yield self._read(record, name, number)

    def _delimited(self, path: Path, name: str, separator: str) -> Found:
        try:
            text = _content(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Problem(
                "G203",
                f"{path.name} is not UTF-8.",
                where=str(path),
                why=str(error),
                tries=[f"iconv -f WINDOWS-1252 -t UTF-8 {path} > fixed.csv"],
            ) from error
        csv.field_size_limit(_MOST_BYTES)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=False)
        for number, record in enumerate(rows, start=2):
            yield self._read(dict(record), name, number)

    def _parquet(self, path: Path, name: str) -> Found:
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise Problem(
                "G203",
                f"{path.name} is damaged or no Parquet file.",
                where=str(path),
                why=str(error),
                tries=["copy or export the file again"],
            ) from error
        number = 0
        for batch in file.iter_batches(_PARQUET_ROWS):
            for record in batch.to_pylist():
                number += 1
                yield self._read(record, name, number)


def _wanted(files: Sequence[Path]) -> Iterator[Path]:
    """Yield files to read, in order; hidden ones and what is no text are left aside."""
    for path in files:
        if path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.is_file())
            yield from (p for p in below if _readable(p) and not _hidden(p, path))
        elif path.is_file() and _readable(path):
            yield path


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _kind(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _readable(path: Path) -> bool:
    return _kind(path) in (*_RECORDS, *_DOCUMENTS)


def _is_document(path: Path) -> bool:
    return _kind(path) in _DOCUMENTS


def _document(path: Path, name: str) -> dict[str, Any]:
    """Return a file as one text."""
    if path.stat().st_size > _MOST_BYTES:
        return texts.unreadable(_TOO_LARGE, f"{path.stat().st_size / 1e6:,.0f} MB", name)
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return texts.unreadable(_NOT_TEXT, str(error), name)
    return texts.row(Sample(messages=(), answer=text), name=name)


def _content(path: Path) -> bytes:
    """Return a file that is read as a whole.

    Raises:
        Problem: G203 when it is too large for that, or damaged.
    """
    with _opened(path) as file:
        found = file.read(_MOST_BYTES + 1)
    if len(found) > _MOST_BYTES:
        raise Problem(
            "G203",
            f"{path.name} is too large to be read as a whole.",
            where=str(path),
            why=f"It has more than {_MOST_BYTES >> 20} MiB.",
            tries=[f"jq -c '.[]' {path} > records.jsonl", "split the file"],
        )
    return found


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == _GZIP
            plain.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if packed else plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Problem(
            "G203",
            f"{path.name} is damaged and cannot be unpacked.",
            where=str(path),
            why=str(error),
            tries=[f"gzip -t {path}", "copy or export the file again"],
        ) from error
    except PermissionError as error:
        raise Problem(
            "G201",
            f"{path.name} may not be read.",
            where=str(path),
            why=f"{error.strerror}.",
            tries=[f"ls -l {path}", f"chmod u+r {path}"],
        ) from error
