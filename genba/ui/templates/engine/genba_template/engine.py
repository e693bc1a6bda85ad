"""One graph in one session of ONNX Runtime: a place to start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import onnxruntime as ort

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.engines.batches import conform, in_slices
from genba.engines.graph import read_graph
from genba.engines.refusal import in_short, refused

_KINDS: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}
# How this runtime names an operator that it does not have; the group is the name.
_MISSING: Final = (
    r"(?:No Op registered for|Could not find an implementation for) (\w+)"
    r"|([\w.:]+)\(-?\d+\) is not a registered"
)
_FATAL_ONLY: Final = 4  # a refused graph is reported by our own sentence, not on stderr

ort.disable_telemetry_events()


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """What can be varied. Precision has no default: a package always says what it computes in."""

    precision: Literal["float32"]
    threads: int = 1


class TemplateEngine:
    """A runtime with one package loaded.

    Args:
        model: The graph, ONNX.
        settings: See `EngineSettings`. Both are kept, so that another process can make the same
            engine again to measure its memory.

    Raises:
        Problem: G601 when the runtime cannot run the graph, G608 when the graph is not whole,
            G102 or G103 for a wrong setting.
    """

    name: ClassVar[str] = "template-name"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        chosen = decode(EngineSettings, settings, where="engine.settings")
        read_graph(model)
        self._session = _open_session(model, chosen)
        self._inputs = {tensor.name: _kind(tensor) for tensor in self._session.get_inputs()}
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return the settings worth measuring on a machine with so many cores."""
        return [{"precision": "float32", "threads": n} for n in sorted({1, min(cores, 4)})]

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
            return in_slices(self._run, ready)
        except Problem:
            raise
        except Exception as error:  # the runtime's exceptions share no class of their own
            raise Problem(
                "G602",
                "The graph did not accept the batch.",
                why=in_short(error),
                tries=["compare the tensors with the signature", "genba explain G602"],
            ) from error

    def close(self) -> None:
        """Free what the runtime holds; the engine cannot be used afterwards."""
        self._session = None

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(self._outputs, tensors), strict=True))


def _open_session(model: bytes, settings: EngineSettings) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # A thread that spins while it waits doubles the CPU time of a prediction on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no class of their own
        tries = ["genba doctor", "genba explain G601"]
        raise refused("template-name", error, _MISSING, tries) from error


def _kind(tensor: Any) -> np.dtype[Any]:
    if tensor.type not in _KINDS:
        raise Problem(
            "G601",
            f"The graph's tensor {tensor.name} has the type {tensor.type}, which is not supported.",
            why=f"Supported: {', '.join(_KINDS)}.",
            tries=["export the graph with float32, int64 or bool tensors"],
        )
    return _KINDS[tensor.type]
