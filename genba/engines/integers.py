"""Runtimes that compute 64-bit integers in 32 bits, and the graphs they would get wrong.

OpenVINO's CPU plugin turns INT64 into INT32 without a word. Indices and class numbers survive
that; milliseconds since 1970 do not, and everything computed from them would be wrong.
"""

from typing import Any, Final

import onnx

_TIME: Final = "time"  # milliseconds since 1970 wherever a package takes one
_MOVED: Final = frozenset(
    {"Unsqueeze", "Squeeze", "Reshape", "Flatten", "Identity", "Slice", "Concat", "Transpose"}
)
_COMPUTED: Final = frozenset({"Add", "Sub", "Mul", "Div", "Mod"})


def computes_with_wide_integers(proto: Any) -> str | None:
    """Return the name of the time input (INT64, ms) if a graph does arithmetic with it.

    Other integers of a package are indices, which are small.

    Args:
        proto: An `onnx.ModelProto`.

    Example:
        >>> from onnx import TensorProto, helper
        >>> time = helper.make_tensor_value_info("time", TensorProto.INT64, ["batch"])
        >>> out = helper.make_tensor_value_info("out", TensorProto.INT64, ["batch"])
        >>> node = helper.make_node("Add", ["time", "time"], ["out"])
        >>> computes_with_wide_integers(
        ...     helper.make_model(helper.make_graph([node], "g", [time], [out]))
        ... )
        'time'
    """
    came = {
        i.name: i.name
        for i in proto.graph.input
        if i.name == _TIME and i.type.tensor_type.elem_type == onnx.TensorProto.INT64
    }
    for node in proto.graph.node:
        source = next((came[name] for name in node.input if name in came), None)
        if source is None:
            continue
        if node.op_type in _COMPUTED:
            return str(source)
        if node.op_type in _MOVED:
            came.update(dict.fromkeys(node.output, source))
    return None
