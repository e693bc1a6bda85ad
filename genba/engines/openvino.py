"""OpenVINO: the fastest on x86 for convolutions and transformers; bfloat16 where there is AMX."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final, Literal

import numpy as np
import openvino as ov

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Tensors
from genba.engines.batches import conform, in_slices
from genba.engines.graph import read_graph
from genba.engines.integers import computes_with_wide_integers
from genba.engines.lowering import lower_trees
from genba.engines.refusal import in_short, refused

#: A larger graph is held once: a second copy of its weights costs more than knowing the shapes of
#: a batch of one saves, which is some 25 microseconds.
_TWICE_BYTES: Final = 4 << 20
_MISSING: Final = r"No conversion rule found for operations: ([\w.]+)"
_HINTS: Final = {"float32": "f32", "bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenVinoSettings:
    """What can be varied.

    Precision has no default: left alone, OpenVINO computes in bfloat16 on a processor that can,
    and the same file would give other numbers on another machine.
    """

    precision: Literal["float32", "bfloat16"]
    threads: int = 1


class OpenVino:
    """A graph in OpenVINO on the CPU.

    OpenVINO has no tree ensembles; they are put in standard operators first. A batch of one, the
    shape of most requests, has a compiled graph of its own: with every shape known, OpenVINO
    fuses more and works out nothing at each call.

    Args:
        model: The graph, ONNX.
        settings: See `OpenVinoSettings`.

    Raises:
        Problem: G601 when the runtime cannot run the graph G608 when the graph is not whole,
            G102 or G103 for a wrong setting.
    """

    name: ClassVar[str] = "openvino"

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        self.model = model
        self.settings = dict(settings)
        chosen = decode(OpenVinoSettings, settings, where="engine.settings")
        graph = read_graph(model)
        _refuse_wide_integers(graph)
        compiled, single = _compile(_readable(model, graph), chosen)
        self._inputs = {i.any_name: np.dtype(i.element_type.to_dtype()) for i in compiled.inputs}
        # Compiling drops inputs that nothing is computed from, such as a name only to be captured.
        self._unused = {i.name for i in graph.graph.input} - self._inputs.keys()
        self._outputs = [o.name for o in graph.graph.output]
        self._request: Any = compiled.create_infer_request()
        self._single = single and _SingleRow(single, self._outputs)
        self._turn = threading.Lock()  # one request is one set of buffers

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return float32 on one thread and on every core up to four, and bfloat16 where native."""
        found = [{"precision": "float32", "threads": n} for n in sorted({1, min(cores, 4)})]
        if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            found.append({"precision": "bfloat16", "threads": 1})
        return found

    @classmethod
    def version(cls) -> str:
        """Return the version of the runtime."""
        return str(ov.get_version()).partition("-")[0]

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch; callers in several threads wait for each other.

        Raises:
            Problem: G602 when the tensors do not fit the graph.
        """
        used = {n: tensor for n, tensor in tensors.items() if n not in self._unused}
        ready = conform(used, self._inputs)
        try:
            with self._turn:
                single = self._single
                if single is not None and single.fits(ready):
                    return single.run(ready)
                return in_slices(self._run, ready)
        except RuntimeError as error:
            raise Problem(
                "G602",
                "The graph did not accept the batch.",
                why=in_short(error),
                tries=["compare the tensors with the signature", "genba explain G602"],
            ) from error

    def close(self) -> None:
        """Free what the runtime holds; the engine cannot be used afterwards."""
        self._single = None
        self._request = None

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        request = self._request
        # The request knows only where the memory is: without a name here, a copy would be freed
        # before it is read.
        owned = [_own(tensors[name]) for name in self._inputs]
        for index, tensor in enumerate(owned):
            request.set_input_tensor(index, ov.Tensor(tensor, shared_memory=True))
        request.infer()
        # Copies: the next call writes to the same memory.
        return {n: request.get_output_tensor(i).data.copy() for i, n in enumerate(self._outputs)}


class _SingleRow:
    """A batch of one on memory that is bound once, in a graph whose shapes are all known."""

    def __init__(self, compiled: Any, outputs: Sequence[str]) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = {i.any_name: _zeros(i) for i in compiled.inputs}
        self._outputs = dict(zip(outputs, map(_zeros, compiled.outputs), strict=True))
        for index, tensor in enumerate(self._inputs.values()):
            self._request.set_input_tensor(index, ov.Tensor(tensor, shared_memory=True))
        for index, tensor in enumerate(self._outputs.values()):
            self._request.set_output_tensor(index, ov.Tensor(tensor, shared_memory=True))

    def fits(self, tensors: Tensors) -> bool:
        """Say whether these are one row of exactly the expected shapes."""
        return all(tensors[name].shape == bound.shape for name, bound in self._inputs.items())

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one row and return copies, since the bound memory is written again."""
        for name, bound in self._inputs.items():
            np.copyto(bound, tensors[name])
        self._request.infer()
        return {name: bound.copy() for name, bound in self._outputs.items()}


def _zeros(port: Any) -> Array:
    return np.zeros(tuple(port.shape), dtype=port.element_type.to_dtype())


def _own(tensor: Array) -> Array:
    """Return memory OpenVINO agrees to share: it refuses what is read-only, as from a socket."""
    return tensor if tensor.flags.writeable else tensor.copy()


@cache
def _core() -> Any:
    return ov.Core()


def _refuse_wide_integers(graph: Any) -> None:
    name = computes_with_wide_integers(graph)
    if name is not None:
        raise Problem(
            "G601",
            f"OpenVINO computes 64-bit integers in 32 bits, and this graph computes with {name!r}.",
            why="Milliseconds since 1970 do not fit, and the answers would be wrong.",
            tries=['engines = ["onnxruntime"]', "genba explain G601"],
        )


def _readable(model: bytes, graph: Any) -> bytes:
    """Return the graph without tree ensembles; `model` itself when it has none."""
    lowered = lower_trees(graph)
    return model if lowered is graph else bytes(lowered.SerializeToString())


def _compile(model: bytes, settings: OpenVinoSettings) -> tuple[Any, Any]:
    """Return the graph compiled for any batch, and for a batch of one where that is possible."""
    if settings.threads < 1:
        raise Problem(
            "G103",
            f"engine.settings.threads must be 1 or more, not {settings.threads}.",
            tries=["threads = 1"],
        )
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[settings.precision],
        "INFERENCE_NUM_THREADS": settings.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # pinned threads of two models would share one core
        "CACHE_DIR": "",
    }
    core = _core()
    try:
        graph = core.read_model(model)
        compiled = core.compile_model(graph, "CPU", options)
    except RuntimeError as error:
        tries = ['engines = ["onnxruntime"]', "genba explain G601"]
        raise refused("OpenVINO", error, _MISSING, tries) from error
    return compiled, None if len(model) > _TWICE_BYTES else _compile_one_row(graph, options)


def _compile_one_row(graph: Any, options: JsonObject) -> Any:
    """Compile the graph for a batch of one; None when a shape depends on more than the batch."""
    shapes = {i.any_name: list(i.partial_shape) for i in graph.inputs}
    if not all(s and s[0].is_dynamic and all(n.is_static for n in s[1:]) for s in shapes.values()):
        return None
    try:
        graph.reshape({name: [1, *(n.get_length() for n in s[1:])] for name, s in shapes.items()})
        known = all(output.partial_shape.is_static for output in graph.outputs)
        return _core().compile_model(graph, "CPU", options) if known else None
    except RuntimeError:  # a graph that only takes other batches
        return None
