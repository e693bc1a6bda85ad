"""A server's processes: started, waited for, counted (CPU, memory) and stopped; and the others.

A server is every process that carries its mark in its environment, so that workers which leave
their parent's tree are counted, and stopped, too.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_MARK: Final = "GENBA_BENCH_MARK"
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_USED: Final = slice(11, 15)  # of /proc/PID/stat after the name: own, and of children that ended
_STOP_S: Final = 15.0
_LOOK_S: Final = 0.2
_IDLE_CORES: Final = 0.3  # Ray and LitServe are never quite idle
_PROC: Final = Path("/proc")


class NotStarted(RuntimeError):
    """A server that does not come up, with the last it said."""


class Launched:
    """A server that was started; a context that stops it.

    Args:
        command: What to run.
        environment: Besides this process's own.
        folder: Where it runs; one of its own if not given.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # closed in stop()
        own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        self._began = time.perf_counter()
        self.start_s = 0.0
        self._process = subprocess.Popen(
            command,
            env={**own, **environment, _MARK: self._mark},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, answers: Callable[[], object], timeout_s: float) -> None:
        """Wait until a question is answered.

        Args:
            answers: Asks; raises while there is no answer.
            timeout_s: How long to wait.

        Raises:
            NotStarted: If the process ends or time is up.
        """
        until = time.perf_counter() + timeout_s
        last: Exception | None = None
        while time.perf_counter() < until:
            if self._process.poll() is not None:
                raise NotStarted(f"it ended with exit code {self._process.returncode}: {self.said}")
            try:
                answers()
            except Exception as error:  # noqa: BLE001  # whatever a half-started server does
                last = error
                time.sleep(0.1)
            else:
                self.start_s = time.perf_counter() - self._began
                return
        raise NotStarted(f"no answer within {timeout_s:g} s ({last}): {self.said}")

    @property
    def said(self) -> str:
        """The last lines of what it printed, in one."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - 4_096))
        lines = self._output.read().decode(errors="replace").split("\n")
        return " | ".join(line.strip() for line in lines if line.strip())[-600:]

    def pids(self) -> list[int]:
        """Every living process of this server."""
        mark = f"{_MARK}={self._mark}".encode()
        return [pid for pid in _all_pids() if mark in _read(pid, "environ")]

    def stop(self) -> None:
        """Ask it to stop, then make it; only processes that carry the mark are touched."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + (_STOP_S if number == signal.SIGTERM else 2.0)
            for pid in self.pids():
                _signal(pid, number)
            while self.pids() and time.monotonic() < until:
                time.sleep(0.1)
        self._process.wait()
        self._output.close()

    def __enter__(self) -> Self:
        """Return the server itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a server holds: the sum over its processes, and the largest of them."""

    processes: int
    pss_mib: float
    largest_mib: float


def memory(pids: Sequence[int]) -> Memory:
    """Return proportional set sizes, in which shared pages are counted once."""
    sizes = [size for pid in pids if (size := _pss_mib(pid)) > 0]
    return Memory(processes=len(sizes), pss_mib=sum(sizes), largest_mib=max(sizes, default=0.0))


def cpu_s(pids: Sequence[int]) -> dict[int, float]:
    """Return user and system seconds by process, with those of its children that have ended."""
    used = {}
    for pid in pids:
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        if fields:
            used[pid] = sum(map(int, fields[_USED])) * _TICK_S
    return used


def machine_cpu_s() -> tuple[float, float]:
    """Return busy seconds of all cores, and those that the host took away."""
    values = [int(v) for v in (_PROC / "stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, soft, steal = values[:8]
    return (user + nice + system + irq + soft) * _TICK_S, steal * _TICK_S


def foreign_cores(seconds: float = 0.25) -> float:
    """Return how many cores are busy now; ask when nothing of ours runs."""
    before = machine_cpu_s()[0]
    time.sleep(seconds)
    return (machine_cpu_s()[0] - before) / seconds


def settle(pids: Sequence[int], most_s: float = 5.0) -> None:
    """Wait until a server has finished what clients that are gone had asked it.

    Args:
        pids: Its processes.
        most_s: The longest to wait.
    """
    until = time.monotonic() + most_s
    idle = 0  # twice, because a server that got no core for a moment looks idle too
    while time.monotonic() < until and idle < 2:
        before = sum(cpu_s(pids).values())
        time.sleep(_LOOK_S)
        used = sum(cpu_s(pids).values()) - before
        idle = idle + 1 if used < _IDLE_CORES * _LOOK_S else 0


def free_port(more: int = 3) -> int:
    """Return a port that is free, as are the next ones."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
        if port + more < 65_536 and all(_is_free(port + n) for n in range(more)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _all_pids() -> list[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def _pss_mib(pid: int) -> float:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
