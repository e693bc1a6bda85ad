"""A BERT encoder as an ONNX graph: numbers of word pieces in, one vector of length 1 out.

Devlin et al., "BERT", NAACL 2019; mean pooling and the unit length as in Reimers and Gurevych,
"Sentence-BERT", EMNLP 2019.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from genba.learn.graph import Graph

Floats = npt.NDArray[np.float32]

_MASKED: Final = -1e4  # added to what a word makes of padding: nothing is left after the softmax
_SMALL: Final = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How large it is."""

    layers: int
    heads: int
    numbers: int  # of a word, and of the vector
    padding: int = 0
    epsilon: float = 1e-12  # of the normalisations


def append_encoder(graph: Graph, tokens: str, weights: Mapping[str, Floats], shape: Shape) -> str:
    """Append an encoder to a graph.

    Args:
        graph: Where to.
        tokens: Name of the INT64 tensor [N, length], padded.
        weights: As the torch packages name them.
        shape: Of the network.

    Returns:
        Name of the FP32 tensor [N, numbers], each row of length 1.
    """
    writer = _Writer(graph, weights, shape)
    there = graph.add("Not", graph.add("Equal", tokens, graph.integers(shape.padding)))
    there = graph.add("Cast", there, to=TensorProto.FLOAT)
    absent = graph.add("Mul", graph.add("Sub", there, graph.floats(1.0)), graph.floats(-_MASKED))
    mask = graph.add("Unsqueeze", absent, graph.integers([1, 2]))
    x = writer.words(tokens)
    for number in range(shape.layers):
        x = writer.layer(x, mask, f"encoder.layer.{number}")
    return _pooled(graph, x, there)


def _pooled(graph: Graph, x: str, there: str) -> str:
    """Average what is no padding and bring it to length 1."""
    weight = graph.add("Unsqueeze", there, graph.integers([1]))  # [N, 1, length]
    total = graph.add("Squeeze", graph.add("MatMul", weight, x), graph.integers([1]))
    # The mean is a multiple of the sum, and the length is set to 1 in any case.
    length = graph.add("ReduceL2", total, axes=[1], keepdims=1)
    return graph.add("Div", total, graph.add("Max", length, graph.floats(_SMALL)))


class _Writer:
    def __init__(self, graph: Graph, weights: Mapping[str, Floats], shape: Shape) -> None:
        self._graph = graph
        self._weights = weights
        self._shape = shape

    def words(self, tokens: str) -> str:
        """Return words with their places; the kind of sentence is the first of two."""
        graph, weights = self._graph, self._weights
        kind = weights["embeddings.token_type_embeddings.weight"][0]
        places = graph.floats(weights["embeddings.position_embeddings.weight"] + kind)
        table = graph.add(
            "Gather", self._graph.small(weights["embeddings.word_embeddings.weight"]), tokens
        )
        word = graph.add("Cast", table, to=TensorProto.FLOAT)
        length = graph.add("Slice", graph.add("Shape", tokens), *map(graph.integers, ([1], [2])))
        place = graph.add("Slice", places, graph.integers([0]), length, graph.integers([0]))
        return self._norm(graph.add("Add", word, place), "embeddings.LayerNorm")

    def layer(self, x: str, mask: str, name: str) -> str:
        """Append one layer: words look at each other, then each at itself."""
        graph = self._graph
        seen = self._dense(self._attention(x, mask, f"{name}.attention.self"), f"{name}.attention")
        x = self._norm(graph.add("Add", seen, x), f"{name}.attention.output.LayerNorm")
        wide = self._matrix(x, f"{name}.intermediate.dense")
        made = self._dense(self._gelu(wide), name)
        return self._norm(graph.add("Add", made, x), f"{name}.output.LayerNorm")

    def _attention(self, x: str, mask: str, name: str) -> str:
        graph, shape = self._graph, self._shape
        each = shape.numbers // shape.heads
        parts = [
            (self._weights[f"{name}.{n}.weight"], self._weights[f"{name}.{n}.bias"])
            for n in ("query", "key", "value")
        ]
        (query, offset), *rest = parts
        scale = np.float32(1.0 / np.sqrt(each))  # folded into the queries
        scaled = [(query * scale, offset * scale), *rest]
        weight = np.concatenate([w.T for w, _ in scaled], axis=1)
        bias = np.concatenate([b for _, b in scaled])
        joined = graph.add("Add", graph.add("MatMul", x, graph.halves(weight)), graph.floats(bias))
        turns = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])  # [N, heads, length, each]; keys across
        q, k, v = (self._heads(joined, part, turn) for part, turn in enumerate(turns))
        alike = graph.add("MatMul", q, k)
        share = graph.add("Softmax", graph.add("Add", alike, mask), axis=-1)
        found = graph.add("Transpose", graph.add("MatMul", share, v), perm=[0, 2, 1, 3])
        return graph.add("Reshape", found, graph.integers([0, 0, shape.numbers]))

    def _heads(self, joined: str, part: int, turn: list[int]) -> str:
        graph, shape = self._graph, self._shape
        ends = (part * shape.numbers, (part + 1) * shape.numbers, 2)
        taken = graph.add("Slice", joined, *(graph.integers([end]) for end in ends))
        sizes = graph.integers([0, 0, shape.heads, shape.numbers // shape.heads])
        return graph.add("Transpose", graph.add("Reshape", taken, sizes), perm=turn)

    def _dense(self, x: str, name: str) -> str:
        return self._matrix(x, f"{name}.output.dense")

    def _matrix(self, x: str, name: str) -> str:
        graph = self._graph
        weight = graph.halves(self._weights[f"{name}.weight"].T)
        return graph.add(
            "Add", graph.add("MatMul", x, weight), graph.floats(self._weights[f"{name}.bias"])
        )

    def _gelu(self, x: str) -> str:
        """Hendrycks and Gimpel, "Gaussian error linear units", 2016; fused by the runtimes."""
        graph = self._graph
        share = graph.add("Erf", graph.add("Div", x, graph.floats(np.sqrt(2.0))))
        return graph.add(
            "Mul",
            graph.add("Mul", x, graph.add("Add", share, graph.floats(1.0))),
            graph.floats(0.5),
        )

    def _norm(self, x: str, name: str) -> str:
        graph, weights = self._graph, self._weights
        return graph.add(
            "LayerNormalization",
            x,
            graph.floats(weights[f"{name}.weight"]),
            graph.floats(weights[f"{name}.bias"]),
            axis=-1,
            epsilon=self._shape.epsilon,
        )
