"""What an image looks like in a few plain numbers, in numpy and the same in a graph.

They are what a person at a camera would notice: a darker lamp, a dirty lens, another background.
All are in units of the largest pixel value.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from genba.learn.graph import Graph

Floats = npt.NDArray[np.float32]

_WHITE: Final = np.float32(255.0)
_GREY: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

#: Name -> what it is.
LOOKS: Final = {
    "brightness": "mean grey",
    "contrast": "standard deviation of grey",
    "sharpness": "mean difference of grey between neighbouring pixels, down plus across",
    "saturation": "mean of the largest less the smallest colour of a pixel",
    "warmth": "mean of red less blue",
}


def look(images: npt.NDArray[np.uint8], names: Sequence[str]) -> Floats:
    """Return plain statistics of images.

    Args:
        images: [N, height, width, 3] RGB.
        names: Of `LOOKS`, in the order of the result.

    Returns:
        float32 [N, names].

    Example:
        >>> look(np.full((1, 4, 4, 3), 51, dtype=np.uint8), ["brightness", "contrast"]).tolist()
        [[0.20000000298023224, 0.0]]
    """
    found = np.empty((len(images), len(names)), dtype=np.float32)
    for i, image in enumerate(images):  # one by one: floats of a batch would be twelve times it
        pixels = image.astype(np.float32) / _WHITE
        grey = pixels @ _GREY
        found[i] = [_STATISTICS[name](pixels, grey) for name in names]
    return found


_STATISTICS: Final[dict[str, Callable[[Floats, Floats], float]]] = {
    "brightness": lambda _, grey: float(grey.mean()),
    "contrast": lambda _, grey: float(grey.std()),
    "sharpness": lambda _, grey: float(
        np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    ),
    "saturation": lambda pixels, _: float((pixels.max(axis=2) - pixels.min(axis=2)).mean()),
    "warmth": lambda pixels, _: float((pixels[..., 0] - pixels[..., 2]).mean()),
}


def append_look(graph: Graph, image: str, names: Sequence[str], output: str) -> None:
    """Append the same statistics to a graph.

    Args:
        graph: Where to.
        image: Name of a UINT8 tensor [N, height, width, 3].
        names: Of `LOOKS`.
        output: Name of the FP32 tensor [N, names] that is made.
    """
    pixels = graph.add("Cast", image, to=TensorProto.FLOAT)
    pixels = graph.add("Div", pixels, graph.floats(_WHITE))
    grey = graph.add("MatMul", pixels, graph.floats(_GREY[:, None]))  # [N, height, width, 1]
    made = {
        "brightness": lambda: _mean(graph, grey),
        "contrast": lambda: _deviation(graph, grey),
        "sharpness": lambda: graph.add("Add", _steps(graph, grey, 1), _steps(graph, grey, 2)),
        "saturation": lambda: _mean(
            graph,
            graph.add(
                "Sub",
                graph.add("ReduceMax", pixels, axes=[3], keepdims=1),
                graph.add("ReduceMin", pixels, axes=[3], keepdims=1),
            ),
        ),
        "warmth": lambda: _mean(
            graph, graph.add("MatMul", pixels, graph.floats([[1.0], [0.0], [-1.0]]))
        ),
    }
    graph.add("Concat", *(made[name]() for name in names), axis=1, name=output)


def _mean(graph: Graph, x: str) -> str:
    """Average [N, height, width, 1] into [N, 1]."""
    return graph.add("ReduceMean", x, axes=[1, 2], keepdims=0)


def _deviation(graph: Graph, x: str) -> str:
    centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=[1, 2], keepdims=1))
    return graph.add("Sqrt", _mean(graph, graph.add("Mul", centred, centred)))


def _steps(graph: Graph, x: str, axis: int) -> str:
    """Return the mean difference between neighbours along an axis."""
    last = np.iinfo(np.int64).max
    on = graph.integers([axis])
    later = graph.add("Slice", x, graph.integers([1]), graph.integers([last]), on)
    earlier = graph.add("Slice", x, graph.integers([0]), graph.integers([-1]), on)
    return _mean(graph, graph.add("Abs", graph.add("Sub", later, earlier)))
