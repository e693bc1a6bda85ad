"""What a batch keeps on disk while it goes on: finished parts, and what they are the answers to.

Every part is a file that appears under its name when it is whole and synced, so a part that is
there is finished and one that is not was never begun; there is no state besides. Names of parts
begin with the key of the job, so that parts of another input or package are never taken for them.
The answer appears under its own name at once, when all parts are there.
"""

import io as memory
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet

from genba.core import io
from genba.core.digest import canonical_json, digest_json
from genba.core.problem import Problem

if sys.platform != "win32":  # where nothing keeps two apart
    import fcntl

FORMAT: Final = 1
JSON_LINES: Final = "json lines"
PARQUET: Final = "parquet"
_PIECE: Final = 1 << 20  # bytes copied at a time
_KEY_LETTERS: Final = 16
_MANIFEST: Final = "job.json"
_SUFFIX: Final = ".parts"
_COMPRESSION: Final = "zstd"


class Job:
    """The folder of a batch, beside the file that it will become.

    Args:
        target: The file to be written.
        kind: `JSON_LINES` or `PARQUET`.
        about: What the answers depend on: digests of input, package and settings. Its digest is
            the key of the job.

    Use it as a context manager; the folder stays until `finish`.
    """

    def __init__(self, target: Path, kind: str, about: Mapping[str, Any]) -> None:
        self.target = target.absolute()
        self.folder = self.target.with_name(self.target.name + _SUFFIX)
        self.kind = kind
        self.about = {"format": FORMAT, "kind": kind, **about}
        self.key = digest_json(self.about)
        self.replaced: tuple[str, ...] = ()  # what was different in the job found in the folder
        self._names: set[str] = set()
        self._locked: int | None = None

    def __enter__(self) -> Self:
        """Open the folder; a job that answered something else is thrown away.

        Raises:
            Problem: G766 when another process works on the same file, G303 or G304 when the disk
                does not take it.
        """
        io.make_dirs_durable(self.folder)
        self._lock()
        try:
            found = self._found()
            if found != self.about:
                self.replaced = _differences(found, self.about)
                self._clear()
                io.write_durable(self.folder / _MANIFEST, canonical_json(self.about))
            else:
                self._remove_unfinished()
            self._names = {path.name for path in self.folder.iterdir()}
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let other processes go on with it."""
        self._unlock()

    def is_begun(self) -> bool:
        """Say whether the folder holds this very job."""
        return self._found() == self.about

    @property
    def parts_done(self) -> int:
        """How many parts are finished."""
        return sum(name.endswith(".part") for name in self._names)

    def done(self, index: int) -> bool:
        """Say whether a part is finished."""
        return self._name("part", index) in self._names

    def add(self, index: int, table: pa.Table) -> None:
        """Keep a finished part; it survives whatever comes."""
        self._keep(self._name("part", index), encode(table, self.kind))

    def reject(self, what: str, index: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows that cannot be used, once.

        Args:
            what: Who rejected them, one lower-case word.
            index: Running number of the rejection; the same rows always have the same.
            rows: Each with a `reason`.
        """
        name = self._name(what, index)
        if rows and name not in self._names:
            self._keep(name, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))

    def rejected(self) -> Counter[str]:
        """Count all rejected rows by their reasons."""
        reasons: Counter[str] = Counter()
        for path in self._rejections():
            with path.open("rb") as file:
                reasons.update(str(msgspec.json.decode(line)["reason"]) for line in file)
        return reasons

    def finish(self, parts: int, schema: pa.Schema, rejected: Path | None) -> int:
        """Put the parts together, give the file its name and remove what is no longer needed.

        Args:
            parts: How many there are.
            schema: Of every part.
            rejected: Where the rows go that could not be used; nowhere when None.

        Returns:
            How many rows the file has.
        """
        files = [self.folder / self._name("part", index) for index in range(parts)]
        if rejected is not None:
            self._whole(rejected.absolute(), lambda file: _copy(self._rejections(), file))
        if self.kind == PARQUET:
            rows = self._whole(self.target, lambda file: _join_parquet(files, schema, file))
        else:
            rows = self._whole(self.target, lambda file: _copy(files, file))
        self.discard()
        return rows

    def discard(self) -> None:
        """Remove the folder."""
        self._clear()
        with suppress(OSError):  # an empty folder that stays harms nobody
            self.folder.rmdir()

    def _whole(self, target: Path, write: Callable[[BinaryIO], int]) -> int:
        """Write a file that has its name only when it is whole; return how many rows it has.

        Until then it lies in the folder, where the next attempt tidies up; elsewhere only when
        that is another disk, between which nothing can be renamed.
        """
        near = self.folder.stat().st_dev == target.parent.stat().st_dev
        with io.new_file(self.folder if near else target.parent) as (temporary, file):
            rows = write(file)
        try:
            io.replace_durable(temporary, target)
        except BaseException:
            io.discard(temporary)
            raise
        return rows

    def _keep(self, name: str, data: bytes) -> None:
        io.write_durable(self.folder / name, data)
        self._names.add(name)

    def _name(self, what: str, index: int) -> str:
        return f"{self.key[:_KEY_LETTERS]}-{index:08d}.{what}"

    def _rejections(self) -> list[Path]:
        wanted = (n for n in self._names if n.endswith((".unreadable", ".refused")))
        return [self.folder / name for name in sorted(wanted)]

    def _found(self) -> dict[str, Any]:
        try:
            found = msgspec.json.decode((self.folder / _MANIFEST).read_bytes(), type=dict)
        except (OSError, msgspec.MsgspecError):
            return {}
        return dict(found)

    def _clear(self) -> None:
        """Remove what the folder holds, the manifest last: until then the job is what it was."""
        if not self.folder.is_dir():
            return
        with io.explained(self.folder):
            for path in sorted(self.folder.iterdir(), key=lambda p: p.name == _MANIFEST):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)  # rows being sorted: nothing durable
                else:
                    io.disk().remove(path)
        self._names = set()

    def _remove_unfinished(self) -> None:
        """Remove what was being written when somebody pulled the plug."""
        for path in self.folder.glob(".*.tmp"):
            io.discard(path)

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        self._locked = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._unlock()
            raise Problem(
                "G766",
                f"Another process is writing {self.target}.",
                where=str(self.folder),
                tries=["wait until it is done", f"ls -l {self.folder}", "genba explain G766"],
            ) from error

    def _unlock(self) -> None:
        if self._locked is not None:
            os.close(self._locked)  # which lets go of the lock as well
            self._locked = None


