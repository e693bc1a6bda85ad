"""What must hold of a graph before any runtime sees it."""

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from genba.engines.scan import kept_outside, no_graph


def read_graph(model: bytes) -> Any:
    """Parse a graph and refuse one that would read files when it is loaded.

    ONNX allows a tensor to live in another file. Runtimes follow such a path wherever it points
    (OpenVINO even out of the package with `..` or an absolute path), and those bytes are covered
    by no digest. Everything a package needs is inside it.

    Args:
        model: A serialised ONNX model.

    Returns:
        The parsed `onnx.ModelProto`.

    Raises:
        Problem: G608 when the bytes are no ONNX model or a tensor is kept in another file.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise no_graph(model, str(error)) from error
    outside = [t.name for t in _tensors(proto) if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise kept_outside(outside)
    return proto


def _tensors(proto: Any) -> Iterator[Any]:
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _of_graph(graph)
