"""Content-addressed files: a blob is named by the sha256 of its bytes and never changes."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from genba.core import io
from genba.core.digest import digest_bytes, digest_file, is_digest
from genba.core.problem import Problem

_STALE_S: Final = 86_400.0  # a temporary file this old belongs to a process that died
_BLOB_MODE: Final = 0o444


class BlobWriter:
    """A file object that hashes what is written; `.digest` is known after the `with` block."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        self.digest = ""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write bytes and return how many."""
        view = memoryview(data).cast("B")
        io.disk().write(self._file, view)
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        """Do nothing; bytes go to the file at once and are synced at the end."""

    def tell(self) -> int:
        """Return the number of bytes written, as writers of Parquet and zip files ask."""
        return self.size

    @property
    def closed(self) -> bool:
        """Say whether the blob is finished."""
        return self._file.closed

    def _finish(self) -> None:
        self.digest = self._hash.hexdigest()


class Blobs:
    """Blobs below one directory, as `root/ab/cdef…`.

    Example:
        >>> import tempfile
        >>> blobs = Blobs(Path(tempfile.mkdtemp()))
        >>> blobs.read(blobs.put(b"rows"))
        b'rows'
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._durable: set[str] = set()  # digests whose names this process knows to be synced

    def put(self, data: bytes | bytearray | memoryview) -> str:
        """Store bytes and return their digest; storing them again costs no space.

        Raises:
            Problem: G303 when the disk is full, G304 when writing is not allowed.
        """
        digest = digest_bytes(data)
        if not self._present(digest):
            with self._file() as (path, file):
                io.disk().write(file, memoryview(data))
            self._name(path, digest)
        return digest

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Write a blob piece by piece; it exists when the block has ended without an error.

        Example:
            >>> import tempfile
            >>> blobs = Blobs(Path(tempfile.mkdtemp()))
            >>> with blobs.writer() as writer:
            ...     _ = writer.write(b"a"), writer.write(b"b")
            >>> blobs.read(writer.digest)
            b'ab'
        """
        with self._file() as (path, file):
            writer = BlobWriter(file)
            yield writer
            writer._finish()
        if self._present(writer.digest):
            io.discard(path)
        else:
            self._name(path, writer.digest)

    def read(self, digest: str) -> bytes:
        """Return the bytes of a blob, verified.

        Raises:
            Problem: G302 when the blob is missing or its bytes are not those it was named after.
        """
        data = self.path(digest).read_bytes()
        if digest_bytes(data) != digest:
            raise self._damaged(digest)
        return data

    def verify(self, digest: str) -> None:
        """Check a blob of any size without holding it in memory.

        Raises:
            Problem: G302 when the blob is missing or damaged.
        """
        if digest_file(self.path(digest)) != digest:
            raise self._damaged(digest)

    def path(self, digest: str) -> Path:
        """Return where a blob lies, for readers that want a file; its bytes are not verified.

        Raises:
            Problem: G302 when there is no such blob.
        """
        if not self.has(digest):
            raise Problem(
                "G302",
                f"The blob {digest[:12]} is not in the store.",
                where=str(self.root),
                why="It was never stored here, or the directory was copied without it.",
                tries=["genba doctor --verify", "genba run LINE"],
            )
        return self._place(digest)

    def has(self, digest: str) -> bool:
        """Say whether a blob is stored."""
        return is_digest(digest) and self._place(digest).is_file()

    def size(self, digest: str) -> int:
        """Return the size of a blob in bytes."""
        return self.path(digest).stat().st_size

    def digests(self) -> Iterator[str]:
        """Yield the digest of every blob, sorted."""
        for shard in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(shard.iterdir()):
                if is_digest(shard.name + path.name):
                    yield shard.name + path.name

    def sweep(self) -> None:
        """Remove what processes that died left half-written.

        Only files older than a day are touched, so that no living writer is disturbed.
        """
        before = time.time() - _STALE_S
        for path in self._incoming.glob(".*.tmp"):
            with suppress(FileNotFoundError):  # its writer is done with it meanwhile
                if path.stat().st_mtime < before:
                    io.discard(path)

    def _place(self, digest: str) -> Path:
        return self.root / digest[:2] / digest[2:]

    @contextmanager
    def _file(self) -> Iterator[tuple[Path, BinaryIO]]:
        if not self._incoming.is_dir():
            io.make_dirs_durable(self._incoming)
        with io.new_file(self._incoming, mode=_BLOB_MODE) as opened:
            yield opened

    def _name(self, path: Path, digest: str) -> None:
        place = self._place(digest)
        try:
            if not place.parent.is_dir():
                io.make_dirs_durable(place.parent)
            io.replace_durable(path, place)
        except BaseException:
            io.discard(path)
            raise
        self._durable.add(digest)

    def _present(self, digest: str) -> bool:
        """Say whether the blob is there, whole and durable; a damaged one is written again."""
        if digest in self._durable and self.has(digest):
            return True
        place = self._place(digest)
        if not place.is_file() or digest_file(place) != digest:
            return False
        # The process that named it may have died before the name was safe.
        with io.explained(place.parent):
            io.disk().sync_directory(place.parent)
            io.disk().sync_directory(self.root)
        self._durable.add(digest)
        return True

    def _damaged(self, digest: str) -> Problem:
        return Problem(
            "G302",
            f"The blob {digest[:12]} is damaged: its bytes are not those it was named after.",
            where=str(self._place(digest)),
            why="The file was changed, or the disk returned other bytes than were written.",
            tries=[f"rm {self._place(digest)}", "genba run LINE"],
        )
