"""The classifier as one ONNX graph: text in, class, probabilities and doubt out."""

import numpy as np
from onnx import TensorProto

from genba.core.task import Model
from genba.core.values import Signature, Tensor
from genba.learn.classes.answers import append_answers, append_logits
from genba.learn.classes.heads import Head
from genba.learn.classes.scope import Scope
from genba.learn.encoder import load_encoding
from genba.learn.graph import Graph, serialise
from genba.tasks.language.classify import schema

_MARKS = 1.0  # begin and end of a text less one: the logarithm of no piece is that of 1


def export(model: Model) -> bytes:
    """Return the model as ONNX; the encoder is in it, and how text is read is in its metadata."""
    settings = model.settings
    version = str(settings["encoder_version"])
    encoding = load_encoding(str(settings["encoder"]), version=version)
    graph = Graph()
    x = encoding.append(graph, "text")
    logits = append_logits(graph, x, Head.of(model.arrays))
    near = _probability(graph, x, logits, Scope.of(dict(model.arrays)))
    append_answers(graph)
    raised = graph.add("MatMul", x, graph.floats(model.arrays["embed.map"]))
    graph.add("Add", raised, graph.floats(model.arrays["embed.offset"]), name="embedding")
    _look(graph, near, encoding.shape.padding)
    declared = schema.signature(settings)
    numbers = Tensor(name="text", datatype="INT64", shape=(-1, -2), role="text")
    inputs = tuple(numbers if t.name == "text" else t for t in declared.inputs)
    given = Signature(inputs=inputs, outputs=declared.outputs)
    return serialise(graph, "language.classify", given, encoding.metadata("text"))


def _probability(graph: Graph, x: str, logits: str, scope: Scope) -> str:
    """Append the probabilities, lowered by what is out of scope; return the nearest class mean."""
    likeliest = graph.add("ReduceMax", logits, axes=[1], keepdims=1)
    alike = graph.add("MatMul", x, graph.floats(scope.means.T))
    near = graph.add("ReduceMax", alike, axes=[1], keepdims=1)
    both = graph.add("Concat", likeliest, near, axis=1)
    raised = graph.add("MatMul", both, graph.floats(scope.weight[:, None]))
    inside = graph.add("Sigmoid", graph.add("Add", raised, graph.floats(scope.offset)))
    share = graph.add("Softmax", logits, axis=1)
    graph.add("Mul", share, inside, name="probability")
    return near


def _look(graph: Graph, near: str, padding: int) -> None:
    there = graph.add("Not", graph.add("Equal", "text", graph.integers(padding)))
    count = graph.add("Cast", there, to=TensorProto.FLOAT)
    count = graph.add("ReduceSum", count, graph.integers([1]), keepdims=1)
    pieces = graph.add("Log", graph.add("Sub", count, graph.floats(np.float32(_MARKS))))
    graph.add("Concat", pieces, near, axis=1, name="look")
