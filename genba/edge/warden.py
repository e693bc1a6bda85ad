"""A process that does risky work in a child of its own, and outlives whatever becomes of it.

The warden loads nothing risky itself. For each piece of work it forks a child, hands messages to
and fro, and watches: a child that crashes, takes too long or too much memory is ended with all its
descendants, and the other side is told why in one message. When the other side goes away, the
child goes too. Forking takes milliseconds where a new interpreter takes half a second.

What a child prints is noise: its last words explain a crash, and are never mistaken for an answer.
"""

import ctypes
import os
import resource
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from genba.core.protocols import JsonObject
from genba.edge.frames import Incoming, Message, pack

Work = Callable[[int, int], None]  # reads messages from one descriptor, answers on the other

BEAT_S: Final = 2.0  # so often the other side hears that there is still someone
_TICK_S: Final = 0.05
_LEAVING_S: Final = 1.0  # between the end of its answers and its own
_READ: Final = 1 << 20
_LAST_WORDS: Final = 4096
_KIB_PER_MIB: Final = 1024
_SHARE: Final = 0.8  # of the memory that is free; what all else on the machine needs stays
_BACKSTOP_MIB: Final = 1024  # above the limit a request for memory fails at once
_PDEATHSIG, _SUBREAPER = 1, 36  # of prctl(2)
_WORST_SCORE: Final = "1000"  # where memory runs out, this process is ended first


@dataclass(slots=True)
class _Child:
    """The child and what is known of it."""

    pid: int
    into: int
    out: int
    noise: int
    base_mib: float
    limit_mib: float
    to_send: memoryview = field(default_factory=lambda: memoryview(b""))
    incoming: Incoming = field(default_factory=Incoming)
    words: bytes = b""
    began: float = 0.0
    limit_s: float = 0.0  # 0: it has nothing to do
    silent: bool = False  # it will not answer any more


class Warden:
    """Serves one conversation.

    Args:
        work: What the child does; it ends when its descriptor does.
        source: Where messages come from: `{"do": "open" | "close" | ..., "limit_s", "memory_mib"}`.
            "open" begins a new child and ends the one before, "close" ends it, all else goes to it.
        sink: Where answers go. Besides what the child answers: `{"beat": true}` while it works,
            `{"refused": "crashed" | "hung" | "memory", "why": ...}` when it is over.
    """

    def __init__(self, work: Work, source: int = 0, sink: int = 1) -> None:
        self._work = work
        self._source = source
        self._sink = sink
        self._child: _Child | None = None
        self._incoming = Incoming()
        self._waiting: deque[Message] = deque()  # said, and not done yet
        self._ended = False  # nothing more will be said
        self._beat = 0.0

    def serve(self) -> None:
        """Work until the other side has nothing more to say and knows all answers, or is gone."""
        _prctl(_SUBREAPER, 1)
        signal.signal(signal.SIGTERM, _leave)
        try:
            self._say({"hello": os.getpid()})
            while self._step():
                pass
        except (ValueError, BrokenPipeError):
            pass  # nobody there, or nobody who can be understood
        finally:
            self._end()

    def _step(self) -> bool:
        """Do what is next; False when there is nothing left to do."""
        busy = self._child is not None and self._child.limit_s > 0
        if not busy and self._waiting:
            self._take(self._waiting.popleft())
            return True
        if self._ended and (not busy or _is_broken(self._sink)):
            return False
        ready = self._wait(busy=busy)
        if self._source in ready:
            data = os.read(self._source, _READ)
            self._ended = not data
            self._waiting.extend(self._incoming.feed(data))
        if self._child is not None:
            self._attend(self._child, ready)
        return True

    def _wait(self, *, busy: bool) -> set[int]:
        child = self._child
        reading, writing = [] if self._ended else [self._source], []
        if child is not None:
            reading += [child.noise] if child.silent else [child.noise, child.out]
            writing = [child.into] if child.to_send else []
        patience = _TICK_S if busy else None if child is None else BEAT_S
        found = select.select(reading, writing, (), patience)
        return {*found[0], *found[1]}

    def _take(self, message: Message) -> None:
        do = message.header.get("do")
        if do in ("open", "close"):
            self._end()
        if do == "close":
            self._say({"closed": True})
            return
        if do == "open":
            self._child = self._fork(message.header)
        child = self._child
        if child is None:
            self._say({"refused": "crashed", "why": "Nothing is open."})
            return
        child.to_send = memoryview(pack(message.header, *message.frames))
        child.began = self._beat = time.monotonic()
        child.limit_s = float(message.header.get("limit_s", 60.0))

    def _attend(self, child: _Child, ready: set[int]) -> None:
        """Hand on what can be handed on, and end the child where it must be ended."""
        if child.noise in ready:
            child.words = (child.words + os.read(child.noise, _READ))[-_LAST_WORDS:]
        if child.into in ready:
            with suppress(BrokenPipeError):  # it is dead; that is seen below
                child.to_send = child.to_send[os.write(child.into, child.to_send[:_READ]) :]
        if child.out in ready:
            self._hand_back(child)
        if refused := _over(child):
            child.words += _rest(child.noise)
            why = f"{refused[1]} {_last_line(child.words)}".strip()
            busy = child.limit_s
            self._end()
            if busy:
                self._say({"refused": refused[0], "why": why})
        elif child.limit_s and time.monotonic() - self._beat > BEAT_S:
            self._beat = time.monotonic()
            self._say({"beat": True})

    def _hand_back(self, child: _Child) -> None:
        """Hand on what the child answers."""
        data = os.read(child.out, _READ)
        try:
            for message in child.incoming.feed(data):
                child.limit_s = 0.0
                self._say(message.header, *message.frames)
        except ValueError:
            data = b""
        child.silent = not data

    def _fork(self, header: JsonObject) -> _Child:
        pipes = [os.pipe() for _ in range(3)]
        (theirs, into), (out, answers), (noise, words) = pipes
        wanted = header.get("memory_mib")
        free = available_mib() * _SHARE
        limit = min(float(wanted), free) if wanted else free
        pid = os.fork()
        if pid == 0:
            for descriptor in (into, out, noise):
                os.close(descriptor)
            self._become(theirs, answers, words, limit)
        for descriptor in (theirs, answers, words):
            os.close(descriptor)
        os.set_blocking(into, False)
        os.set_blocking(noise, False)
        base = memory_mib(pid)
        return _Child(pid=pid, into=into, out=out, noise=noise, base_mib=base, limit_mib=limit)

    def _become(self, theirs: int, answers: int, words: int, limit_mib: float) -> NoReturn:
        """Be the child; nothing of the warden's conversation stays open here."""
        code = 70
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _prctl(_PDEATHSIG, signal.SIGKILL)
            nothing = os.open(os.devnull, os.O_RDWR)
            for old, new in ((nothing, self._source), (nothing, self._sink), (nothing, 0)):
                os.dup2(old, new)
            for new in (1, 2):
                os.dup2(words, new)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            _backstop(limit_mib)
            with suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(_WORST_SCORE)
            self._work(theirs, answers)
            code = 0
        finally:
            os._exit(code)

    def _end(self) -> None:
        """Leave nothing of the child behind, neither processes nor descriptors."""
        child, self._child = self._child, None
        if child is None:
            return
        _end_tree()
        for descriptor in (child.into, child.out, child.noise):
            os.close(descriptor)

    def _say(self, header: JsonObject, *frames: bytes) -> None:
        rest = memoryview(pack(header, *frames))
        while rest:
            rest = rest[os.write(self._sink, rest) :]


