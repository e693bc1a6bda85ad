"""Who was at work when the server died: a few bytes in a file that outlive the process.

A native runtime that crashes takes its process along and leaves no exception. So every thread
that computes a batch notes in a mapped file which package it is computing; the kernel keeps the
file when the process is gone. Beside it lies what `faulthandler` writes when a fatal signal
arrives: without that (a power cut, a `kill -9`, the memory killer) nobody is blamed.
"""

import contextlib
import faulthandler
import fcntl
import mmap
import re
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from genba.core import io

_THREADS: Final = 64  # that compute; more than these share the last slot
_PACKAGES: Final = 512
_ID_BYTES: Final = 64
_SLOT: Final = struct.Struct("<QQ")  # thread identity, number of the package it computes
_TABLE: Final = _THREADS * _SLOT.size
_SIZE: Final = _TABLE + _PACKAGES * _ID_BYTES
_FATAL: Final = re.compile(rb"^Fatal Python error: (.+)$|^(Timeout) \(", re.MULTILINE)
_CURRENT: Final = re.compile(rb"^Current thread 0x([0-9a-f]+)", re.MULTILINE)
_THREAD: Final = re.compile(rb"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)
_MOST_EVIDENCE: Final = 65_536
#: The words of `faulthandler` for what a person knows by another name.
_WORDS: Final = {"Timeout": "it did not come back"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """How a server died in the middle of computing."""

    server: str
    how: str  # "Segmentation fault", or that it hung
    packages: tuple[str, ...]  # who did it: one, or all that were computing when it is not clear


class Marker:
    """The marks of one server. Made once, before its threads compute anything.

    Args:
        folder: Of the home's marks; made if missing.
        server: Id of the server.
    """

    def __init__(self, folder: Path, server: str) -> None:
        io.make_dirs_durable(folder)
        self._path = folder / f"{server}.marks"
        self._evidence_path = folder / f"{server}.died"
        self._file = self._path.open("x+b")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # the kernel lets go of it when we die
        self._file.truncate(_SIZE)
        self._map = mmap.mmap(self._file.fileno(), _SIZE)
        self._words = memoryview(self._map)[:_TABLE].cast("Q")
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()
        self._taken = 0
        self._steady: dict[int, int] = {}  # package number -> slot
        self._own = threading.local()
        self._evidence: BinaryIO | None = None
        self._patient = 0

    def number(self, package: str) -> int:
        """Return the number of a package for `enter`; 0, which blames nobody, beyond 511."""
        with self._lock:
            known = self._numbers.get(package)
            if known is None and len(self._numbers) + 1 < _PACKAGES:
                known = self._numbers[package] = len(self._numbers) + 1
                at = _TABLE + known * _ID_BYTES
                self._map[at : at + _ID_BYTES] = package.encode().ljust(_ID_BYTES)[:_ID_BYTES]
            return known or 0

    def enter(self, number: int) -> None:
        """Note that this thread computes a package from now on."""
        try:
            self._words[self._own.at] = number
        except AttributeError:
            self._words[self._take_slot()] = number

    def leave(self) -> None:
        """Note that this thread has come back; `enter` comes first."""
        self._words[self._own.at] = 0

    def steady(self, number: int) -> Callable[[bool], None]:
        """Return what notes that a package is at work on threads of its own, until it is not."""
        with self._lock:
            slot = self._steady.get(number)
            if slot is None:
                slot = self._steady[number] = min(self._taken, _THREADS - 1)
                self._taken += 1
        self._words[2 * slot] = slot + 1  # no thread has such an identity

        def note(busy: bool) -> None:
            with contextlib.suppress(ValueError):  # the marks are closed: the server ends
                self._words[2 * slot + 1] = number if busy else 0

        return note

    def watch(self, hang_s: float) -> None:
        """Write down fatal signals from now on, and end the process unless this is called again.

        A thread without Python does it, so it also ends a process that a native call holds up.

        Args:
            hang_s: Until when this must be called again, in seconds.
        """
        if self._evidence is None:
            self._evidence = self._evidence_path.open("wb")
            faulthandler.enable(self._evidence, all_threads=True)
        if not self._patient:
            faulthandler.dump_traceback_later(hang_s, file=self._evidence, exit=True)

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """End no process inside the block: a runtime that loads may keep Python waiting."""
        self._patient += 1
        faulthandler.cancel_dump_traceback_later()
        try:
            yield
        finally:
            self._patient -= 1

    def close(self) -> None:
        """Forget everything: the server ends as it should."""
        if self._evidence is not None:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
            self._evidence.close()
        self._words.release()
        self._map.close()
        for path in (self._evidence_path, self._path):
            path.unlink(missing_ok=True)
        self._file.close()

    def _take_slot(self) -> int:
        with self._lock:
            slot = min(self._taken, _THREADS - 1)
            self._taken += 1
        self._words[2 * slot] = threading.get_ident()
        self._own.at = 2 * slot + 1
        return 2 * slot + 1


@contextlib.contextmanager
def deaths(folder: Path) -> Iterator[list[Death]]:
    """Give the deaths that nobody has looked into yet; they count as looked into afterwards.

    Of several servers that start at once, one gets each death. If the block raises, the next to
    look gets it again.

    Args:
        folder: Of the home's marks.
    """
    found: list[Death] = []
    with contextlib.ExitStack() as held:
        done: list[Path] = []
        for path in sorted(folder.glob("*.marks")):
            with contextlib.suppress(OSError):  # another server's, alive, or already looked into
                file = held.enter_context(path.open("rb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not path.exists():
                    continue
                evidence = path.with_suffix(".died")
                death = _read(path.stem, file.read(_SIZE), _said(evidence))
                found += [death] if death else []
                done += [evidence, path]
        yield found
        for path in done:
            path.unlink(missing_ok=True)


def _said(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_EVIDENCE)
    except FileNotFoundError:
        return b""


def _read(server: str, marks: bytes, evidence: bytes) -> Death | None:
    fatal = _FATAL.search(evidence)
    if fatal is None or len(marks) != _SIZE:
        return None  # it was killed from outside, or ended before it began
    at_work = {
        thread: marks[_TABLE + number * _ID_BYTES :][:_ID_BYTES].decode().strip()
        for thread, number in _SLOT.iter_unpack(marks[:_TABLE])
        if 0 < number < _PACKAGES
    }
    # The thread that got a signal is named; what hangs is the event loop, on the main thread,
    # which comes last. A runtime's own thread is in no list: then all that computed are suspects.
    named = (_CURRENT if fatal[1] else _THREAD).findall(evidence)
    culprit = at_work.get(int(named[-1], 16)) if named else None
    packages = {culprit} if culprit else set(at_work.values())
    how = (fatal[1] or fatal[2]).decode("ascii", "replace")
    return Death(server=server, how=_WORDS.get(how, how), packages=tuple(sorted(packages)))
