"""Crash a piece of work at every durable effect, start again, and see what is broken.

Two models. In the *kill* model the process ends and the operating system goes on: everything that
was written is there. In the *power loss* model only what was synced survives: bytes of files that
were never synced are gone, and names whose directory was never synced are undone. A missing fsync
shows in the second model only, so killing processes alone proves little.

A commit of the database counts as two points, just before it and just after it; what happens
inside is the database's own affair and its own tests'.
"""

import errno
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final, Literal

from genba.core import io

Model = Literal["kill", "power loss"]
Acknowledge = Callable[[str], None]
Work = Callable[[Path, Acknowledge], None]
Check = Callable[[Path, tuple[str, ...]], Iterable[str]]

_CRASHED: Final = 77
_BROKEN: Final = 70


class CrashingDisk(io.Disk):
    """A disk that ends the process just before its n-th effect.

    Args:
        crash_at: Which effect, from 1; 0 for never.
        model: What survives.
        keep: A directory outside the home, where replaced files wait until they are really gone.
        skip: Effects that are forgotten on purpose, "sync" or "sync_directory", to see that the
            model notices.
    """

    def __init__(
        self, crash_at: int, model: Model, keep: Path, *, skip: Collection[str] = ()
    ) -> None:
        self.count = 0
        self._crash_at = crash_at
        self._loses = model == "power loss"
        self._keep = keep
        self._skip = frozenset(skip)
        self._open: dict[int, Path] = {}  # descriptor -> the name it was created under
        self._unsynced: set[Path] = set()
        self._unnamed: list[tuple[Path, Callable[[], None]]] = []  # directory, how to undo

    def create(self, path: Path, mode: int) -> BinaryIO:
        """Create a file."""
        self._effect()
        file = super().create(path, mode)
        self._open[file.fileno()] = path
        self._unsynced.add(path)
        self._unnamed.append((path.parent, lambda: path.unlink(missing_ok=True)))
        return file

    def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
        """Write; the crash leaves half of the data behind."""
        self._unsynced.add(self._open[file.fileno()])
        if self.count + 1 == self._crash_at:
            super().write(file, memoryview(data)[: len(data) // 2])
        self._effect()
        super().write(file, data)

    def sync(self, file: BinaryIO) -> None:
        """Sync a file, or forget to."""
        self._effect()
        if "sync" not in self._skip:
            super().sync(file)
            self._unsynced.discard(self._open[file.fileno()])

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file and remember how to undo it."""
        self._effect()
        before = self._aside(target)
        super().rename(source, target)
        if source in self._unsynced:
            self._unsynced.remove(source)
            self._unsynced.add(target)
        self._unnamed.append((target.parent, lambda: _undo_rename(source, target, before)))

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name and remember how to undo it."""
        self._effect()
        super().link(source, target)
        if source in self._unsynced:
            self._unsynced.add(target)
        self._unnamed.append((target.parent, lambda: target.unlink(missing_ok=True)))

    def sync_directory(self, directory: Path) -> None:
        """Sync a directory, or forget to."""
        self._effect()
        if "sync_directory" not in self._skip:
            super().sync_directory(directory)
            self._unnamed = [(d, undo) for d, undo in self._unnamed if d != directory]

    def make_directory(self, directory: Path) -> None:
        """Make a directory and remember how to undo it."""
        self._effect()
        existed = directory.exists()
        super().make_directory(directory)
        if not existed:
            self._unnamed.append(
                (directory.parent, lambda: shutil.rmtree(directory, ignore_errors=True))
            )

    def remove(self, path: Path) -> None:
        """Remove a file and remember how to undo it."""
        self._effect()
        before = self._aside(path)
        super().remove(path)
        if before is not None:
            self._unnamed.append((path.parent, lambda: _bring_back(before, path)))

    def commit(self, commit: Callable[[], None]) -> None:
        """Commit; the crash comes before or after, never in between."""
        self._effect()
        commit()
        self._effect()

    def _aside(self, path: Path) -> Path | None:
        if not path.exists():
            return None
        before = self._keep / f"{self.count}"
        os.link(path, before)
        return before

    def _effect(self) -> None:
        self.count += 1
        if self.count == self._crash_at:
            self.lose()
            os._exit(_CRASHED)

    def lose(self) -> None:
        """Lose what the model loses when everything stops now."""
        if not self._loses:
            return
        for path in self._unsynced:
            if path.exists():
                path.chmod(0o644)
                os.truncate(path, 0)
        for _, undo in reversed(self._unnamed):
            undo()


def _undo_rename(source: Path, target: Path, before: Path | None) -> None:
    if target.exists():
        target.replace(source)
    if before is not None:
        _bring_back(before, target)


def _bring_back(before: Path, path: Path) -> None:
    if path.parent.is_dir():
        before.replace(path)


class FullDisk(io.Disk):
    """A disk that is full from its n-th effect on, until somebody frees space.

    Args:
        full_at: Which effect, from 1; 0 for never.
        number: The error of the system call; ENOSPC if not given.
    """

    def __init__(self, full_at: int, number: int = errno.ENOSPC) -> None:
        self.count = 0
        self._full_at = full_at
        self._number = number

    @property
    def was_full(self) -> bool:
        """Whether the point was reached."""
        return 0 < self._full_at <= self.count

    def create(self, path: Path, mode: int) -> BinaryIO:
        """Create a file if there is room."""
        self._effect()
        return super().create(path, mode)

    def write(self, file: BinaryIO, data: bytes | memoryview) -> None:
        """Write; a full disk takes half of the data."""
        if 0 < self._full_at <= self.count + 1:
            super().write(file, memoryview(data)[: len(data) // 2])
        self._effect()
        super().write(file, data)

    def sync(self, file: BinaryIO) -> None:
        """Sync a file if there is room."""
        self._effect()
        super().sync(file)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file if there is room."""
        self._effect()
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name if there is room."""
        self._effect()
        super().link(source, target)

    def make_directory(self, directory: Path) -> None:
        """Make a directory if there is room."""
        self._effect()
        super().make_directory(directory)

    def commit(self, commit: Callable[[], None]) -> None:
        """Commit if there is room."""
        self._effect()
        commit()

    def _effect(self) -> None:
        self.count += 1
        if self.was_full:
            raise OSError(self._number, os.strerror(self._number))


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashReport:
    """What was found by crashing at every point."""

    model: Model
    points: int
    violations: tuple[str, ...]


def crash_everywhere(
    work: Work,
    check: Check,
    root: Path,
    *,
    model: Model,
    skip: Collection[str] = (),
    step: int = 1,
) -> CrashReport:
    """Do the work again and again, each time with a crash one effect later.

    Args:
        work: Gets an empty directory, and a function to call with whatever it has promised to
            somebody: from then on it may not be lost.
        check: Gets the directory after the crash and what was promised; says what is broken. It
            also starts the work again, if that must succeed.
        root: A directory for the homes; they are removed.
        model: "kill" or "power loss".
        skip: Effects to forget on purpose, to see that the check notices.
        step: Crash at one in so many effects only, where all of them would take too long.

    Returns:
        How many points there are, to the next whole step, and every violation.

    Raises:
        RuntimeError: If the work fails by itself.
    """
    violations: list[str] = []
    for point in count(1, step):
        home, keep = root / f"home-{point}", root / f"keep-{point}"
        home.mkdir(parents=True)
        keep.mkdir()
        crashed, promises = _once(work, home, CrashingDisk(point, model, keep, skip=skip))
        violations += [f"point {point}: {what}" for what in check(home, promises)]
        shutil.rmtree(home)
        shutil.rmtree(keep)
        if not crashed:
            break
    return CrashReport(model=model, points=point, violations=tuple(violations))


def _once(work: Work, home: Path, disk: CrashingDisk) -> tuple[bool, tuple[str, ...]]:
    """Do the work in a forked process; return whether it crashed, and what it promised."""
    receive, send = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of forking with threads; the child touches none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(receive)
        _child(work, home, disk, send)
    os.close(send)
    with os.fdopen(receive, encoding="utf-8") as pipe:
        promises = tuple(pipe.read().splitlines())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, _CRASHED):
        raise RuntimeError(f"the work failed by itself with exit code {code}")
    return code == _CRASHED, promises


def _child(work: Work, home: Path, disk: CrashingDisk, send: int) -> None:
    code = _BROKEN
    try:
        with io.using(disk):
            work(home, lambda promise: _write_line(send, promise))
        disk.lose()  # the last point: everything was promised, then the power went
        code = 0
    except BaseException:  # noqa: BLE001  a forked child must never return to its caller
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def _write_line(send: int, line: str) -> None:
    os.write(send, f"{line}\n".encode())
