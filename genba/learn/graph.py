"""Building ONNX graphs: nodes and constants, trees, and the frame that the signature gives.

Opset 17 and float32, so that every runtime reads it; trees are an `ai.onnx.ml` node, which not
every runtime has (the search over engines finds out by trying).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from genba.core.protocols import Array
from genba.core.values import Signature, Tensor
from genba.learn.trees import Forest

OPSET: Final = 17
_TREES_OPSET: Final = 3
_IR_VERSION: Final = 9
_TREES_DOMAIN: Final = "ai.onnx.ml"
_FREE: Final = {-1: "batch", -2: "length"}
_TYPES: Final = {
    "FP32": TensorProto.FLOAT,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "BOOL": TensorProto.BOOL,
}


class Graph:
    """Collects nodes and constants; `add` returns the name of a node's output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def floats(self, values: Any) -> str:
        """Keep a float32 constant and return its name."""
        return self._constant(np.asarray(values, dtype=np.float32))

    def doubles(self, values: Any) -> str:
        """Keep a float64 constant and return its name."""
        return self._constant(np.asarray(values, dtype=np.float64))

    def integers(self, values: Any) -> str:
        """Keep an int64 constant and return its name."""
        return self._constant(np.asarray(values, dtype=np.int64))

    def small(self, values: Any) -> str:
        """Keep a constant in half precision and return its name; what is taken of it is cast."""
        return self._constant(np.asarray(values, dtype=np.float16))

    def halves(self, values: Any) -> str:
        """Keep a constant in half precision and return the name of what it is in float32.

        Half the bytes on disk; a runtime turns it into float32 once, when it loads the graph.
        """
        return self.add("Cast", self.small(values), to=TensorProto.FLOAT)

    def _constant(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def trees(graph: Graph, forest: Forest, filled: str) -> str:
    """Append a forest as one node and return the name of its output [batch, targets].

    Args:
        graph: Where to.
        forest: The trees.
        filled: Name of the features [batch, features].
    """
    nodes = np.arange(len(forest.feature))
    tree = np.searchsorted(forest.root, nodes, side="right") - 1
    local = nodes - forest.root[tree]
    leaf = forest.left == nodes
    ids: dict[str, Array] = {
        "nodes_treeids": tree,
        "nodes_nodeids": local,
        "nodes_featureids": forest.feature,
        "nodes_truenodeids": np.where(leaf, 0, forest.left - forest.root[tree]),
        "nodes_falsenodeids": np.where(leaf, 0, forest.right - forest.root[tree]),
        "target_treeids": tree[leaf],
        "target_nodeids": local[leaf],
        "target_ids": forest.target[tree[leaf]],
    }
    attributes: dict[str, Any] = {n: [int(i) for i in values] for n, values in ids.items()}
    return graph.add(
        "TreeEnsembleRegressor",
        filled,
        domain=_TREES_DOMAIN,
        n_targets=len(forest.base),
        nodes_modes=["LEAF" if end else "BRANCH_LEQ" for end in leaf],
        nodes_values=[float(t) for t in forest.threshold],
        target_weights=[float(v) for v in forest.value[leaf]],
        base_values=[float(b) for b in forest.base],
        post_transform="NONE",
        **attributes,
    )


def serialise(
    graph: Graph, name: str, signature: Signature, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the graph as serialised and checked ONNX with the inputs and outputs of a signature.

    Args:
        graph: Its nodes must give every output of the signature by name.
        name: Of the graph, for people who open it.
        signature: Of the package; a dimension of -1 is the batch, other negative ones are free.
        metadata: Kept in the graph; an engine reads text by it, for instance.
    """
    made = helper.make_graph(
        graph.nodes,
        name,
        _values(signature.inputs),
        _values(signature.outputs),
        initializer=graph.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain == _TREES_DOMAIN for node in graph.nodes):
        opsets.append(helper.make_opsetid(_TREES_DOMAIN, _TREES_OPSET))
    model = helper.make_model(
        made, opset_imports=opsets, producer_name="genba", ir_version=_IR_VERSION
    )
    if metadata:
        helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _values(tensors: Sequence[Tensor]) -> list[Any]:
    return [
        helper.make_tensor_value_info(
            t.name, _TYPES[t.datatype], [d if d >= 0 else _FREE.get(d, "free") for d in t.shape]
        )
        for t in tensors
    ]
