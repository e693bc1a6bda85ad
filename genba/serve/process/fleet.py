"""Several server processes on one port: started together, watched, renewed one by one, stopped.

The kernel gives each new connection to one of the sockets that listen on the port (SO_REUSEPORT,
Linux 3.9; ip(7), socket(7)), so nothing of ours stands between a client and a process. Whoever
looks after them holds the port too, without listening: it stays ours while any of them is down.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from genba.core.problem import Problem
from genba.serve.lanes.probe import processes
from genba.serve.process.listen import CAN_SHARE, reserve
from genba.serve.process.worker import Worker
from genba.serve.settings import Settings, Siblings
from genba.store.home import home_path
from genba.targets.probe import probe

_MOST: Final = 256
_WORKER_MIB: Final = 256  # of the machine's memory for each process, at most half of it together
AUTO: Final = "auto"

#: Makes the child that serves; tests give their own.
MakeWorker = Callable[[Settings], Worker]


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """How many processes there shall be, and why."""

    processes: int  # 0: the first one tells how many
    reason: str = ""


def sized(ready: Mapping[str, Any], cores: int, memory_mib: int) -> Count:
    """Return how many processes use a machine well, from what was measured when one was loaded.

    A package that computes within the event loop, because a batch takes less time than a thread
    costs, keeps its process to one core: then every core gets one. Packages that compute beside
    the loop use all cores from one process.

    Args:
        ready: What the process said: its `lines`, and which of them compute `inline`.
        cores: That may be used.
        memory_mib: That the machine has.

    Example:
        >>> sized({"lines": ["pump"], "inline": ["pump"]}, 4, 16_000).processes
        4
        >>> sized({"lines": ["pump"], "inline": []}, 4, 16_000).processes
        1
    """
    inline = ready.get("inline") or []
    if not ready.get("lines"):
        return Count(processes=1, reason="there is no line to measure yet")
    if not inline:
        return Count(processes=1, reason="its threads use all cores")
    room = max(1, memory_mib // 2 // _WORKER_MIB)
    if room < cores:
        return Count(processes=room, reason=f"as many as {memory_mib} MiB of memory have room for")
    if cores == 1:
        return Count(processes=1, reason="there is one core")
    return Count(processes=cores, reason=f"one per core: {', '.join(inline)} keeps to one each")


class Fleet:
    """The processes that answer at one port.

    Args:
        settings: How they serve; port 0 takes a free one, which is then kept.
        count: How many they are.
        make: Makes each of them.
    """

    def __init__(self, settings: Settings, count: Count, make: MakeWorker = Worker) -> None:
        self.settings = settings
        self.count = count
        self._make = make
        self._workers: list[Worker] = []
        self._gone = 0  # restarts of those that are there no more
        self._held = ExitStack()  # the ports, and the folder of the siblings

    @property
    def restarts(self) -> int:
        """How often a process had to be started again."""
        return self._gone + sum(worker.restarts for worker in self._workers)

    def start(self) -> dict[str, Any]:
        """Start all processes and wait until each answers.

        Returns:
            What the first said when it was ready, with what each said in `workers`.

        Raises:
            Problem: What the first that cannot start says; then none of them runs.
        """
        try:
            if self.count.processes == 0:
                self._scout()
            if not self._workers:
                self._start_all()
        except BaseException:
            self.stop()
            raise
        said = [worker.ready for worker in self._workers]
        self.settings = replace(self.settings, port=int(said[0]["port"]))
        return {**said[0], "workers": said, "reason": self.count.reason}

    def look_after(self) -> str | None:
        """Start what died again; return what happened, if anything did."""
        news = [worker.look_after() for worker in self._workers]
        return "; ".join(sentence for sentence in news if sentence) or None

    def renew(self) -> str:
        """Put a new process in the place of each, one after the other; the port stays open.

        The new one answers before the old one is told to end, so certificates and code are read
        anew while everybody is served.
        """
        if not CAN_SHARE:
            return "this system cannot renew processes; start genba up again"
        for place, old in enumerate(self._workers):
            new = self._make(self.settings)
            try:
                new.start()
            except Problem as problem:
                return f"the servers were not all renewed: {problem.what}"
            self._workers[place] = new
            self._gone += old.restarts
            old.stop()
        return f"{len(self._workers)} server processes were renewed"

    def stop(self) -> None:
        """Ask all processes to finish what they are answering and end; then wait for them."""
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.join()
        self._gone, self._workers = self.restarts, []
        self._held.close()

    def _start_all(self) -> None:
        self.settings = self._reserved()
        self._workers = [self._make(self.settings) for _ in range(self.count.processes)]
        for worker in self._workers:
            worker.launch()
        for worker in self._workers:
            worker.wait()

    def _scout(self) -> None:
        """Start one process, and count by what it measures; it goes on if it is enough."""
        self.count = Count(processes=1, reason="this system cannot share a port")
        self._start_all()
        if not CAN_SHARE:
            return
        machine = probe()
        self.count = sized(self._workers[0].ready, machine.whole_cores, machine.memory_mib)
        if self.count.processes > 1:
            home = home_path(self.settings.home)
            most, reason = processes(self.count.processes, machine.whole_cores, home)
            if most < self.count.processes:
                self.count = Count(processes=most, reason=reason)
        if self.count.processes > 1:
            self.stop()

    def _reserved(self) -> Settings:
        """Take the ports, and a private folder where siblings talk to each other."""
        settings, alone = self.settings, self.count.processes == 1
        siblings = Siblings(workers=self.count.processes, parent=os.getpid())
        if not CAN_SHARE:
            if not alone:
                raise _cannot_share(self.count.processes)
            return replace(settings, siblings=replace(siblings, parent=None))
        port = self._hold(reserve(settings.host, settings.port))
        grpc_port = settings.grpc_port
        if grpc_port is not None:
            grpc_port = self._hold(reserve(settings.host, grpc_port))
        if not alone:
            folder = self._held.enter_context(
                tempfile.TemporaryDirectory(prefix="genba-", ignore_cleanup_errors=True)
            )  # short, because the path of a Unix socket may have 107 bytes only
            siblings = replace(siblings, folder=Path(folder))
        return replace(settings, port=port, grpc_port=grpc_port, siblings=siblings)

    def _hold(self, reserved: socket.socket) -> int:
        self._held.enter_context(reserved)
        return int(reserved.getsockname()[1])


def count(asked: str) -> Count:
    """Return how many processes somebody asks for.

    Args:
        asked: A number, or "auto".

    Raises:
        Problem: G110 for what is neither.

    Example:
        >>> count("4").processes, count("auto").processes
        (4, 0)
    """
    if asked == AUTO:
        return Count(processes=0)
    if not asked.isdecimal() or not asked.isascii() or not 1 <= int(asked) <= _MOST:
        raise Problem(
            "G110",
            f"--processes is a number from 1 to {_MOST}, or auto; it is not {asked!r}.",
            where="--processes",
            tries=["genba up --processes auto", "genba up --processes 2"],
        )
    return Count(processes=int(asked), reason="as asked" if asked != "1" else "")


def _cannot_share(processes: int) -> Problem:
    return Problem(
        "G701",
        f"{processes} processes cannot share a port on this system.",
        where="--processes",
        why="It has no SO_REUSEPORT.",
        tries=["genba up --processes 1"],
    )
