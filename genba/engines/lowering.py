"""Boosted trees in standard operators, for a runtime that has no tree ensembles.

All splits of all trees are asked at once, and one small matrix product per tree says which leaf
the answers lead to: the GEMM strategy of Nakandala et al., "A Tensor Compiler for Unified Machine
Learning Prediction Serving", OSDI 2020. Walking down level by level does less arithmetic and is
slower, because on graphs this size the number of operators is what costs. The comparisons are
those of the tree ensemble, in float32, and what is added up before a leaf is chosen are small
whole numbers, so that the same leaf is reached; only the leaves may be summed in another order.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from genba.core.protocols import Array

_OPERATOR: Final = ("ai.onnx.ml", "TreeEnsembleRegressor")
_LEAF: Final = b"LEAF"
_BRANCH: Final = b"BRANCH_LEQ"
#: The matrices grow with the square of a tree; above 16 MiB (a hundred trees of two hundred
#: leaves) the node is left as it is, and the runtime refuses it.
_MOST_NUMBERS: Final = 4 << 20

Path = tuple[tuple[int, bool], ...]  # splits on the way to a leaf, and whether they hold


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tables:
    """Trees of up to S splits and L leaves as arrays; smaller ones are padded."""

    feature: Array  # int64 [trees, 1 + S]; the first is the row of ones
    threshold: Array  # float32 [trees, 1 + S]
    missing: Array  # bool [trees, 1 + S], the answer where the feature is NaN
    paths: Array  # float32 [trees, L, 1 + S]; 1 for exactly the leaf that is reached, else <= 0
    leaves: Array  # float32 [targets, trees * L]
    base: Array  # float32 [targets]


def lower_trees(model: Any) -> Any:
    """Return a model in which standard operators stand for its tree ensembles.

    Lowered are regressors whose splits are `value <= threshold` in float32 and whose leaves are
    summed, as Genba writes them, anywhere but in a subgraph. Others stay as they are, and so do
    those whose nodes are no trees: the runtime refuses them.

    Args:
        model: An `onnx.ModelProto`; it is not changed.

    Returns:
        A new model, or the same one when there is nothing to lower.
    """
    nodes, constants = [], []
    for node in model.graph.node:
        tables = _read(node) if (node.domain, node.op_type) == _OPERATOR else None
        if tables is None:
            nodes.append(node)
            continue
        writer = _Writer(prefix=f"{node.output[0]}/trees/")
        _write(writer, tables, node.input[0], node.output[0])
        nodes += writer.nodes
        constants += writer.constants
    if not constants:
        return model
    lowered = type(model)()
    lowered.CopyFrom(model)
    del lowered.graph.node[:]
    lowered.graph.node.extend(nodes)
    lowered.graph.initializer.extend(constants)
    return lowered


class _Writer:
    """Collects nodes and constants under names that begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = prefix

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{self._prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, array: Array) -> str:
        name = f"{self._prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def sizes(self, *sizes: int) -> str:
        return self.constant(np.array(sizes, dtype=np.int64))


def _write(to: _Writer, tables: _Tables, x: str, y: str) -> None:
    """Write the graph of `y = leaves @ relu(paths @ (features <= thresholds)) + base`.

    The batch is the last dimension, so that each tree multiplies a matrix of all its rows.
    """
    trees, splits = tables.feature.shape
    batch = to.add("Gather", to.add("Shape", x), to.sizes(0), axis=0)
    ones = to.add(
        "Expand",
        to.constant(np.ones((1, 1), dtype=np.float32)),
        to.add("Concat", to.sizes(1), batch, axis=0),
    )
    columns = to.add("Concat", ones, to.add("Transpose", x, perm=[1, 0]), axis=0)
    asked = to.add("Gather", columns, to.constant(tables.feature), axis=0)
    # Expanded, a threshold needs no broadcasting along the batch, which is slow in a batch of one.
    threshold = to.add(
        "Expand",
        to.constant(tables.threshold[:, :, None]),
        to.add("Concat", to.sizes(trees, splits), batch, axis=0),
    )
    holds = to.add("LessOrEqual", asked, threshold)
    if tables.missing.any():
        missing = to.constant(tables.missing[:, :, None])
        holds = to.add("Or", holds, to.add("And", to.add("IsNaN", asked), missing))
    answers = to.add("Cast", holds, to=TensorProto.FLOAT)
    reached = to.add("Relu", to.add("MatMul", to.constant(tables.paths), answers))
    reached = to.add("Reshape", reached, to.sizes(tables.leaves.shape[1], -1))
    total = to.add("MatMul", to.constant(tables.leaves), reached)
    total = to.add("Transpose", total, perm=[1, 0])
    to.add("Add", total, to.constant(tables.base), output=y)


