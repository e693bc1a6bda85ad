"""More graphs, so that modelled numbers are back-tested on models of many kinds.

`python -m benchmarks.codesign.zoo [--home FOLDER]` measures a few points of each and adds them to
`zoo.points.json`. None of these graphs has been trained: only their shapes matter here.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codesign.subjects import HOME, resnet_untrained
from genba.codesign.modelled import Seen, usage_of
from genba.codesign.modelled_points import read, remember
from genba.codesign.operations import in_integers, operations
from genba.codesign.runner import Order, measure
from genba.codesign.values import Point
from genba.core.problem import Problem
from genba.core.protocols import Tensors
from genba.core.resolve import resolve
from genba.core.values import Signature, Tensor
from genba.learn.backbone import load
from genba.learn.graph import Graph, serialise
from genba.learn.graph import trees as add_trees
from genba.runs.progress import ConsoleProgress

TARGET = "zoo"  # the name of the file of points
SECONDS = 0.4
BATCHES = (1, 8)
ROWS = (1, 8, 64)  # of what is no image
SAMPLES = 64
MOST_BYTES = 16 << 20
ENGINES = (("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))


@dataclass(frozen=True)
class Kind:
    """A graph of the zoo: how it is made, and the shape of a sample."""

    make: Callable[[], bytes]
    shape: tuple[int, ...]
    images: bool = False  # as bytes of a file, not as floats


def backbone(name: str, size: int, taps: tuple[str, ...]) -> bytes:
    """Return a frozen network of Genba's, cut where it is asked for."""
    graph = Graph()
    found = load(name, ConsoleProgress())
    parts = found.graph_parts(graph, "image", size=size, taps=taps)
    whole = graph.add("Concat", *parts.values(), axis=1, name="look")
    width = sum(found.shape(tap, size)[0] for tap in taps)
    image = Tensor(name="image", datatype="UINT8", shape=(-1, size, size, 3), role="image")
    look = Tensor(name=whole, datatype="FP32", shape=(-1, width), role="embedding")
    return serialise(graph, "zoo", Signature(inputs=(image,), outputs=(look,)))


def of_torch(network: Any, shape: tuple[int, ...]) -> bytes:
    """Return a torch network as ONNX with a free batch."""
    import torch

    file = io.BytesIO()
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"]}
    axes = {"x": {0: "batch"}, "y": {0: "batch"}}
    example = (torch.zeros((2, *shape)),)
    network.eval()
    torch.onnx.export(
        network, example, file, dynamic_axes=axes, opset_version=17, dynamo=False, **names
    )
    return file.getvalue()


def resnet(size: int) -> bytes:
    """Return a ResNet-18 for images of another size."""
    return of_torch(resnet_untrained(), (3, size, size))


def dense(*widths: int) -> bytes:
    """Return a network of dense layers."""
    from torch import nn

    layers: list[Any] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return of_torch(nn.Sequential(*layers[:-1]), (widths[0],))


