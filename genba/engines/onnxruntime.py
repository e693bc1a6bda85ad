"""ONNX Runtime: the portable default, exact in float32 and the fastest on small graphs."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.engines.batches import conform, in_slices
from genba.engines.graph import read_graph
from genba.engines.refusal import in_short, refused

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
_FATAL_ONLY: Final = 4  # a refused graph is reported by our own sentence, not on stderr


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxRuntimeSettings:
    """What can be varied. Precision has no default: a package always says what it computes in."""

    precision: Literal["float32"]
    threads: int = 1


class OnnxRuntime:
    """A graph in ONNX Runtime on the CPU.

    Threads do not spin while they wait: spinning doubles the CPU time per prediction as soon as
    anything else wants the core. Batches of one, the shape of most requests, run on memory that
    is bound once; that is worth a quarter of the CPU time of a small graph.

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
        read_graph(model)
        self._session = _open_session(model, chosen)
        self._inputs = {i.name: _kind(i) for i in self._session.get_inputs()}
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._single = _SingleRow.of(self._session)
        self._single_free = threading.Lock()

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return one thread, and every core up to four; more never paid on graphs this size."""
        threads = sorted({1, min(cores, 4)})
        return [{"precision": "float32", "threads": count} for count in threads]

    @classmethod
    def version(cls) -> str:
        """Return the version of the runtime."""
        return str(ort.__version__)

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch; may be called from several threads.

        Raises:
            Problem: G602 when the tensors do not fit the graph.
        """
        ready = conform(tensors, self._inputs)
        try:
            return self._run_single(ready) or in_slices(self._run, ready)
        except _ERRORS as error:
            raise Problem(
                "G602",
                "The graph did not accept the batch.",
                why=in_short(error),
                tries=["compare the tensors with the signature", "genba explain G602"],
            ) from error

    def close(self) -> None:
        """Free what the runtime holds; the engine cannot be used afterwards."""
        self._single = None
        self._session = None

    def _run_single(self, tensors: Tensors) -> dict[str, Array] | None:
        single = self._single
        if not single or not single.fits(tensors) or not self._single_free.acquire(blocking=False):
            return None
        try:
            return single.run(tensors)
        finally:
            self._single_free.release()

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(self._outputs, tensors), strict=True))


class _SingleRow:
    """A batch of one on memory that is bound once.

    Only for graphs whose shapes are all known once the batch is one; the caller sees to it that
    one thread is inside at a time.
    """

    def __init__(self, session: Any, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = outputs
        self._shapes = {name: tensor.shape for name, tensor in inputs.items()}
        self._binding = session.io_binding()
        for name, tensor in inputs.items():
            self._binding.bind_input(*_bound(name, tensor))
        for name, tensor in outputs.items():
            self._binding.bind_output(*_bound(name, tensor))

    @classmethod
    def of(cls, session: Any) -> "_SingleRow | None":
        """Bind memory for one row, or return None when a shape depends on more than the batch."""
        inputs = {i.name: _one_row(i) for i in session.get_inputs()}
        outputs = {o.name: _one_row(o) for o in session.get_outputs()}
        ready = {name: t for name, t in inputs.items() if t is not None}
        made = {name: t for name, t in outputs.items() if t is not None}
        if len(ready) < len(inputs) or len(made) < len(outputs):
            return None
        return cls(session, ready, made)

    def fits(self, tensors: Tensors) -> bool:
        """Say whether these are one row of exactly the expected shapes."""
        return all(tensors[name].shape == shape for name, shape in self._shapes.items())

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one row and return copies, since the bound memory is written again."""
        for name, tensor in self._inputs.items():
            np.copyto(tensor, tensors[name])
        self._session.run_with_iobinding(self._binding)
        return {name: tensor.copy() for name, tensor in self._outputs.items()}


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


def _one_row(tensor: Any) -> Array | None:
    """Return memory for one row, or None unless the first dimension is free and the rest fixed."""
    first, *rest = tensor.shape or [None]
    if isinstance(first, int) or not all(isinstance(size, int) for size in rest):
        return None
    return np.zeros((1, *rest), dtype=_kind(tensor)) if tensor.shape else None


def _bound(name: str, tensor: Array) -> tuple[Any, ...]:
    return (name, "cpu", 0, tensor.dtype.type, tensor.shape, tensor.ctypes.data)