def _read(node: Any) -> _Tables | None:
    """Return the trees of a node as arrays, or None when it is not one that can be lowered."""
    try:
        tables = _tables({a.name: helper.get_attribute_value(a) for a in node.attribute})
    except (KeyError, IndexError, ValueError):  # the lists do not fit together, or are no trees
        return None
    # An infinite leaf that is not reached would be multiplied by zero, which is not a number.
    return tables if tables is not None and np.isfinite(tables.leaves).all() else None


def _tables(found: Mapping[str, Any]) -> _Tables | None:
    modes = found.get("nodes_modes", [])
    if not _is_plain(found, modes):
        return None
    tree_ids = found["nodes_treeids"]
    leaves, nodes = (
        Counter(t for t, mode in zip(tree_ids, modes, strict=True) if mode in kinds)
        for kinds in ((_LEAF,), (_LEAF, _BRANCH))
    )
    width, splits = max(leaves.values(), default=0), max((nodes - leaves).values(), default=0)
    if not width or len(nodes) * width * (1 + splits) > _MOST_NUMBERS:
        return None
    return _fill(found, _Shape(trees=len(nodes), leaves=width, splits=splits))


def _is_plain(found: Mapping[str, Any], modes: list[bytes]) -> bool:
    return (
        set(modes) <= {_LEAF, _BRANCH}
        and found.get("aggregate_function", b"SUM") == b"SUM"
        and found.get("post_transform", b"NONE") == b"NONE"
        and not any(name.endswith("_as_tensor") for name in found)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    trees: int
    leaves: int
    splits: int


def _fill(found: Mapping[str, Any], shape: _Shape) -> _Tables:
    """Number the splits and leaves of each tree in the order they are met."""
    targets = int(found["n_targets"])
    tracks = found.get("nodes_missing_value_tracks_true") or [0] * len(found["nodes_modes"])
    votes: dict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
    names = ("target_treeids", "target_nodeids", "target_ids", "target_weights")
    for tree, leaf, target, weight in zip(*(found[name] for name in names), strict=True):
        votes[tree, leaf].append((target, weight))
    asked = (shape.trees, 1 + shape.splits)
    feature, threshold = np.zeros(asked, np.int64), np.ones(asked, np.float32)
    missing = np.zeros(asked, np.bool_)
    paths = np.zeros((shape.trees, shape.leaves, 1 + shape.splits), np.float32)
    values = np.zeros((targets, shape.trees, shape.leaves), np.float32)
    for t, (tree, members) in enumerate(_members(found).items()):
        place: dict[int, int] = {}
        for leaf, (here, path) in enumerate(_ways(found, members)):
            for split, holds in path:
                at = place.setdefault(split, 1 + len(place))
                feature[t, at] = 1 + found["nodes_featureids"][split]
                threshold[t, at] = found["nodes_values"][split]
                missing[t, at] = bool(tracks[split])
                paths[t, leaf, at] = 1 if holds else -1
            # One more than how far the answers fall short of those of this leaf.
            paths[t, leaf, 0] = 1 - sum(holds for _, holds in path)
            for target, weight in votes.get((tree, found["nodes_nodeids"][here]), ()):
                values[target, t, leaf] += np.float32(weight)
    return _Tables(
        feature=feature,
        threshold=_without_subnormals(threshold),
        missing=missing,
        paths=paths,
        leaves=values.reshape(targets, -1),
        base=np.array(found.get("base_values") or [0.0] * targets, dtype=np.float32),
    )


def _members(found: Mapping[str, Any]) -> dict[int, dict[int, int]]:
    """Return node id to position for each tree; the first node of a tree is its root."""
    trees: dict[int, dict[int, int]] = {}
    ids = zip(found["nodes_treeids"], found["nodes_nodeids"], strict=True)
    for position, (tree, node) in enumerate(ids):
        trees.setdefault(tree, {})[node] = position
    return trees


def _ways(found: Mapping[str, Any], members: Mapping[int, int]) -> Iterator[tuple[int, Path]]:
    """Yield each leaf of a tree with the splits on the way to it."""
    waiting: list[tuple[int, Path]] = [(next(iter(members.values())), ())]
    seen: set[int] = set()
    while waiting:
        here, path = waiting.pop()
        if here in seen:
            raise ValueError("a node can be reached in two ways")
        seen.add(here)
        if found["nodes_modes"][here] == _LEAF:
            yield here, path
            continue
        for holds, name in ((True, "nodes_truenodeids"), (False, "nodes_falsenodeids")):
            waiting.append((members[found[name][here]], (*path, (here, holds))))


def _without_subnormals(threshold: Array) -> Array:
    """Replace thresholds that a runtime may read as zero by ones that decide the same.

    OpenVINO sets constants below the smallest normal float32 (1.2e-38) to zero, and `0 <= -1e-39`
    would become true. Every reading that is not itself so small is decided as before.
    """
    tiny = np.finfo(np.float32).tiny
    normal = np.where(threshold < 0, -tiny, np.float32(0))
    return np.where(np.abs(threshold) < tiny, normal, threshold).astype(np.float32)
