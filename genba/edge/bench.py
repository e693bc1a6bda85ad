"""Open an engine on a graph, use it and say what it took: `python -m genba.edge.bench`.

Messages come on standard input and go to standard output (`genba.edge.frames`):

- `{"do": "open", "engine", "settings", "limit_s", "memory_mib"}` and the graph;
- `{"do": "measure", "batch", "callers", "seconds", "texts", "limit_s"}` and the samples;
- `{"do": "memory", "texts", "limit_s"}` and samples: only the peak of memory, in less time;
- `{"do": "run", "texts", "rows", "limit_s"}` and samples; the answer has the outputs.

Needs numpy and the engine, nothing else, so that it runs on any device. The engine lives in a
child process (`genba.edge.warden`); one that crashes, hangs or eats memory is an answer too.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from genba.core.codec import encode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.core.resolve import resolve
from genba.core.talk import Talks
from genba.core.values import Measure
from genba.edge.frames import Incoming, Message, pack
from genba.edge.tensors import read_tensors, write_tensors
from genba.edge.texts import as_bytes
from genba.edge.texts import pack as pack_texts
from genba.edge.texts import unpack as unpack_texts
from genba.edge.timing import Use, timings
from genba.edge.timing_talk import talk_timings
from genba.edge.warden import Warden, status_mib

SAMPLE_ROWS: Final = 64
SAMPLE_IMAGES: Final = 16  # as many as the server computes at once
SAMPLE_TEXTS: Final = 4  # answered at the same time
_SINGLES: Final = 50
_IMAGE_AXES: Final = 4
_READ: Final = 1 << 20
_MS_PER_S: Final = 1e3
_OUT_OF_MEMORY: Final = ("bad_alloc", "out of memory", "cannot allocate", "failed to allocate")


def as_frame(tensors: Tensors) -> tuple[list[str], bytes]:
    """Return tensors as one frame, and the names of those that are texts."""
    texts = sorted(name for name, tensor in tensors.items() if tensor.dtype.kind in "OSU")
    ready = {
        name: pack_texts(as_bytes(tensor.tolist())) if name in texts else tensor
        for name, tensor in tensors.items()
    }
    return texts, write_tensors(ready)


def of_frame(texts: list[str], frame: bytes) -> dict[str, Array]:
    """Return what `as_frame` was given."""
    found = read_tensors(frame)
    return {name: unpack_texts(t) if name in texts else t for name, t in found.items()}


class Opened:
    """One engine, open, and how much memory it was that it found."""

    def __init__(self, header: JsonObject, graph: bytes) -> None:
        self._before_mib = status_mib("VmRSS")
        started = time.perf_counter()
        self._engine: Any = resolve("engine", header["engine"])(graph, header["settings"])
        self._open_ms = (time.perf_counter() - started) * _MS_PER_S

    def measure(self, header: JsonObject, frame: bytes) -> tuple[JsonObject, bytes]:
        """Measure; the peak of memory counts the library, the graph and buffers of batches."""
        tensors = of_frame(header["texts"], frame)
        use = Use(
            batch=int(header["batch"]),
            callers=int(header["callers"]),
            seconds=float(header["seconds"]),
        )
        if isinstance(self._engine, Talks):
            found = talk_timings(self._engine, tensors)
        else:
            found = timings(self._engine, tensors, use)
        found["memory_mib"] = self._peak(tensors)
        found["open_ms"] = Measure(value=round(self._open_ms, 2), unit="ms", n=1)
        return {"measures": encode(found)}, b""

    def memory(self, header: JsonObject, frame: bytes) -> tuple[JsonObject, bytes]:
        """Answer one row at a time and then many, and say how much memory that took."""
        tensors = of_frame(header["texts"], frame)
        first = {name: tensor[:1] for name, tensor in tensors.items()}
        for _ in range(1 if header["texts"] else _SINGLES):
            self._engine.run(first)
        return {"measures": encode({"memory_mib": self._peak(tensors)})}, b""

    def _peak(self, tensors: Tensors) -> Measure:
        self._engine.run({name: tensor[: _most(tensors)] for name, tensor in tensors.items()})
        grown = status_mib("VmHWM") - self._before_mib
        return Measure(value=round(grown, 2), unit="MiB", n=1)

    def run(self, header: JsonObject, frame: bytes) -> tuple[JsonObject, bytes]:
        """Answer every row, a few at a time."""
        tensors = of_frame(header["texts"], frame)
        count, step = len(next(iter(tensors.values()))), int(header["rows"]) or _most(tensors)
        parts = [
            self._engine.run({name: tensor[at : at + step] for name, tensor in tensors.items()})
            for at in range(0, count, step)
        ]
        outputs = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
        texts, answer = as_frame(outputs)
        return {"texts": texts}, answer


def work(source: int, sink: int) -> None:
    """Be the child: open what is asked for, and answer until there are no more messages."""
    opened: Opened | None = None
    for message in _messages(source):
        header, (frame,) = message.header, message.frames
        try:
            if header["do"] == "open":
                opened = Opened(header, frame)
                answer: JsonObject = {"opened": True}
                outputs = b""
            else:
                assert opened is not None  # the first message opens
                answer, outputs = _asked(opened, header["do"])(header, frame)
        except Exception as error:  # noqa: BLE001  # a library may raise anything
            answer, outputs = refusal(error), b""
        _write(sink, pack(answer, outputs))
        del message, frame
        gc.collect()


def refusal(error: Exception) -> JsonObject:
    """Return an error as an answer: a problem as it is, all else in a sentence.

    Example:
        >>> refusal(RuntimeError("std::bad_alloc"))
        {'refused': 'memory', 'why': 'RuntimeError: std::bad_alloc'}
    """
    if isinstance(error, Problem):
        return {"problem": error.to_json()}
    lines = str(error).strip().splitlines()
    why = f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
    short = any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
    kind = "memory" if short or isinstance(error, MemoryError) else "crashed"
    return {"refused": kind, "why": why}


def _asked(opened: Opened, do: str) -> Callable[[JsonObject, bytes], tuple[JsonObject, bytes]]:
    return {"measure": opened.measure, "memory": opened.memory, "run": opened.run}[do]


def _most(tensors: Tensors) -> int:
    """Return how many rows are computed at once where nobody says: as the server does."""
    if any(np.ndim(tensor) == _IMAGE_AXES for tensor in tensors.values()):
        return SAMPLE_IMAGES
    return SAMPLE_TEXTS if any(t.dtype == object for t in tensors.values()) else SAMPLE_ROWS


def _messages(source: int) -> Iterator[Message]:
    incoming = Incoming()
    while data := os.read(source, _READ):
        yield from incoming.feed(data)


def _write(sink: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(sink, rest) :]


if __name__ == "__main__":
    Warden(work).serve()