def _over(child: _Child) -> tuple[str, str] | None:
    """Say why the child must end, or how it ended; None while all is well."""
    until = time.monotonic() + (_LEAVING_S if child.silent else 0.0)
    while True:
        found, status = os.waitpid(child.pid, os.WNOHANG)
        if found:
            return _ended(os.waitstatus_to_exitcode(status))
        if time.monotonic() >= until:
            break
        time.sleep(_TICK_S)
    if child.silent:
        return "crashed", "It does not answer any more."
    if not child.limit_s:
        return None
    used = memory_mib(*_descendants(os.getpid())) - child.base_mib
    if used > child.limit_mib:
        return "memory", f"It took {used:.0f} MiB; {child.limit_mib:.0f} MiB are allowed."
    if time.monotonic() - child.began > child.limit_s:
        return "hung", f"It was stopped after {child.limit_s:g} s."
    return None


def _ended(code: int) -> tuple[str, str]:
    if code == -signal.SIGKILL:
        return "memory", "It was ended by SIGKILL, most often because memory ran out."
    if code < 0:
        return "crashed", f"It was ended by {signal.Signals(-code).name}."
    return "crashed", f"It ended with code {code}."


def _end_tree() -> None:
    """Kill the child and every descendant, also those that left its session, and bury them.

    All that is below the warden is of its one child: orphans become children of the warden, which
    is a subreaper, so none can hide.
    """
    while living := _descendants(os.getpid()):
        for one in living:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants(pid: int) -> list[int]:
    """Return every process below one, those that have ended but were not buried too."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                waiting += (children := [int(word) for word in path.read_text().split()])
                found += children
    return found


def memory_mib(*pids: int) -> float:
    """Return how much memory processes hold together, in MiB."""
    page, total = os.sysconf("SC_PAGE_SIZE"), 0
    for pid in pids:
        with suppress(OSError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * page / (_KIB_PER_MIB * _KIB_PER_MIB)


def status_mib(name: str, path: Path = Path("/proc/self/status")) -> float:
    """Return a size of this process; VmHWM is the peak since it began, unlike `ru_maxrss`."""
    sizes = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(sizes[name].split()[0]) / _KIB_PER_MIB


def available_mib() -> float:
    """Return how much memory could be had without swapping."""
    return status_mib("MemAvailable", Path("/proc/meminfo"))


def _backstop(limit_mib: float) -> None:
    """Let a request far above the limit fail at once: the watch looks only twenty times a second.

    Data, not address space, is limited: runtimes reserve far more addresses than they use.
    """
    most = int((status_mib("VmData") + 2 * limit_mib + _BACKSTOP_MIB) * _KIB_PER_MIB) << 10
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _leave(*_: object) -> NoReturn:
    """End in order when asked to: what was begun is ended first."""
    raise SystemExit(0)


def _is_broken(sink: int) -> bool:
    """Say whether nobody reads any more what is written there."""
    poll = select.poll()
    poll.register(sink, 0)
    return any(what & select.POLLERR for _, what in poll.poll(0))


def _rest(descriptor: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(descriptor, _READ)
    return b""


def _last_line(words: bytes) -> str:
    lines = words.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _prctl(option: int, value: int) -> None:
    """Ask the kernel for a service that Python has no name for; not everywhere is there one."""
    with suppress(OSError, AttributeError):
        libc: Any = ctypes.CDLL(None)
        libc.prctl(option, value, 0, 0, 0)
