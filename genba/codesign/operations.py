"""What a graph computes, operator by operator: arithmetic, bytes moved, and how both grow.

Shapes are inferred for a batch of one and of three rows: what is the same in both is there once per
call, what grows is there once per row. An operator that a runtime computes together with the layer
before it (an activation, a normalisation, the addition of a shortcut) moves no bytes of its own.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import onnx
from onnx import numpy_helper

from genba.codesign.operations_shapes import Shapes, shapes_for
from genba.engines.graph import read_graph

Kind = Literal["conv", "depthwise", "gemm", "trees", "elementwise", "free"]

KINDS: Final[tuple[Kind, ...]] = ("conv", "depthwise", "gemm", "trees", "elementwise", "free")
_FEW, _MANY = 1, 3  # rows that shapes are inferred for
_LAYERS: Final = frozenset(
    {"Conv", "ConvInteger", "QLinearConv", "MatMul", "Gemm", "QLinearMatMul"}
)
#: What runtimes compute while the numbers of the layer before are still in a register.
_FUSED: Final = frozenset(
    {
        *("BatchNormalization", "Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid"),
        *("Sigmoid", "Mul", "Add", "QuantizeLinear"),
    }
)
#: Names for the same bytes in another shape.
_FREE: Final = frozenset(
    {
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Shape", "Constant"),
        *("Dropout", "DequantizeLinear"),
    }
)
_TREES: Final = frozenset({"TreeEnsembleRegressor", "TreeEnsembleClassifier", "TreeEnsemble"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """A number that grows with the rows of a call."""

    once: float = 0.0
    row: float = 0.0

    def of(self, rows: int) -> float:
        """Return it for a call of so many rows.

        Example:
            >>> Amount(once=10, row=2).of(4)
            18
        """
        return self.once + self.row * rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One operator of a graph."""

    name: str
    operator: str
    kind: Kind
    flops: Amount  # additions and multiplications; of trees, comparisons
    bytes: Amount  # in, out and weights, each once
    integer: bool = False  # its numbers have eight bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Operations:
    """The operators of a graph in its order, without those that cost nothing to compute."""

    rows: tuple[Operation, ...]
    weights_bytes: int
    unknown: int = 0  # operators whose size could not be inferred

    def total(self, kind: Kind | None = None, batch: int = 1) -> float:
        """Return the arithmetic of a call, of one kind or of all."""
        return sum(row.flops.of(batch) for row in self.rows if kind in (None, row.kind))

    def by_kind(self, batch: int = 1) -> dict[str, dict[str, float]]:
        """Return arithmetic, bytes and the number of operators of each kind, for people."""
        found: dict[str, dict[str, float]] = {}
        for row in self.rows:
            entry = found.setdefault(row.kind, {"flops": 0.0, "bytes": 0.0, "operators": 0})
            entry["flops"] += row.flops.of(batch)
            entry["bytes"] += row.bytes.of(batch)
            entry["operators"] += 1
        return found


def operations(graph: bytes) -> Operations:
    """Return what a graph computes.

    Args:
        graph: A serialised ONNX model.

    Raises:
        Problem: G608 when the bytes are no ONNX model.
    """
    model = read_graph(graph)
    few, many = shapes_for(model, _FEW), shapes_for(model, _MANY)
    table = _Table(model.graph, few, many)
    rows = tuple(table.rows())
    return Operations(rows=rows, weights_bytes=table.weights_bytes, unknown=table.unknown)


