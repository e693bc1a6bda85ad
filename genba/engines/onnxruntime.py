"""ONNX Runtime: the portable default, exact in float32 and the fastest on small graphs."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Layout, Tensors
from genba.engines.batches import conform, in_slices
from genba.engines.layouts import FORMS, WAYS, spreads
from genba.engines.reading import Reading
from genba.engines.refusal import in_short, refused
from genba.engines.scan import refuse_floats, scan

ort.disable_telemetry_events()

_KINDS: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
}
# The binding's exceptions share no class of their own.
_ERRORS: Final = (
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NotImplemented,
    native.RuntimeException,
    RuntimeError,
    ValueError,
)
_MISSING: Final = (
    r"(?:No Op registered for|Could not find an implementation for) (\w+)"
    r"|([\w.:]+)\(-?\d+\) is not a registered"
)
_BOUND_ROWS: Final = 64
_BOUND_BYTES: Final = 256 << 10  # of larger rows a copy costs more than binding saves
_OVERLAP: Final = 2
_FATAL_ONLY: Final = 4  # a refused graph is reported by our own sentence, not on stderr


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxRuntimeSettings:
    """What can be varied. Precision has no default: a package always says what it computes in."""

    precision: Literal["float32", "int8"]  # "int8": a graph that has parts in integers
    threads: int = 1


class OnnxRuntime:
    """A graph in ONNX Runtime on the CPU.

    Threads do not spin while they wait: spinning doubles the CPU time per prediction as soon as
    anything else wants the core. Small batches of small rows, the shape of most requests, run on
    memory that is bound once, which spares what a call costs besides computing. Callers in
    several threads compute at the same time.

    Args:
        model: The graph, ONNX.
        settings: See `OnnxRuntimeSettings`.

    Raises:
        Problem: G601 when the runtime cannot run the graph, G608 when the graph is not whole,
            G102 or G103 for a wrong setting.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        chosen = decode(OnnxRuntimeSettings, settings, where="engine.settings")
        found = scan(model)
        if chosen.precision == "int8":
            refuse_floats(found.operators, "ONNX Runtime")
        self._reading = Reading.of(found.metadata)
        self._session = _open_session(model, chosen)
        self._inputs = {i.name: _kind(i) for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._bound = _BoundRows.of(self._session)
        self._bound_free = threading.Lock()

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return one thread, and every core up to four; more never paid on graphs this size."""
        threads = sorted({1, min(cores, 4)})
        return [{"precision": "float32", "threads": count} for count in threads]

    @classmethod
    def lowered(cls) -> Mapping[str, JsonObject]:
        """Return the settings for a graph in 8-bit integers."""
        return {"int8": {"precision": "int8", "threads": 1}}

    @classmethod
    def space(cls, cores: int) -> Sequence[JsonObject]:  # noqa: ARG003  # rules know the cores
        """Return every precision on every number of threads, for a wide search."""
        return [{"precision": "float32", "threads": count} for count in WAYS]

    @classmethod
    def forms(cls) -> Mapping[str, Sequence[JsonObject]]:
        """Return the settings to try by the name of the lowering, for a wide search."""
        several = [{"precision": "int8", "threads": count} for count in WAYS]
        return dict.fromkeys(FORMS, several)

    @classmethod
    def layouts(cls, settings: JsonObject, cores: int) -> Sequence[Layout]:
        """Return the ways to spread a graph over cores: threads of a run, and callers.

        Callers share the threads of the session, and each computes on its own thread besides.
        Where a run has several threads there are two callers at least: one finds the cores busy
        while the other reads its answer, and takes over.
        """
        return [
            Layout(
                settings={**settings, "threads": threads},
                runners=runs if threads == 1 else max(runs, _OVERLAP),
            )
            for threads, runs in spreads(cores)
        ]

    @classmethod
    def version(cls) -> str:
        """Return the version of the runtime."""
        return str(ort.__version__)

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch; may be called from several threads.

        Raises:
            Problem: G602 when the tensors do not fit the graph.
        """
        if self._reading:
            return self._reading.run(tensors, self._compute)
        return self._compute(tensors)

    def close(self) -> None:
        """Free what the runtime holds; the engine cannot be used afterwards."""
        self._bound = None
        self._session = None

    def _compute(self, tensors: Tensors) -> dict[str, Array]:
        try:
            return self._run_bound(tensors) or in_slices(self._run, conform(tensors, self._inputs))
        except _ERRORS as error:
            raise Problem(
                "G602",
                "The graph did not accept the batch.",
                why=in_short(error),
                tries=["compare the tensors with the signature", "genba explain G602"],
            ) from error

    def _run_bound(self, tensors: Tensors) -> dict[str, Array] | None:
        bound = self._bound
        rows = bound.rows(tensors) if bound else 0
        if not bound or not rows or not self._bound_free.acquire(blocking=False):
            return None
        try:
            return bound.run(tensors, rows)
        finally:
            self._bound_free.release()

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(self._outputs, tensors), strict=True))


