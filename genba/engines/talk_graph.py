"""The graph of a language model for OpenVINO, made from its GGUF file.

Attention reads keys and values from pages of a cache that the caller hands out (Kwon et al. 2023,
"Efficient Memory Management for Large Language Model Serving with PagedAttention"), so questions of
any length and age are computed in one batch. Queries, keys and values come from one product, and so
do both halves of the gated layer: fewer, larger products. Rows of queries and keys, which GGUF
keeps in pairs, are put back in halves, the order that OpenVINO's fused rotation knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import openvino as ov
from openvino import opset6, opset13
from openvino._offline_transformations import paged_attention_transformation

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.gguf import Gguf
from genba.engines.talk_weights import Packer

PAGE: Final = 32  # tokens; what OpenVINO's attention on the CPU expects
ARCHITECTURES: Final = ("llama",)
_MOST_LAYERS: Final = 512
_EVERYTHING: Final = 2**63 - 1
_LOWEST: Final = -65504.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What a model's file says of its form."""

    layers: int
    width: int
    heads: int
    key_heads: int
    head: int
    context: int
    smallest: float  # added to a mean of squares
    turn: float  # base of the rotation's wavelengths

    @property
    def queries(self) -> int:
        """Numbers of all queries of a token."""
        return self.heads * self.head

    @property
    def keys(self) -> int:
        """Numbers of all keys of a token."""
        return self.key_heads * self.head