def in_integers(work: Operations) -> Operations:
    """Return what the same graph computes once its layers are brought into 8-bit integers.

    For expectations before that form is made; which layers stay as they are is not known yet.
    """
    layers = ("conv", "depthwise", "gemm")
    rows = tuple(
        replace(row, integer=True, bytes=_quarter(row.bytes)) if row.kind in layers else row
        for row in work.rows
    )
    return replace(work, rows=rows, weights_bytes=work.weights_bytes // 4)


class _Table:
    """Walks the nodes of a graph."""

    def __init__(self, graph: Any, few: Shapes, many: Shapes) -> None:
        self._nodes: Sequence[Any] = graph.node
        self._few, self._many = few, many
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._fixed = set(self._constants)  # tensors that do not depend on an input
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(output.name for output in graph.output)
        self._layered: set[str] = set()  # what a layer, or what is computed with one, gave
        self._integers: set[str] = set()  # what stands for numbers of eight bits
        self.weights_bytes = sum(len(numpy_helper.to_array(t).tobytes()) for t in graph.initializer)
        self.unknown = 0

    def rows(self) -> list[Operation]:
        """Return the operators that compute something."""
        found = []
        for node in self._nodes:
            if all(name in self._fixed for name in node.input if name):
                self._fixed.update(node.output)  # a runtime computes it once, when it loads
                self._note_integers(node)
                continue
            row = self._row(node)
            if row is not None:
                found.append(row)
        return found

    def _note_integers(self, node: Any) -> None:
        if node.op_type == "DequantizeLinear":
            self._integers.update(node.output)

    def _row(self, node: Any) -> Operation | None:
        self._note_integers(node)
        kind = self._kind(node)
        if kind == "free" and not self._is_fused(node):
            return None
        integer = node.op_type in _LAYERS and node.input[0] in self._integers
        operation = Operation(
            name=node.name or node.output[0],
            operator=node.op_type,
            kind=kind,
            flops=self._amount(lambda shapes: self._flops(node, kind, shapes)),
            bytes=self._amount(lambda shapes: self._moved(node, shapes)),
            integer=integer,
        )
        self.unknown += self._few.size(node.output[0]) is None
        if self._is_fused(node):
            self._layered.update(node.output)
            return None
        if node.op_type in _LAYERS:
            self._layered.update(node.output)
        return replace(operation, bytes=_quarter(operation.bytes)) if integer else operation

    def _kind(self, node: Any) -> Kind:
        if node.op_type in _FREE:
            return "free"
        if node.op_type in _TREES:
            return "trees"
        if node.op_type not in _LAYERS:
            return "elementwise"
        if "Conv" not in node.op_type:
            return "gemm"
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        return "depthwise" if groups > 1 and self._weight(node)[1:2] == (1,) else "conv"

    def _is_fused(self, node: Any) -> bool:
        """Say whether it is computed together with the one layer that it follows."""
        return node.op_type in _FUSED and any(
            name in self._layered and self._uses[name] == 1 for name in node.input
        )

    def _amount(self, count: Any) -> Amount:
        few, many = count(self._few), count(self._many)
        row = max((many - few) / (_MANY - _FEW), 0.0)
        return Amount(once=max(few - _FEW * row, 0.0), row=row)

    def _flops(self, node: Any, kind: Kind, shapes: Shapes) -> float:
        out = shapes.size(node.output[0]) or 0
        if kind in ("conv", "depthwise"):
            return 2.0 * out * math.prod(self._weight(node)[1:])
        if kind == "gemm":
            return 2.0 * out * self._shared(node, shapes)
        if kind == "trees":
            return float(_comparisons(node)) * (shapes.rows(node.input[0]) or 0)
        return float(out)

    def _shared(self, node: Any, shapes: Shapes) -> int:
        """Return the length of the dimension that a matrix product sums over."""
        shape = shapes.of(node.input[0])
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        if not shape:
            return 0
        return shape[-2] if turned and len(shape) > 1 else shape[-1]

    def _weight(self, node: Any) -> tuple[int, ...]:
        place = 3 if node.op_type.startswith("QLinear") else 1
        return self._few.of(node.input[place]) or ()

    def _moved(self, node: Any, shapes: Shapes) -> float:
        names = [*node.input, *node.output]
        return float(sum(shapes.bytes(name) for name in names if name))


def _quarter(amount: Amount) -> Amount:
    """Return the bytes of numbers of eight bits, where numbers of 32 bits were counted."""
    return Amount(once=amount.once / 4, row=amount.row / 4)


def _comparisons(node: Any) -> int:
    """Return how many splits a row meets: in each tree, the logarithm of its leaves."""
    found: Mapping[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    modes, trees = found.get("nodes_modes", ()), found.get("nodes_treeids", ())
    leaves = Counter(tree for tree, mode in zip(trees, modes, strict=False) if mode == b"LEAF")
    return sum(1 + math.ceil(math.log2(max(count, 1))) for count in leaves.values())