def temporal(channels: int, length: int) -> bytes:
    """Return a network of convolutions along time, as for readings of sensors."""
    from torch import nn

    layers: list[Any] = [nn.Conv1d(8, channels, 5, padding=2), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv1d(channels, channels, 5, padding=2), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return of_torch(nn.Sequential(*layers), (8, length))


def attention(width: int, length: int) -> bytes:
    """Return two layers of a transformer's encoder (Vaswani et al., 2017), written out."""
    from benchmarks.codesign.resnet import Attention

    return of_torch(Attention(width), (length, width))


def forest(trees: int, leaves: int) -> bytes:
    """Return boosted trees over 12 readings, as for a wind farm or a machine's remaining life."""
    from genba.learn.trees import grow

    chance = np.random.default_rng(0)
    x = chance.normal(size=(4000, 12)).astype(np.float32)
    wide = x.astype(np.float64)
    y = np.sin(wide[:, :1]) * wide[:, 1:2] + wide[:, 2:3]
    settings = {"iterations": trees, "leaves": leaves, "rate": 0.1, "min_rows": 5}
    graph = Graph()
    found = add_trees(graph, grow(x, y, settings, [np.arange(12)]), "x")
    into = Tensor(name="x", datatype="FP32", shape=(-1, 12))
    out = Tensor(name=found, datatype="FP32", shape=(-1, 1), role="expected")
    return serialise(graph, "zoo", Signature(inputs=(into,), outputs=(out,)))


KINDS = {
    "lite0-224": Kind(lambda: backbone("efficientnet-lite0", 224, ("16@2",)), (224, 224, 3), True),
    "lite0-128": Kind(lambda: backbone("efficientnet-lite0", 128, ("8@2",)), (128, 128, 3), True),
    "filters-224": Kind(lambda: backbone("filters", 224, ("8@2",)), (224, 224, 3), True),
    "resnet-18-112": Kind(lambda: resnet(112), (3, 112, 112)),
    "resnet-18-64": Kind(lambda: resnet(64), (3, 64, 64)),
    "dense-small": Kind(lambda: dense(64, 256, 256, 10), (64,)),
    "dense-large": Kind(lambda: dense(512, 2048, 2048, 64), (512,)),
    "temporal": Kind(lambda: temporal(64, 256), (8, 256)),
    "trees-few": Kind(lambda: forest(30, 15), (12,)),
    "trees-many": Kind(lambda: forest(200, 31), (12,)),
    "attention": Kind(lambda: attention(256, 128), (128, 256)),
}


def points(with_integers: bool, batches: tuple[int, ...]) -> Iterator[Point]:
    """Yield what is measured of each graph."""
    for batch in batches:
        for threads in (1, 2):
            for engine, precision in ENGINES:
                settings = {"precision": precision, "threads": threads}
                yield Point(engine=engine, settings=settings, batch=batch)
            for engine in ("onnxruntime", "openvino") if with_integers else ():
                settings = {"precision": "int8", "threads": threads}
                yield Point(engine=engine, settings=settings, form="int8", batch=batch)


def visit(name: str, kind: Kind) -> Iterator[Seen]:
    """Measure the points of one graph."""
    graph = kind.make()
    chance = np.random.default_rng(0)
    count = max(8, min(SAMPLES, MOST_BYTES // (4 * int(np.prod(kind.shape)))))
    shape = (count, *kind.shape)
    floats = chance.normal(size=shape).astype(np.float32)
    pixels = chance.integers(0, 256, shape, dtype=np.uint8)
    samples: Tensors = {"image": pixels} if kind.images else {"x": floats}
    small = [{n: t[at : at + 4] for n, t in samples.items()} for at in (0, 4)]
    try:
        lowered = resolve("lowering", "int8").lower(graph, small)
    except Problem:
        lowered = None
    plain = operations(graph)
    for point in points(lowered is not None, ROWS if len(kind.shape) < 3 else BATCHES):
        order = Order(
            engine=point.engine,
            settings=point.settings,
            graph=(lowered if point.form else graph) or b"",
            samples=samples,
            batch=point.batch,
            seconds=SECONDS,
        )
        try:
            found = measure(order)
        except Problem as problem:
            print(f"{name} {point.label}: {problem.what}", flush=True)
            continue
        print(f"{name} {point.label}: {found['cpu_ms']}", flush=True)
        yield Seen(
            model=name,
            work=in_integers(plain) if point.form else plain,
            usage=usage_of(point.engine, point.settings, point.form, point.batch),
            cpu_ms=found["cpu_ms"].value,
            latency_ms_p50=found["latency_ms_p50"].value,
            load=found["load"].value,
            time_ms=int(time.time() * 1000),
        )


def visit_all(home: Path) -> None:
    """Measure what is missing."""
    for name, kind in KINDS.items():
        if name not in {point.model for point in read(home, TARGET)}:
            remember(home, TARGET, list(visit(name, kind)))


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME)
    visit_all(parser.parse_args().home)


if __name__ == "__main__":
    main()
