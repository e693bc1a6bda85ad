"""Run a command on a device and hear it out: so long, so much, and then it is ended."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_READ: Final = 1 << 16
_MOST_WORDS: Final = 1 << 16  # of what it complains of


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What came back."""

    code: int  # of the process; negative: the signal that ended it
    out: bytes
    err: bytes
    late: bool = False  # it was ended because it took too long
    endless: bool = False  # it was ended because it said too much


def ask(command: Sequence[str], given: bytes, *, limit_s: float, most_bytes: int) -> Said:
    """Run a command, give it something on standard input, and return what it says.

    A device that never stops talking is cut off, one that never answers is not waited for: the
    command is ended with everything it had started here.

    Args:
        command: The program and its arguments; no shell is involved.
        given: For its standard input.
        limit_s: How long to wait.
        most_bytes: How much to listen to.

    Raises:
        OSError: When there is no such program.
    """
    process = subprocess.Popen(  # noqa: S603  # the user's own command
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err, late = _converse(process, given, limit_s, most_bytes)
        endless = len(out) > most_bytes
        if not (late or endless):
            with suppress(subprocess.TimeoutExpired):  # it closed its ears and mouth, and lives
                process.wait(max(1.0, limit_s / 10))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):  # what was not taken any more
                pipe and pipe.close()
    return Said(code=process.returncode, out=bytes(out), err=bytes(err), late=late, endless=endless)


def _converse(
    process: "subprocess.Popen[bytes]", given: bytes, limit_s: float, most_bytes: int
) -> tuple[bytearray, bytearray, bool]:
    """Write and listen until both ends are closed; return output, complaints, and if it is late."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    rest, until = memoryview(given), time.monotonic() + limit_s
    out, err = bytearray(), bytearray()
    heard = {process.stdout.fileno(): out, process.stderr.fileno(): err}
    into = process.stdin.fileno()
    with selectors.DefaultSelector() as ready:
        for pipe in (into, *heard):
            os.set_blocking(pipe, False)
            ready.register(pipe, selectors.EVENT_WRITE if pipe == into else selectors.EVENT_READ)
        while ready.get_map() and len(out) <= most_bytes:
            left = until - time.monotonic()
            if left <= 0:
                return out, err, True
            for key, _ in ready.select(left):
                if key.fd == into:
                    rest = _give(into, rest)
                    if not rest:
                        ready.unregister(into)
                        process.stdin.close()
                elif not _hear(key.fd, heard[key.fd]):
                    ready.unregister(key.fd)
            del err[:-_MOST_WORDS]
    return out, err, False


def _give(into: int, rest: memoryview) -> memoryview:
    """Write what it takes; one that has gone takes nothing more."""
    try:
        return rest[os.write(into, rest[:_READ]) :]
    except OSError:
        return rest[:0]


def _hear(pipe: int, so_far: bytearray) -> bool:
    """Take what there is, and say whether more may come."""
    data = os.read(pipe, _READ)
    so_far += data
    return bool(data)
