"""Measuring a candidate where nothing can happen: in a child process here, or on a device.

A candidate that crashes the runtime, hangs or eats memory is one refused candidate with its reason.
`genba.edge.bench` is started once for each target and kept; each candidate is a fork of it.
"""

import atexit
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Final, Self

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.values import Measure
from genba.edge.bench import as_frame, of_frame
from genba.edge.frames import Incoming, Message, pack

THERE: Final = "python3"  # the interpreter of a device that does not say where its own is
_MEMORY_ROWS: Final = 64
_NOISE: Final = 64 << 10  # a login banner may come first
_READ: Final = 1 << 20
_SILENCE_S: Final = 20.0  # it says every two seconds that it is there
_LEAVING_S: Final = 2.0
_QUIET: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # of numpy, not of an engine
_CODES: Final = {
    "crashed": ("G625", "crashed"),
    "hung": ("G626", "did not answer in time"),
    "memory": ("G627", "took more memory than it may"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to measure and how far it may go."""

    engine: str
    settings: JsonObject
    graph: bytes = field(repr=False)
    samples: Tensors = field(repr=False)
    batch: int = 1  # rows of a call
    callers: int = 1  # calls at the same time
    seconds: float = 0.2
    limit_s: float = 60.0  # for opening, for measuring, and for every batch of answers
    memory_limit_mib: float | None = None  # 80 % of what is free when None


@dataclass(frozen=True, kw_only=True, slots=True)
class Benched:
    """What was measured, and what the engine answered to the samples."""

    measures: dict[str, Measure]
    outputs: dict[str, Array]


def measure(order: Order, reach: Sequence[str] = (), python: str = "") -> dict[str, Measure]:
    """Measure one candidate in a process of its own.

    Args:
        order: What to measure.
        reach: How commands get to the target: () is here, else what they are prefixed with.
        python: The interpreter there.

    Returns:
        `latency_ms_p50` and `latency_ms_p99` of a call, `cpu_ms` per row, `rows_per_s`,
        `memory_mib` that it adds to a Python process with numpy at its peak, `open_ms` and `load`.

    Raises:
        Problem: G625 when it crashed, G626 when it hung, G627 when it took too much memory, G628
            when the target went away; what the engine itself says (G601, G602, G901) unchanged.
    """
    with open_engine(order, reach, python) as engine:
        return engine.measure()


def bench(order: Order, reach: Sequence[str] = (), python: str = "") -> Benched:
    """Measure one candidate, and return what it answers to the samples too.

    Args:
        order: What to measure.
        reach: See `measure`.
        python: See `measure`.

    Raises:
        Problem: As `measure`.
    """
    with open_engine(order, reach, python) as engine:
        return Benched(measures=engine.measure(), outputs=engine.run(order.samples))


def memory_mib(engine: str, settings: JsonObject, model: bytes, tensors: Tensors) -> Measure:
    """Return how much memory a package adds to a Python process with numpy, at its peak.

    In the process that trained the model the peak is long past and the libraries are loaded; only
    a fresh process shows what a package adds on a device. The runtime's library, the graph and the
    buffers of batches of 1 and 64 rows (16 images, 4 conversations) count.

    Args:
        engine: Name of the engine in the catalog.
        settings: Its settings.
        model: The graph.
        tensors: Real samples.

    Raises:
        Problem: As `measure`.
    """
    samples = {name: tensor[:_MEMORY_ROWS] for name, tensor in tensors.items()}
    order = Order(engine=engine, settings=settings, graph=model, samples=samples, limit_s=120.0)
    with open_engine(order) as opened:
        return opened.memory()


def open_engine(order: Order, reach: Sequence[str] = (), python: str = "") -> "Isolated":
    """Open an engine in a process of its own; it is used as any other.

    Raises:
        Problem: As `measure`.
    """
    return Isolated(order, _take(tuple(reach), python))


class Isolated:
    """An engine that lives in another process, here or on a device."""

    def __init__(self, order: Order, line: "_Line") -> None:
        self.name = order.engine
        self.model = order.graph
        self.settings = dict(order.settings)
        self._order = order
        self._line: _Line | None = line
        opening = {"do": "open", "engine": order.engine, "settings": self.settings}
        try:
            self._ask({**opening, "memory_mib": order.memory_limit_mib}, order.graph)
        except BaseException:
            self.close()
            raise

    def measure(self) -> dict[str, Measure]:
        """Measure as the order says; may be repeated.

        Raises:
            Problem: As `genba.targets.runner.measure`.
        """
        order = self._order
        texts, frame = as_frame(order.samples)
        how = {"batch": order.batch, "callers": order.callers, "seconds": order.seconds}
        return _measures(self._ask({"do": "measure", "texts": texts, **how}, frame))

    def memory(self) -> Measure:
        """Return the peak of memory that the samples of the order take.

        Raises:
            Problem: As `genba.targets.runner.measure`.
        """
        texts, frame = as_frame(self._order.samples)
        return _measures(self._ask({"do": "memory", "texts": texts}, frame))["memory_mib"]

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer rows, as many at once as a server would.

        Raises:
            Problem: As `genba.targets.runner.measure`.
        """
        texts, frame = as_frame(tensors)
        answer = self._ask({"do": "run", "texts": texts, "rows": 0}, frame)
        return of_frame(list(answer.header["texts"]), answer.frames[0])

    def close(self) -> None:
        """End the process of this engine; the next one is begun in no time."""
        line, self._line = self._line, None
        if line is not None:
            _give(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, header: JsonObject, frame: bytes) -> Message:
        line = self._line
        if line is None:
            raise Problem(
                "G625",
                f"{self.name} is not open any more.",
                tries=["genba explain G625"],
            )
        try:
            answer = line.ask({**header, "limit_s": self._order.limit_s}, frame)
        except BaseException:  # also where a person interrupts: its answer would still come
            self._line = None
            line.end()
            raise
        if "problem" in answer.header:
            raise _problem(answer.header["problem"])
        if "refused" in answer.header:
            self.close()
            raise self._refused(answer.header, line.place)
        return answer

    def _refused(self, header: JsonObject, place: str) -> Problem:
        code, what = _CODES[header["refused"]]
        return Problem(
            code,
            f"{self.name} {what} on {place}.",
            where=f"{self.name} {self.settings}",
            why=str(header["why"]),
            tries=['engines = ["onnxruntime"]', f"genba explain {code}"],
        )


class _Line:
    """A conversation with one bench; a bench serves one engine at a time."""

    def __init__(self, reach: tuple[str, ...], python: str) -> None:
        self.key = (reach, python)
        self.place = " ".join(reach) or "this-machine"
        interpreter = python or (THERE if reach else sys.executable)
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        paths = {} if reach else {"PYTHONPATH": os.pathsep.join(sys.path)}
        settings = [f"{name}={value}" for name, value in _QUIET.items()]
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  # no shell
                [*reach, "env", *settings, interpreter, "-m", "genba.edge.bench"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                env={**os.environ, **paths},
                start_new_session=True,  # Ctrl-C is for us; it ends when we do
            )
        except OSError as error:
            self._words.close()
            raise self._gone(str(error)) from error
        self._incoming = Incoming(noise=_NOISE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._into, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._into.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        try:
            self._answer(b"")
        except Problem:
            self.end()
            raise

    def ask(self, header: JsonObject, frame: bytes) -> Message:
        """Say something and return the answer.

        Raises:
            Problem: G628 when nobody answers any more.
        """
        return self._answer(pack(header, frame))

    def end(self) -> None:
        """End it; what it was doing ends with it."""
        for pipe in (self._into, self._out):
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(_LEAVING_S)  # it sees that we are gone, and ends its child
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def _answer(self, data: bytes) -> Message:
        """Send what is left to send and return the first answer that is no sign of life."""
        rest, heard = memoryview(data), time.monotonic()
        with selectors.DefaultSelector() as ready:
            ready.register(self._out, selectors.EVENT_READ)
            if rest:
                ready.register(self._into, selectors.EVENT_WRITE)
            while time.monotonic() - heard < _SILENCE_S:
                for key, _ in ready.select(timeout=1.0):
                    if key.fileobj is self._into:
                        rest = self._send(rest)
                        heard = time.monotonic()
                        if not rest:
                            ready.unregister(self._into)
                        continue
                    message = self._hear()
                    heard = time.monotonic()
                    if message is not None:
                        return message
        raise self._gone(f"Nothing was heard from it for {_SILENCE_S:.0f} s.")

    def _send(self, rest: memoryview) -> memoryview:
        try:
            return rest[os.write(self._into.fileno(), rest[:_READ]) :]
        except BrokenPipeError as error:
            raise self._gone("It does not listen any more.") from error

    def _hear(self) -> Message | None:
        data = os.read(self._out.fileno(), _READ)
        if not data:
            raise self._gone("")
        try:
            found = [m for m in self._incoming.feed(data) if "beat" not in m.header]
        except ValueError as error:
            raise self._gone(f"What it said cannot be understood: {error}.") from error
        return found[0] if found else None

    def _gone(self, why: str) -> Problem:
        return Problem(
            "G628",
            f"The target {self.place} went away while something was measured there.",
            where=self.place,
            why=" ".join(filter(None, (why, self._last_words()))),
            tries=["genba targets", "genba explain G628"],
        )

    def _last_words(self) -> str:
        if self._words.closed:
            return ""
        with suppress(subprocess.TimeoutExpired, AttributeError):
            self._process.wait(0.5)  # what it says on its way out comes before its end
        self._words.seek(0)
        lines = self._words.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def _measures(answer: Message) -> dict[str, Measure]:
    found = answer.header["measures"].items()
    return {name: decode(Measure, value, where=name) for name, value in found}


def _problem(found: JsonObject) -> Problem:
    return Problem(
        found["code"],
        found["what"],
        where=found["where"],
        why=found["why"],
        tries=found["try"],
    )


_idle: defaultdict[Any, list[_Line]] = defaultdict(list)
_lock: Final = threading.Lock()


def _take(reach: tuple[str, ...], python: str) -> _Line:
    """Return a bench that has nothing to do, or a new one."""
    with _lock:
        while waiting := _idle[reach, python]:
            line = waiting.pop()
            if line.alive:
                return line
            line.end()
    return _Line(reach, python)


def _give(line: _Line) -> None:
    """Keep a bench for the next candidate; the one it had is ended now."""
    try:
        line.ask({"do": "close"}, b"")
    except Problem:
        line.end()
        return
    with _lock:
        _idle[line.key].append(line)


@atexit.register
def close() -> None:
    """End every bench that waits for work."""
    with _lock:
        for line in [line for lines in _idle.values() for line in lines]:
            line.end()
        _idle.clear()