class _BoundRows:
    """Small batches on memory that is bound once, one binding per number of rows.

    Only for graphs whose shapes are all known once the batch is; the caller sees to it that one
    thread is inside at a time.
    """

    def __init__(self, session: Any, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = outputs
        self._most = len(next(iter(inputs.values())))
        self._shapes = [(name, t.dtype, t.shape[1:]) for name, t in inputs.items()]
        self._made: dict[int, tuple[Any, dict[str, Array], dict[str, Array]]] = {}

    @classmethod
    def of(cls, session: Any) -> "_BoundRows | None":
        """Take memory, or return None when a shape depends on more than the batch or is large."""
        found = session.get_inputs(), session.get_outputs()
        sizes = [_row_bytes(tensor) for tensors in found for tensor in tensors]
        one = sum(size or 0 for size in sizes)
        if not found[0] or None in sizes or one > _BOUND_BYTES:
            return None
        most = min(_BOUND_ROWS, _BOUND_BYTES // max(one, 1))
        inputs, outputs = (
            {t.name: np.zeros((most, *t.shape[1:]), dtype=_kind(t)) for t in tensors}
            for tensors in found
        )
        return cls(session, inputs, outputs)

    def rows(self, tensors: Tensors) -> int:
        """Return the number of rows if these are exactly the expected tensors, 0 otherwise."""
        if len(tensors) != len(self._shapes):
            return 0
        rows = -1
        for name, kind, shape in self._shapes:
            tensor = tensors.get(name)
            if tensor is None or tensor.dtype != kind or tensor.shape[1:] != shape:
                return 0
            if rows not in (-1, len(tensor)):
                return 0
            rows = len(tensor)
        return rows if 0 < rows <= self._most else 0

    def run(self, tensors: Tensors, rows: int) -> dict[str, Array]:
        """Run a batch and return copies, since the bound memory is written again."""
        if rows not in self._made:
            self._made[rows] = self._bind(rows)
        binding, inputs, outputs = self._made[rows]
        for name, tensor in inputs.items():
            np.copyto(tensor, tensors[name])
        self._session.run_with_iobinding(binding)
        return {name: tensor.copy() for name, tensor in outputs.items()}

    def _bind(self, rows: int) -> tuple[Any, dict[str, Array], dict[str, Array]]:
        binding = self._session.io_binding()
        inputs = {name: tensor[:rows] for name, tensor in self._inputs.items()}
        outputs = {name: tensor[:rows] for name, tensor in self._outputs.items()}
        for name, tensor in inputs.items():
            binding.bind_input(*_place(name, tensor))
        for name, tensor in outputs.items():
            binding.bind_output(*_place(name, tensor))
        return binding, inputs, outputs


def _open_session(model: bytes, settings: OnnxRuntimeSettings) -> Any:
    if settings.threads < 1:
        raise Problem(
            "G103",
            f"engine.settings.threads must be 1 or more, not {settings.threads}.",
            tries=["threads = 1"],
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _ERRORS as error:
        tries = ["genba doctor", "genba explain G601"]
        raise refused("ONNX Runtime", error, _MISSING, tries) from error


def _kind(tensor: Any) -> np.dtype[Any]:
    if tensor.type not in _KINDS:
        raise Problem(
            "G601",
            f"The graph's tensor {tensor.name} has the type {tensor.type}, which is not supported.",
            why=f"Supported: {', '.join(_KINDS)}.",
            tries=["export the graph with float32, int64 or bool tensors"],
        )
    return _KINDS[tensor.type]


def _row_bytes(tensor: Any) -> int | None:
    """Return the bytes of one row, None unless the first dimension is free and the rest fixed."""
    first, *rest = tensor.shape or [0]
    if isinstance(first, int) or not all(isinstance(size, int) for size in rest):
        return None
    size: int = math.prod(rest)
    return size * _kind(tensor).itemsize


def _place(name: str, tensor: Array) -> tuple[Any, ...]:
    return (name, "cpu", 0, tensor.dtype.type, tensor.shape, tensor.ctypes.data)
