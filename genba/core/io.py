"""The only writer of files: nothing is named before it is whole and safe on the disk.

Every durable effect of the process goes through one `Disk` object: write, fsync, rename, fsync of
the directory, database commit. Tests put another in its place, which crashes at the n-th effect,
forgets what was never synced, or says that the disk is full (`genba.testing.crash`).
"""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from genba.core.problem import Problem

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_REFUSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_FILE_MODE: Final = 0o644


class Disk:
    """The durable effects, one method each. What survives a power cut is decided here."""

    def create(self, path: Path, mode: int) -> BinaryIO:
        """Create a new file and open it for writing."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
        return os.fdopen(os.open(path, flags, mode), "wb", buffering=0)

    def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
        """Write all of the data; it is safe only after `sync`."""
        rest = memoryview(data)
        while len(rest):
            rest = rest[file.write(rest) :]

    def sync(self, file: BinaryIO) -> None:
        """Make what was written survive a power cut."""
        os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name at once; the name is safe only after `sync_directory`."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; FileExistsError when that is taken."""
        os.link(source, target)

    def sync_directory(self, directory: Path) -> None:
        """Make the names in a directory survive a power cut."""
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_directory(self, directory: Path) -> None:
        """Create a directory; it is no error if it exists."""
        with suppress(FileExistsError):
            directory.mkdir()

    def remove(self, path: Path) -> None:
        """Remove a file; it is no error if it is not there."""
        path.unlink(missing_ok=True)

    def commit(self, commit: Callable[[], None]) -> None:
        """Commit a database transaction; the database syncs for itself."""
        commit()


_disk = Disk()


def disk() -> Disk:
    """Return the disk that this process writes through."""
    return _disk


@contextmanager
def using(other: Disk) -> Iterator[None]:
    """Write through another disk inside the block; for tests and drills."""
    global _disk  # the one place where a process has exactly one disk
    before, _disk = _disk, other
    try:
        yield
    finally:
        _disk = before


@contextmanager
def explained(where: Path) -> Iterator[None]:
    """Turn a full or read-only disk into the Problem that says what to do.

    Raises:
        Problem: G303 when the disk is full, G304 when writing is not allowed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(where) from error
        if error.errno in _REFUSED:
            raise not_writable(where) from error
        raise


def disk_full(where: Path | str) -> Problem:
    """Return the Problem of a full disk."""
    return Problem(
        "G303",
        "The disk is full; nothing was half-written.",
        where=str(where),
        why="What was finished before is kept; the same command continues from there.",
        tries=[f"df -h {where}", f"du -sh {where}/*", "free some space and repeat the command"],
    )


def not_writable(where: Path | str) -> Problem:
    """Return the Problem of a place that this user may not write to."""
    return Problem(
        "G304",
        "Genba may not write here.",
        where=str(where),
        why="The directory is read-only or belongs to another user.",
        tries=[f"ls -ld {where}", "export GENBA_HOME=~/genba"],
    )


@contextmanager
def new_file(directory: Path, *, mode: int = _FILE_MODE) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a file under a temporary name; it is synced on the way out, removed on an error.

    Yields:
        The temporary path and the file; rename it with `replace_durable` after the block.
    """
    path = directory / f".{secrets.token_hex(8)}.tmp"
    with explained(directory):
        file = _disk.create(path, mode)
        try:
            with file:
                yield path, file
                _disk.sync(file)
        except BaseException:
            discard(path)
            raise


def discard(path: Path) -> None:
    """Remove a temporary file, even when the disk itself is failing."""
    with suppress(OSError):
        _disk.remove(path)


def replace_durable(source: Path, target: Path) -> None:
    """Rename a synced file to its final name and make the name durable.

    Raises:
        Problem: G303 when the disk is full, G304 when writing is not allowed.
    """
    with explained(target.parent):
        _disk.rename(source, target)
        _disk.sync_directory(target.parent)


def write_durable(path: Path, data: bytes, *, mode: int = _FILE_MODE) -> None:
    """Write a file so that it is, whatever happens, either the old one or all of the new one.

    Raises:
        Problem: G303 when the disk is full, G304 when writing is not allowed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.json"
        >>> write_durable(path, b"{}")
        >>> path.read_bytes()
        b'{}'
    """
    with new_file(path.parent, mode=mode) as (temporary, file):
        _disk.write(file, data)
    try:
        replace_durable(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def create_durable(path: Path, data: bytes, *, mode: int = _FILE_MODE) -> bool:
    """Write a file unless there is one; of several processes that try at once, one succeeds.

    Returns:
        Whether it is this one's.

    Raises:
        Problem: G303 when the disk is full, G304 when writing is not allowed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "key"
        >>> create_durable(path, b"mine"), create_durable(path, b"yours"), path.read_bytes()
        (True, False, b'mine')
    """
    with new_file(path.parent, mode=mode) as (temporary, file):
        _disk.write(file, data)
    try:
        with explained(path.parent):
            _disk.link(temporary, path)
            _disk.sync_directory(path.parent)
    except FileExistsError:
        return False
    finally:
        discard(temporary)
    return True


def make_dirs_durable(directory: Path) -> None:
    """Create a directory and its parents, and make them survive a power cut.

    Raises:
        Problem: G303 when the disk is full, G304 when writing is not allowed.
    """
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    with explained(directory):
        for path in reversed(missing):
            _disk.make_directory(path)
            _disk.sync_directory(path.parent)
