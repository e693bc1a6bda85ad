"""What a device remembers of releases, so that nobody can bring an old one back.

A signature never gets old: a release with a hole that was closed later is still validly signed.
The device therefore remembers the newest release of every line that it used, and refuses older
ones. The file is replaced as a whole and synced before anything answers, so a power cut leaves the
memory of before or of after. Whoever may write to the device's folder can take its memory away;
that is a matter of the folder's owner and mode.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from genba.core.codec import decode, encode
from genba.core.digest import canonical_json
from genba.core.io import explained, make_dirs_durable, write_durable
from genba.core.problem import Problem
from genba.edge.trust import damaged

_FILE: Final = "memory.json"
_LOCK: Final = "memory.lock"
_FORMAT: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A release as it is remembered."""

    release: int  # its number
    root: str  # sha256 of its content
    made_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """A self-test that a release passed on this device."""

    time_ms: int
    difference: float  # relative, largest of all numbers
    latency_ms_p50: float
    latency_ms_p99: float
    machine: str  # what this device was then


@dataclass(frozen=True, kw_only=True, slots=True)
class LineMemory:
    """What is remembered of a line."""

    newest: Mark
    previous: Mark | None = None  # the one used before
    passed: Mapping[str, Passed] = field(default_factory=dict)  # by root; of these two only


class Memory:
    """The memory of a device; safe for several processes.

    Args:
        path: The file; None remembers nothing beyond this process.

    Example:
        >>> memory = Memory(None)
        >>> memory.accept("pump", Mark(release=2, root="ab", made_ms=5))
        >>> memory.of("pump").newest.release, memory.floor_ms
        (2, 5)
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lines: dict[str, LineMemory] = {}

    @classmethod
    def at(cls, state: Path) -> "Memory":
        """Return the memory of a device whose folder this is."""
        return cls(state / _FILE)

    def of(self, line: str) -> LineMemory | None:
        """Return what is remembered of a line.

        Raises:
            Problem: G678 when the memory is damaged.
        """
        return self._read().get(line)

    @property
    def floor_ms(self) -> int:
        """The newest time that a used release was signed at: it is certainly not earlier now."""
        return max((known.newest.made_ms for known in self._read().values()), default=0)

    def accept(self, line: str, mark: Mark) -> None:
        """Remember that a release is used from now on; an older one changes nothing.

        Raises:
            Problem: G674 when another release was used in the meantime that is newer, or has the
                same number; G678, G303 or G304 when the memory cannot be read or written.
        """
        with self._changing() as lines:
            known = lines.get(line)
            check_not_older(line, mark, known)
            if known is None:
                lines[line] = LineMemory(newest=mark)
            elif mark.release > known.newest.release:
                kept = {mark.root, known.newest.root}
                lines[line] = LineMemory(
                    newest=mark,
                    previous=known.newest if known.newest.release else None,
                    passed={root: p for root, p in known.passed.items() if root in kept},
                )

    def remember_pass(self, line: str, mark: Mark, passed: Passed) -> None:
        """Remember that a release passed its self-test here; it need not be in use yet."""
        none = Mark(release=0, root="", made_ms=0)  # any release is newer than this
        with self._changing() as lines:
            known = lines.get(line) or LineMemory(newest=none)
            kept = {mark.root, known.newest.root}
            if known.previous:
                kept.add(known.previous.root)
            tests = {root: p for root, p in known.passed.items() if root in kept}
            lines[line] = replace(known, passed={**tests, mark.root: passed})

    def _read(self) -> dict[str, LineMemory]:
        if self.path is None:
            return self._lines
        try:
            body: Any = json.loads(self.path.read_bytes())
            if body["format"] != _FORMAT:
                raise damaged(self.path, f"Its format is {body['format']!r}.")
            return {name: decode(LineMemory, one) for name, one in body["lines"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(self.path, f"{type(error).__name__}: {error}") from error
        except Problem as problem:
            raise damaged(self.path, problem.what) from problem

    @contextmanager
    def _changing(self) -> Iterator[dict[str, LineMemory]]:
        """Let one process at a time read, change and write the memory."""
        if self.path is None:
            yield self._lines
            return
        make_dirs_durable(self.path.parent)
        with explained(self.path.parent):
            lock = os.open(self.path.parent / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lines = self._read()
            before = canonical_json(encode(lines))
            yield lines
            if canonical_json(encode(lines)) != before:
                body = {"format": _FORMAT, "lines": encode(lines)}
                write_durable(self.path, canonical_json(body))
        finally:
            os.close(lock)


def check_not_older(line: str, mark: Mark, known: LineMemory | None) -> None:
    """Refuse a release that is older than what this device had.

    Args:
        line: Of the release.
        mark: The release.
        known: What is remembered of the line.

    Raises:
        Problem: G674 when it is older, or another one has the same number.
    """
    if known is None or mark.release > known.newest.release or mark.root == known.newest.root:
        return
    newest = known.newest
    same = mark.release == newest.release
    raise Problem(
        "G674",
        f"The release {mark.release} of {line} is "
        + ("not the one that this device had." if same else "older than what this device had."),
        where=line,
        why=f"This device used release {newest.release}, sha256 {newest.root[:16]}….",
        tries=[f"genba export edge {line} --to DIR  # a new release", "genba explain G674"],
    )
