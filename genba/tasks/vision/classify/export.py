"""The classifier as one ONNX graph: pixels in, class, probabilities and doubt out."""

from genba.core.task import Model
from genba.learn.backbone import load
from genba.learn.classes.answers import append_answers, append_head
from genba.learn.classes.heads import Head
from genba.learn.graph import Graph, serialise
from genba.learn.looks import append_look
from genba.tasks.vision.classify import schema


def export(model: Model) -> bytes:
    """Return the model as ONNX; the network is in it, so nothing else is needed to serve it."""
    settings = model.settings
    backbone = load(str(settings["backbone"]), version=str(settings["backbone_version"]))
    taps, graph = [str(tap) for tap in settings["taps"]], Graph()
    named = backbone.graph_parts(graph, "image", size=int(settings["size"]), taps=taps)
    x = graph.add("Concat", *(named[tap] for tap in taps), axis=1)
    append_head(graph, x, Head.of(model.arrays))
    append_answers(graph)
    raised = graph.add("MatMul", x, graph.floats(model.arrays["embed.map"]))
    graph.add("Add", raised, graph.floats(model.arrays["embed.offset"]), name="embedding")
    append_look(graph, "image", schema.LOOKS, "look")
    return serialise(graph, "vision.classify", schema.signature(settings))
