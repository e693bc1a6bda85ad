"""What stands between a package and the server: it is tried in a child process first.

The result is kept in the home, by package, machine and version of the engine, so a server that
starts again does not try again. Servers of one home try a package once, not each for itself.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from genba.core import io
from genba.core.codec import decode
from genba.core.digest import canonical_json, digest_json
from genba.core.problem import Problem
from genba.core.resolve import resolve
from genba.core.values import Manifest
from genba.edge.package import MODEL_FILE
from genba.serve.limits import Limits
from genba.targets.probe import fingerprint, probe

_FORMAT: Final = 1  # of the trial itself: another one asks for another trial
_GRACE_S: Final = 10.0  # for the child to start and to say that a package took too long
_LOOK_S: Final = 0.02
_PIECE: Final = 65_536
_MIB: Final = 1 << 20
CRASHED: Final = "G775"
LATE: Final = "G776"
LEAKS: Final = "G777"


class Stopped(Exception):
    """The server ends while a package is being tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a package came to where it could do no harm."""

    package: str
    bytes: int  # of memory that it takes
    seconds: float  # of loading, testing and warming up


class Trials:
    """Tries packages, one after another. Used by one thread; `close` may come from any.

    Args:
        home: The home; results are kept in its `trials`.
        limits: Of the server.
    """

    def __init__(self, home: Path, limits: Limits) -> None:
        self._folder = home / "trials"
        self._blobs = home / "blobs"
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def passed(self, package: str, manifest: Manifest) -> Trial:
        """Return how a package did, now or when it was first tried on this machine.

        Args:
            package: Its id.
            manifest: Of it.

        Raises:
            Problem: What loading it says; G775 when it crashes, G776 when it takes too long, G777
                when it leaks memory.
            Stopped: When `close` was called meanwhile.
        """
        path = self._folder / f"{_key(package, manifest)}.json"
        if (known := _read(path)) is not None:
            return known
        io.make_dirs_durable(self._folder)
        with self._alone(path):
            if (known := _read(path)) is not None:  # another server tried it meanwhile
                return known
            trial = self.attempt(package, manifest, self._limits.leak_s)
            io.write_durable(path, canonical_json(asdict(trial)))
            return trial

    def attempt(self, package: str, manifest: Manifest, leak_s: float) -> Trial:
        """Try a package now, whatever is known of it; a longer `leak_s` finds slower leaks.

        Raises:
            Problem: As for `passed`.
            Stopped: When `close` was called meanwhile.
        """
        limits = self._limits
        told = self._ask(
            {
                "package": package,
                "engine": manifest.engine.name,
                "graph": MODEL_FILE in manifest.files,
                "settings": dict(manifest.engine.settings),
                "blobs": str(self._blobs),
                "limits": asdict(limits),
                "seconds": limits.trial_s + leak_s,
                "bytes": memory_cap(limits) + _headroom(),
                "leak_s": leak_s,
            },
            limits.trial_s + leak_s + _GRACE_S,
        )
        if "problem" in told:
            raise _rebuilt(told["problem"])
        if "bytes" not in told:
            raise _ended(package, told, limits.trial_s)
        if told["leaks"]:
            raise leaking(package, told["leaks"])
        return Trial(package=package, bytes=told["bytes"], seconds=told["seconds"])

    def rest(self) -> None:
        """End the child until it is needed again; it takes as much memory as a small server."""
        child, self._child = self._child, None
        if child is not None:
            _kill(child)
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(BrokenPipeError):
                    assert pipe is not None
                    pipe.close()

    def close(self) -> None:
        """End a trial that is going on, and try nothing any more."""
        self._stopping.set()
        if (child := self._child) is not None:
            _kill(child)

    def _ask(self, asked: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        child = self._child = self._child or _start()
        if self._stopping.is_set():
            _kill(child)
        assert child.stdin is not None
        assert child.stdout is not None
        said, late = b"", False
        try:
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
            said = _line(child.stdout.fileno(), time.monotonic() + seconds)
        except TimeoutError:
            late = True
        except BrokenPipeError:
            pass  # it is dead, and its exit code says how
        if said.endswith(b"\n"):
            told: dict[str, Any] = json.loads(said)
            return told
        self.rest()
        if self._stopping.is_set():
            raise Stopped
        return {"late": True} if late else {"exit": child.returncode}

    @contextlib.contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Keep other servers of the home from trying the same package at the same time."""
        with path.with_suffix(".lock").open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._stopping.wait(_LOOK_S):
                        raise Stopped from None
            try:
                yield
            finally:
                Path(file.name).unlink(missing_ok=True)


def memory_cap(limits: Limits) -> int:
    """Return how many bytes the packages of a server may take: half of what there is, unless set.

    Args:
        limits: Of the server.
    """
    return limits.memory_bytes or probe().memory_mib * _MIB // 2


def leaking(package: str, size: int) -> Problem:
    """Return the Problem of a package that does not give memory back, `size` bytes a batch."""
    return Problem(
        LEAKS,
        f"The package keeps about {size} bytes of memory with every batch that it computes.",
        where=package,
        tries=["genba trace PACKAGE", "genba explain G777"],
    )


def crashing(package: str, how: str) -> Problem:
    """Return the Problem of a package that took a server down."""
    return Problem(
        CRASHED,
        f"The package crashed the process that it ran in: {how}.",
        where=package,
        tries=["genba trace PACKAGE", "genba explain G775"],
    )


def _headroom() -> int:
    """Return what a process needs besides the package: libraries, threads, the golden samples."""
    return 512 * _MIB


def _start() -> "subprocess.Popen[bytes]":
    # One thread each, so that the child may fork; the engine's own are started after that.
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "genba.serve.packages.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **threads},
        start_new_session=True,  # so that it can be ended together with what it has forked
    )


def _kill(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _line(file: int, until_s: float) -> bytes:
    """Read a line, or what came of it before the end; raise TimeoutError when nothing comes."""
    said = b""
    while not said.endswith(b"\n"):
        ready, _, _ = select.select([file], [], [], max(until_s - time.monotonic(), 0.0))
        if not ready:
            raise TimeoutError
        piece = os.read(file, _PIECE)
        if not piece:
            break
        said += piece
    return said


def _key(package: str, manifest: Manifest) -> str:
    version = resolve("engine", manifest.engine.name).version()
    return digest_json([_FORMAT, package, fingerprint(), manifest.engine.name, version])


def _read(path: Path) -> Trial | None:
    try:
        return decode(Trial, json.loads(path.read_bytes()))
    except (OSError, ValueError, Problem):  # absent, or damaged: then it is tried again
        return None


def _rebuilt(told: Mapping[str, Any]) -> Problem:
    return Problem(
        told["code"], told["what"], where=told["where"], why=told["why"], tries=told["try"]
    )


def _ended(package: str, told: Mapping[str, Any], limit_s: float) -> Problem:
    if "late" in told:
        return Problem(
            LATE,
            f"The package was not loaded and warm within {limit_s:g} s.",
            where=package,
            tries=["genba trace PACKAGE", "genba explain G776"],
        )
    if "error" in told:
        return crashing(package, told["error"])
    if "signal" in told:
        return crashing(package, signal.strsignal(told["signal"]) or f"signal {told['signal']}")
    return crashing(package, f"it ended with exit code {told['exit']}")
