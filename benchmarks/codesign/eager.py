"""An ONNX graph in eager torch, operator by operator, as somebody would write the model by hand.

Only for the two graphs that Genba's tasks export; the ResNet-18 is a torch module anyway. Each node
is one call of torch; constants are tensors beforehand, shapes are not worked out again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

from genba.core.protocols import Array, Tensors

Attributes = Mapping[str, Any]


class Eager:
    """Runs a graph node by node.

    Args:
        graph: A serialised ONNX model.
    """

    def __init__(self, graph: bytes) -> None:
        model = onnx.load_from_string(graph)
        self._constants = {
            t.name: torch.from_numpy(numpy_helper.to_array(t).copy())
            for t in model.graph.initializer
        }
        self._outputs = [o.name for o in model.graph.output]
        self._steps = [
            (_function(node, self._constants), list(node.input), list(node.output))
            for node in model.graph.node
        ]

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Answer a batch."""
        known = dict(self._constants)
        known |= {name: torch.from_numpy(np.ascontiguousarray(t)) for name, t in tensors.items()}
        with torch.inference_mode():
            for function, inputs, outputs in self._steps:
                found = function(*(known[name] if name else None for name in inputs))
                several = found if isinstance(found, tuple) else (found,)
                known.update(zip(outputs, several, strict=False))
        return {name: known[name].numpy() for name in self._outputs}


def _function(node: Any, constants: Mapping[str, Any]) -> Callable[..., Any]:
    found: Attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "TreeEnsembleRegressor":
        return _Trees(found)
    if node.op_type in _PLAIN:
        return _PLAIN[node.op_type]
    fixed = [constants.get(name) for name in node.input]
    return _MADE[node.op_type](found, fixed)


def _conv(found: Attributes, _: list[Any]) -> Callable[..., Any]:
    pads = found.get("pads", [0, 0, 0, 0])
    even = pads[:2] == pads[2:]
    groups, strides = found.get("group", 1), found.get("strides", [1, 1])

    def conv(x: Any, weight: Any, bias: Any = None) -> Any:
        padded = x if even else functional.pad(x, (pads[1], pads[3], pads[0], pads[2]))
        padding = pads[:2] if even else 0
        return functional.conv2d(padded, weight, bias, strides, padding, groups=groups)

    return conv


def _cast(found: Attributes, _: list[Any]) -> Callable[..., Any]:
    kinds = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}
    kind = kinds[found["to"]]
    return lambda x: x.to(kind)


def _slice(_: Attributes, fixed: list[Any]) -> Callable[..., Any]:
    starts, ends = fixed[1].tolist(), fixed[2].tolist()
    axes = fixed[3].tolist() if len(fixed) > 3 else list(range(len(starts)))
    steps = fixed[4].tolist() if len(fixed) > 4 else [1] * len(starts)

    def cut(x: Any, *_places: Any) -> Any:
        places = [slice(None)] * x.ndim
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            places[axis] = slice(start, min(end, x.shape[axis]), step)
        return x[tuple(places)]

    return cut


def _reduce(function: Callable[..., Any]) -> Callable[[Attributes, list[Any]], Any]:
    def made(found: Attributes, fixed: list[Any]) -> Callable[..., Any]:
        axes = found.get("axes") or (fixed[1].tolist() if len(fixed) > 1 else None)
        keep = bool(found.get("keepdims", 1))
        return lambda x, *_: function(x, dim=axes, keepdim=keep)

    return made


def _reshape(_: Attributes, fixed: list[Any]) -> Callable[..., Any]:
    wanted = fixed[1].tolist()

    def reshape(x: Any, _shape: Any) -> Any:
        return x.reshape([x.shape[at] if size == 0 else size for at, size in enumerate(wanted)])

    return reshape


def _top(found: Attributes, fixed: list[Any]) -> Callable[..., Any]:
    count, axis = int(fixed[1].item()), found.get("axis", -1)
    largest = bool(found.get("largest", 1))
    return lambda x, _: tuple(torch.topk(x, count, dim=axis, largest=largest))


def _clip(_: Attributes, fixed: list[Any]) -> Callable[..., Any]:
    low, high = (None if f is None else f.item() for f in (fixed[1:3] + [None, None])[:2])
    return lambda x, *_: torch.clamp(x, low, high)


def _gather(found: Attributes, _: list[Any]) -> Callable[..., Any]:
    axis = found.get("axis", 0)

    def gather(x: Any, places: Any) -> Any:
        taken = torch.index_select(x, axis, places.reshape(-1))
        return taken.reshape(x.shape[:axis] + places.shape + x.shape[axis + 1 :])

    return gather


class _Trees:
    """Walks down all trees at once, level by level."""

    def __init__(self, found: Attributes) -> None:
        ids = np.array(found["nodes_treeids"])
        starts = np.r_[0, np.flatnonzero(np.diff(ids)) + 1]
        first = starts[np.searchsorted(ids[starts], ids)]
        leaf = np.array([mode == b"LEAF" for mode in found["nodes_modes"]])
        here = np.arange(len(ids))
        left = np.where(leaf, here, np.array(found["nodes_truenodeids"]) + first)
        right = np.where(leaf, here, np.array(found["nodes_falsenodeids"]) + first)
        value = np.zeros(len(ids), dtype=np.float32)
        value[leaf] = found["target_weights"]
        self._depth, at = 0, starts
        while len(at := at[~leaf[at]]):
            at, self._depth = np.r_[left[at], right[at]], self._depth + 1
        self._base = float((found.get("base_values") or [0.0])[0])
        names = {"feature": np.array(found["nodes_featureids"]), "left": left, "right": right}
        names |= {"threshold": np.array(found["nodes_values"], dtype=np.float32), "value": value}
        self._nodes = {name: torch.from_numpy(array) for name, array in names.items()}
        self._starts = torch.from_numpy(starts)

    def __call__(self, x: Any) -> Any:
        """Return the sum of the leaves [N, 1]."""
        nodes = self._nodes
        node = self._starts.expand(len(x), -1)
        for _ in range(self._depth):
            goes = x.gather(1, nodes["feature"][node]) <= nodes["threshold"][node]
            node = torch.where(goes, nodes["left"][node], nodes["right"][node])
        return nodes["value"][node].sum(1, keepdim=True) + self._base


_PLAIN: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Div": torch.div,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Relu": torch.relu,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Where": torch.where,
}
_MADE: dict[str, Callable[[Attributes, list[Any]], Callable[..., Any]]] = {
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda found, _: lambda *parts: torch.cat(parts, dim=found["axis"]),
    "Conv": _conv,
    "Flatten": lambda found, _: lambda x: torch.flatten(x, found.get("axis", 1)),
    "Gather": _gather,
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "Reshape": _reshape,
    "Slice": _slice,
    "TopK": _top,
    "Transpose": lambda found, _: lambda x: x.permute(found["perm"]),
}
