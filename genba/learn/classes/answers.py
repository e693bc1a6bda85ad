"""What is answered for probabilities, in numpy and the same in a graph."""

from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from genba.core.protocols import Array
from genba.learn.classes.heads import Head
from genba.learn.graph import Graph

ABSTAINS: Final = -1
SMALLEST: Final = 1e-6  # room for doubt, at least, where a bar asks for certainty


def answers(probability: npt.NDArray[np.float32], bar: npt.NDArray[np.float32]) -> dict[str, Array]:
    """Return class, score and alarm for probabilities and the bar below which nothing is said.

    The score is the room for doubt, relative to what the bar allows: 1.0 = at the bar.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.6, 0.4]], dtype=np.float32)
        >>> found = answers(p, np.array([0.75, 0.75], dtype=np.float32))
        >>> found["class"].tolist(), found["alarm"].tolist(), found["score"].astype("f2").tolist()
        ([0, -1], [False, True], [0.39990234375, 1.599609375])
    """
    doubt = np.float32(1.0) - probability.max(axis=1)
    score = doubt / np.maximum(np.float32(1.0) - bar, np.float32(SMALLEST))
    alarm = score > np.float32(1.0)
    best = np.argmax(probability, axis=1)
    return {
        "class": np.where(alarm, ABSTAINS, best).astype(np.int64),
        "score": score.astype(np.float32),
        "alarm": alarm,
    }


def append_head(graph: Graph, x: str, head: Head) -> None:
    """Append a head on features to a graph; its output is `probability`."""
    graph.add("Softmax", append_logits(graph, x, head), axis=1, name="probability")


def append_logits(graph: Graph, x: str, head: Head) -> str:
    """Append a head on features to a graph and return the name of its logits [N, classes]."""
    for number, (weight, offset) in enumerate(head.layers):
        if number:
            x = graph.add("Relu", x)
        x = graph.add("MatMul", x, graph.floats(weight))
        x = graph.add("Add", x, graph.floats(offset))
    return x


def append_answers(graph: Graph) -> None:
    """Append what `answers` does to a graph with `probability` and `abstain_below`."""
    one = graph.floats(np.float32(1.0))
    likeliest = graph.add("ReduceMax", "probability", axes=[1], keepdims=0)
    room = graph.add("Max", graph.add("Sub", one, "abstain_below"), graph.floats(SMALLEST))
    graph.add("Div", graph.add("Sub", one, likeliest), room, name="score")
    graph.add("Greater", "score", one, name="alarm")
    best = graph.add("ArgMax", "probability", axis=1, keepdims=0)
    silent = graph.integers(np.full(1, ABSTAINS))
    chosen = graph.add("Where", "alarm", silent, best)
    graph.add("Cast", chosen, to=TensorProto.INT64, name="class")