class Sink(memory.RawIOBase):
    """A file as Arrow writes it, whose bytes go through the one disk of the process."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def tell(self) -> int:
        """Return how much was written."""
        return self._size

    def write(self, data: Any) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        io.disk().write(self._file, view)
        self._size += len(view)
        return len(view)


def encode(table: pa.Table, kind: str) -> bytes:
    """Return a table as the bytes of a part."""
    if kind == JSON_LINES:
        return json_lines(table)
    made = memory.BytesIO()
    pyarrow.parquet.write_table(
        table, made, compression=_COMPRESSION, row_group_size=max(1, table.num_rows)
    )
    return made.getvalue()


def json_lines(table: pa.Table) -> bytes:
    r"""Return a table as JSON Lines, one object for each row.

    Example:
        >>> json_lines(pa.table({"row": [0], "score": [None]}))
        b'{"row":0,"score":null}\n'
    """
    lines = [msgspec.json.encode(row) for row in table.to_pylist()]
    return b"\n".join([*lines, b""])


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs, in words; nothing where there was no job."""
    if not found:
        return ()
    return tuple(sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)))


def _join_parquet(parts: Iterable[Path], schema: pa.Schema, file: BinaryIO) -> int:
    rows = 0
    sink = pa.PythonFile(Sink(file), mode="w")
    with pyarrow.parquet.ParquetWriter(sink, schema, compression=_COMPRESSION) as writer:
        for part in parts:
            table = pyarrow.parquet.read_table(part)
            rows += table.num_rows
            if table.num_rows:
                writer.write_table(table.cast(schema), row_group_size=table.num_rows)
    return rows


def _copy(parts: Iterable[Path], file: BinaryIO) -> int:
    rows = 0
    for piece in _pieces(parts):
        rows += piece.count(b"\n")
        io.disk().write(file, piece)
    return rows


def _pieces(parts: Iterable[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
