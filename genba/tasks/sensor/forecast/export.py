"""The model as one ONNX graph: gaps, scaling, calendar, both bodies and intervals inside.

Mirrors `batch.from_tensors`, `explained.Explained.apply` and `model.Body`. Means are taken over
slices, row by row, so that an answer does not depend on what else is in the batch.
"""

import numpy as np
from onnx import TensorProto

from genba.core.task import Model
from genba.learn.graph import Graph, serialise
from genba.tasks.sensor.forecast import schema
from genba.tasks.sensor.forecast.export_body import body
from genba.tasks.sensor.forecast.export_inputs import Inputs, calendar_bins, prepare


def export(model: Model) -> bytes:
    """Return the model as serialised ONNX."""
    graph, settings, arrays = Graph(), model.settings, dict(model.arrays)
    made = prepare(graph, settings, arrays)
    predicted = body(graph, settings, arrays, made)
    scale = graph.add("Unsqueeze", made.scale, graph.integers([1]))
    center = graph.add("Unsqueeze", made.center, graph.integers([1]))
    expected = graph.add("Mul", predicted, scale)
    graph.add("Add", expected, center, name="expected")
    wide = graph.add("Mul", _half(graph, model, made), scale)
    times = graph.add("Reshape", "width", graph.integers([-1, 1, 1]))
    wide = graph.add("Mul", wide, times)
    graph.add("Sub", "expected", wide, name="low")
    graph.add("Add", "expected", wide, name="high")
    return serialise(graph, "sensor.forecast", schema.signature(settings))


def _half(graph: Graph, model: Model, made: Inputs) -> str:
    """Return half widths in units of the entity [N, H, O]."""
    half = graph.floats(model.arrays["half"])
    groups = np.asarray(model.arrays["groups"])
    if len(groups) == 1:
        unit = graph.floats(groups[None])
        rows = graph.add("Mul", graph.add("Cast", made.ahead, to=TensorProto.FLOAT), _zero(graph))
        unit = graph.add("Add", unit, graph.add("Unsqueeze", rows, graph.integers([2])))
    else:
        place = calendar_bins(graph, made.ahead, model.settings)["group"]
        unit = graph.add("Gather", graph.floats(groups), place, axis=0)
    return graph.add("Mul", unit, half)


def _zero(graph: Graph) -> str:
    return graph.floats(0.0)