def sizes_of(file: Gguf) -> Sizes:
    """Return the form of a model.

    Raises:
        Problem: G601 for an architecture that is not built here, G642 for a damaged file.
    """
    kind = file.text("general.architecture")
    if kind not in ARCHITECTURES or "rope_freqs.weight" in file.tensors:
        raise Problem(
            "G601",
            f"The architecture {kind} is not built for OpenVINO.",
            why=f"Built are {', '.join(ARCHITECTURES)}, with plain rotations.",
            tries=['engines = ["llama-cpp"]', "genba explain G601"],
        )
    width, heads = file.whole("llama.embedding_length"), file.whole("llama.attention.head_count")
    sizes = Sizes(
        layers=file.whole("llama.block_count"),
        width=width,
        heads=heads,
        key_heads=file.whole("llama.attention.head_count_kv", heads),
        head=file.whole("llama.attention.key_length", width // max(heads, 1)),
        context=file.whole("llama.context_length"),
        smallest=file.number("llama.attention.layer_norm_rms_epsilon"),
        turn=file.number("llama.rope.freq_base", 10_000.0),
    )
    turned = file.whole("llama.rope.dimension_count", sizes.head)
    good = 0 < sizes.layers <= _MOST_LAYERS and sizes.head > 0 and sizes.head % 2 == 0
    if not good or turned != sizes.head or sizes.heads % max(sizes.key_heads, 1):
        raise Problem(
            "G642",
            "The sizes that the language model's file states do not fit together.",
            why=str(sizes),
            tries=["fetch the file again", "genba explain G642"],
        )
    return sizes


def talk_graph(file: Gguf, weights: str) -> Any:
    """Return the model as `openvino.Model` with paged attention.

    Its inputs are those of OpenVINO's paged attention (`input_ids`, `position_ids`, `past_lens`,
    ...) and `wanted` (int64 [N], rows whose next token is asked for). Its outputs are the logits
    of these rows (float32 [N, tokens]) and the probability of the likeliest of them ([N, 1]).

    Args:
        file: The model.
        weights: Number format of the products, see `genba.engines.talk_weights`.
    """
    return _Builder(file, weights).build()


class _Builder:
    """Makes one graph."""

    def __init__(self, file: Gguf, weights: str) -> None:
        self._file = file
        self._sizes = sizes_of(file)
        self._packer = Packer(file, weights)
        self._ids = _parameter("input_ids", ov.Type.i64, 2)
        self._attention = _parameter("attention_mask", ov.Type.i64, 2)
        self._positions = _parameter("position_ids", ov.Type.i64, 2)
        self._beam = _parameter("beam_idx", ov.Type.i32, 1)
        self._sinks: list[Any] = []

    def build(self) -> Any:
        embedding = self._packer.embedding(self._ids)
        stream = embedding
        self._angles()
        for layer in range(self._sizes.layers):
            name = f"blk.{layer}."
            stream = opset13.add(stream, self._attend(self._norm(stream, name + "attn_norm"), name))
            stream = opset13.add(stream, self._think(self._norm(stream, name + "ffn_norm"), name))
        last = self._norm(stream, "output_norm")
        logits = opset13.matmul(last, self._packer.head(), False, True)
        result = opset13.result(logits)
        inputs = [self._ids, self._attention, self._positions, self._beam]
        model = ov.Model([result], self._sinks, inputs, "talk")
        paged_attention_transformation(model)
        return _with_wanted_rows(model, result)

    def _norm(self, x: Any, name: str) -> Any:
        gamma = _constant(self._file.array(f"{name}.weight").reshape(1, 1, -1))
        mean = opset13.reduce_mean(opset13.power(x, _numbers(2)), _whole(-1), True)
        root = opset13.sqrt(opset13.add(mean, _numbers(self._sizes.smallest)))
        return opset13.multiply(opset13.multiply(x, opset13.divide(_numbers(1), root)), gamma)

    def _angles(self) -> None:
        sizes = self._sizes
        steps = np.arange(0, sizes.head, 2, dtype=np.float64) / sizes.head
        waves = _constant((1.0 / sizes.turn**steps).astype(np.float32).reshape(1, -1, 1))
        at = opset13.convert(opset13.unsqueeze(self._positions, _whole(1)), ov.Type.f32)
        turned = opset13.transpose(opset13.matmul(waves, at, False, False), _whole(0, 2, 1))
        both = opset13.concat([turned, turned], -1)
        self._cos = opset13.unsqueeze(opset13.cos(both), _whole(1))
        self._sin = opset13.unsqueeze(opset13.sin(both), _whole(1))

    def _turn(self, x: Any) -> Any:
        half = self._sizes.head // 2
        first = opset13.slice(x, _whole(0), _whole(half), _whole(1), _whole(3))
        second = opset13.slice(x, _whole(half), _whole(_EVERYTHING), _whole(1), _whole(3))
        minus = opset13.multiply(second, _constant(np.full((1, 1, 1, 1), -1, dtype=np.float32)))
        crossed = opset13.concat([minus, first], -1)
        return opset13.add(opset13.multiply(x, self._cos), opset13.multiply(crossed, self._sin))

    def _attend(self, x: Any, name: str) -> Any:
        sizes = self._sizes
        rows = [
            self._halves(f"{name}attn_q.weight", sizes.heads),
            self._halves(f"{name}attn_k.weight", sizes.key_heads),
            self._file.raw(f"{name}attn_v.weight"),
        ]
        names = [f"{name}attn_{which}.weight" for which in "qkv"]
        product = opset13.matmul(x, self._packer.matrix(names, rows), False, True)
        parts = _whole(sizes.queries, sizes.keys, sizes.keys)
        split = opset13.variadic_split(product, _constant(np.array(-1)), parts)
        query = self._turn(_heads(split.output(0), sizes.heads, sizes.head))
        key = self._turn(_heads(split.output(1), sizes.key_heads, sizes.head))
        value = _heads(split.output(2), sizes.key_heads, sizes.head)
        read = opset13.scaled_dot_product_attention(
            query, self._kept(f"{name}key", key), self._kept(f"{name}value", value), self._mask()
        )
        joined = opset13.transpose(read, _whole(0, 2, 1, 3))
        flat = opset13.reshape(joined, _whole(0, 0, sizes.queries), True)
        return opset13.matmul(flat, self._packer.named(f"{name}attn_output.weight"), False, True)

    def _think(self, x: Any, name: str) -> Any:
        names = [f"{name}ffn_gate.weight", f"{name}ffn_up.weight"]
        inner = [self._file.tensors[n].shape[0] for n in names]
        rows = [self._file.raw(n) for n in names]
        product = opset13.matmul(x, self._packer.matrix(names, rows), False, True)
        split = opset13.variadic_split(product, _constant(np.array(-1)), _whole(*inner))
        gated = opset13.multiply(opset13.swish(split.output(0)), split.output(1))
        return opset13.matmul(gated, self._packer.named(f"{name}ffn_down.weight"), False, True)

    def _halves(self, name: str, heads: int) -> Array:
        """Return rows that turn together as two halves instead of in pairs."""
        raw = self._file.raw(name)
        paired = raw.reshape(heads, self._sizes.head // 2, 2, -1)
        return paired.swapaxes(1, 2).reshape(raw.shape)

    def _kept(self, name: str, new: Any) -> Any:
        """Return all keys or values there are; the form that becomes paged attention."""
        sizes = self._sizes
        batch = opset13.gather(opset13.shape_of(self._ids), _whole(0), _constant(np.array(0)))
        empty = opset13.concat([batch, _whole(sizes.key_heads, 0, sizes.head)], 0)
        start = opset13.broadcast(_constant(np.array(0, dtype=np.float32)), empty)
        shape = ov.PartialShape([-1, sizes.key_heads, -1, sizes.head])
        before = opset6.read_value(start, name, ov.Type.f32, shape)
        past = opset13.gather(before, self._beam, _constant(np.array(0)))
        full = opset13.concat([past, new], 2)
        self._sinks.append(opset6.assign(full, name))
        groups = sizes.heads // sizes.key_heads
        if groups == 1:
            return full
        there = opset13.shape_of(full)
        first = opset13.gather(there, _whole(0, 1), _constant(np.array(0)))
        last = opset13.gather(there, _whole(2, 3), _constant(np.array(0)))
        wide = opset13.concat([first, _whole(groups), last], 0)
        repeated = opset13.broadcast(opset13.unsqueeze(full, _whole(2)), wide, "BIDIRECTIONAL")
        return opset13.reshape(repeated, _whole(0, sizes.heads, -1, sizes.head), True)

    def _mask(self) -> Any:
        """Return a mask; paged attention has its own and drops it."""
        return opset13.multiply(
            opset13.convert(
                opset13.unsqueeze(opset13.unsqueeze(self._attention, _whole(1)), _whole(1)),
                ov.Type.f32,
            ),
            _constant(np.full((1, 1, 1, 1), 0, dtype=np.float32)),
        )


def _with_wanted_rows(model: Any, result: Any) -> Any:
    logits = result.input_value(0).get_node()
    wanted = _parameter("wanted", ov.Type.i64, 1)
    rows = opset13.gather(logits.input_value(0), wanted, _constant(np.array(0)))
    logits.input(0).replace_source_output(rows.output(0))
    model.add_parameters([wanted])
    flat = opset13.reshape(logits, _whole(0, -1), True)
    best = opset13.reduce_max(opset13.softmax(flat, 1), _whole(1), True)
    model.remove_result(result)
    model.add_results([opset13.result(flat), opset13.result(best)])
    model.validate_nodes_and_infer_types()
    return model


def _heads(x: Any, heads: int, size: int) -> Any:
    split = opset13.reshape(x, _whole(0, 0, heads, size), True)
    return opset13.transpose(split, _whole(0, 2, 1, 3))


def _parameter(name: str, kind: Any, dimensions: int) -> Any:
    made = opset13.parameter([-1] * dimensions, kind, name=name)
    made.output(0).tensor.names = {name}
    return made


def _constant(array: Array) -> Any:
    return opset13.constant(np.array(array, order="C"))


def _whole(*numbers: int) -> Any:
    return _constant(np.array(numbers, dtype=np.int64))


def _numbers(value: float) -> Any:
    return _constant(np.full((1, 1, 1), value, dtype=np.float32))


__all__: Sequence[str] = ("PAGE", "Sizes", "sizes_of", "talk_graph")
