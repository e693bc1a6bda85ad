"""OpenVINO: the fastest on x86 for convolutions and transformers; bfloat16 where there is AMX."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from queue import SimpleQueue
from typing import Any, ClassVar, Final, Literal

import numpy as np
import openvino as ov

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.protocols import Array, JsonObject, Layout, Tensors
from genba.engines.batches import conform, in_slices
from genba.engines.graph import read_graph
from genba.engines.integers import computes_with_wide_integers
from genba.engines.layouts import FORMS, WAYS, spreads
from genba.engines.lowering import lower_trees
from genba.engines.reading import Reading
from genba.engines.refusal import in_short, refused
from genba.engines.scan import refuse_floats

#: A larger graph is held once: a second copy of its weights costs more than knowing the shapes of
#: a batch of one saves, which is some 25 microseconds.
_TWICE_BYTES: Final = 4 << 20
_WAITING: Final = 1  # batches that wait inside the runtime for a stream
_MISSING: Final = r"No conversion rule found for operations: ([\w.]+)"
#: Of what is in floating point; a graph in integers is computed as it is written.
_HINTS: Final = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
#: Threads of one batch, and batches at the same time; one stream of one thread is the default.
_SPREADS: Final = (
    *({"threads": count} for count in WAYS),
    *({"threads": 1, "streams": count} for count in WAYS[1:]),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenVinoSettings:
    """What can be varied.

    Precision has no default: left alone, OpenVINO computes in bfloat16 on a processor that can,
    and the same file would give other numbers on another machine.
    """

    # "int8": a graph with parts in integers; "float16" is for processors that compute in it
    precision: Literal["float32", "bfloat16", "float16", "int8"]
    threads: int = 1  # of one stream
    streams: int = 1  # batches computed at the same time


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
        if chosen.precision == "int8":
            refuse_floats(frozenset(node.op_type for node in graph.graph.node), "OpenVINO")
        self._reading = Reading.of({entry.key: entry.value for entry in graph.metadata_props})
        compiled, single = _compile(_readable(model, graph), chosen)
        self._inputs = {i.any_name: np.dtype(i.element_type.to_dtype()) for i in compiled.inputs}
        # Compiling drops inputs that nothing is computed from, such as a name only to be captured.
        self._unused = {i.name for i in graph.graph.input} - self._inputs.keys()
        self._outputs = [o.name for o in graph.graph.output]
        several = range(chosen.streams + _WAITING)
        # One request is one set of buffers: callers take one, or wait for one.
        self._requests: Any = _pool(compiled.create_infer_request() for _ in several)
        self._singles: Any = single and _pool(_SingleRow(single, self._outputs) for _ in several)

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return float32 on one thread and on every core up to four, and bfloat16 where native."""
        found = [{"precision": "float32", "threads": n} for n in sorted({1, min(cores, 4)})]
        if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            found.append({"precision": "bfloat16", "threads": 1})
        return found

    @classmethod
    def lowered(cls) -> Mapping[str, JsonObject]:
        """Return the settings for a graph in 8-bit integers."""
        return {"int8": {"precision": "int8", "threads": 1}}

    @classmethod
    def space(cls, cores: int) -> Sequence[JsonObject]:  # noqa: ARG003  # rules know the cores
        """Return every precision, spread in every way, for a wide search."""
        return [
            {"precision": precision, **spread}
            for spread in _SPREADS
            for precision in ("float32", "bfloat16", "float16")
        ]

    @classmethod
    def forms(cls) -> Mapping[str, Sequence[JsonObject]]:
        """Return the settings to try by the name of the lowering, for a wide search."""
        several = [{"precision": "int8", **spread} for spread in _SPREADS]
        return dict.fromkeys(FORMS, several)

    @classmethod
    def layouts(cls, settings: JsonObject, cores: int) -> Sequence[Layout]:
        """Return the ways to spread a graph over cores: streams, each with threads of its own.

        One caller more than there are streams: its batch waits inside the runtime, and no stream
        stands idle while an answer is read.
        """
        return [
            Layout(
                settings={**settings, "threads": threads, "streams": streams},
                runners=streams + _WAITING,
            )
            for threads, streams in spreads(cores)
        ]

    @classmethod
    def version(cls) -> str:
        """Return the version of the runtime."""
        return str(ov.get_version()).partition("-")[0]

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch; callers beyond one more than there are streams wait for each other.

        Raises:
            Problem: G602 when the tensors do not fit the graph.
        """
        used = {n: tensor for n, tensor in tensors.items() if n not in self._unused}
        return self._reading.run(used, self._compute) if self._reading else self._compute(used)

    def close(self) -> None:
        """Free what the runtime holds; the engine cannot be used afterwards."""
        self._singles = None
        self._requests = None

    def _compute(self, used: Tensors) -> dict[str, Array]:
        ready = conform(used, self._inputs)
        try:
            return self._run_single(ready) or in_slices(self._run, ready)
        except RuntimeError as error:
            raise Problem(
                "G602",
                "The graph did not accept the batch.",
                why=in_short(error),
                tries=["compare the tensors with the signature", "genba explain G602"],
            ) from error

    def _run_single(self, tensors: Tensors) -> dict[str, Array] | None:
        free = self._singles
        if free is None or any(tensor.shape[:1] != (1,) for tensor in tensors.values()):
            return None
        row = free.get()
        try:
            answer: dict[str, Array] | None = row.run(tensors) if row.fits(tensors) else None
            return answer
        finally:
            free.put(row)

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        # The request knows only where the memory is: without a name here, a copy would be freed
        # before it is read.
        owned = [_own(tensors[name]) for name in self._inputs]
        free = self._requests
        request = free.get()
        try:
            for index, tensor in enumerate(owned):
                request.set_input_tensor(index, ov.Tensor(tensor, shared_memory=True))
            request.infer()
            # Copies: the next call writes to the same memory.
            outputs = enumerate(self._outputs)
            return {n: request.get_output_tensor(i).data.copy() for i, n in outputs}
        finally:
            free.put(request)


def _pool(members: Iterable[Any]) -> SimpleQueue[Any]:
    """Return what one caller at a time may have."""
    free: SimpleQueue[Any] = SimpleQueue()
    for member in members:
        free.put(member)
    return free


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
    for name, count in (("threads", settings.threads), ("streams", settings.streams)):
        if count < 1:
            raise Problem(
                "G103",
                f"engine.settings.{name} must be 1 or more, not {count}.",
                tries=[f"{name} = 1"],
            )
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[settings.precision],
        "INFERENCE_NUM_THREADS": settings.threads * settings.streams,
        "NUM_STREAMS": settings.streams,
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
