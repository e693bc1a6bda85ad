"""The classifier as one ONNX graph: pixels in, class, probabilities and doubt out."""

import numpy as np
from onnx import TensorProto

from genba.core.task import Model
from genba.learn.backbone import load
from genba.learn.graph import Graph, serialise
from genba.learn.looks import append_look
from genba.tasks.vision.classify import schema
from genba.tasks.vision.classify.heads import Head
from genba.tasks.vision.classify.model import SMALLEST


def export(model: Model) -> bytes:
    """Return the model as ONNX; the network is in it, so nothing else is needed to serve it."""
    settings = model.settings
    backbone = load(str(settings["backbone"]), version=str(settings["backbone_version"]))
    taps, graph = [str(tap) for tap in settings["taps"]], Graph()
    named = backbone.graph_parts(graph, "image", size=int(settings["size"]), taps=taps)
    x = graph.add("Concat", *(named[tap] for tap in taps), axis=1)
    _head(graph, x, Head.of(model.arrays))
    _answers(graph)
    raised = graph.add("MatMul", x, graph.floats(model.arrays["embed.map"]))
    graph.add("Add", raised, graph.floats(model.arrays["embed.offset"]), name="embedding")
    append_look(graph, "image", schema.LOOKS, "look")
    return serialise(graph, "vision.classify", schema.signature(settings))


def _head(graph: Graph, x: str, head: Head) -> None:
    for number, (weight, offset) in enumerate(head.layers):
        if number:
            x = graph.add("Relu", x)
        x = graph.add("MatMul", x, graph.floats(weight))
        x = graph.add("Add", x, graph.floats(offset))
    graph.add("Softmax", x, axis=1, name="probability")


def _answers(graph: Graph) -> None:
    """Mirror `model.answers`."""
    one = graph.floats(np.float32(1.0))
    likeliest = graph.add("ReduceMax", "probability", axes=[1], keepdims=0)
    room = graph.add("Max", graph.add("Sub", one, "abstain_below"), graph.floats(SMALLEST))
    graph.add("Div", graph.add("Sub", one, likeliest), room, name="score")
    graph.add("Greater", "score", one, name="alarm")
    best = graph.add("ArgMax", "probability", axis=1, keepdims=0)
    silent = graph.integers(np.full(1, schema.ABSTAINS))
    chosen = graph.add("Where", "alarm", silent, best)
    graph.add("Cast", chosen, to=TensorProto.INT64, name="class")
