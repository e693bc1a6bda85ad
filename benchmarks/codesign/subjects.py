"""The three models: an inspection of images, a wind farm's power curve, and a ResNet-18.

The first two are what their lines train on this machine, exported in float32; decisions and test
samples are those of the line. The ResNet-18 has random weights behind a last layer that was fitted
to tell ten generated textures apart, so that its decisions mean something.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genba.core.linefile import load_line
from genba.core.protocols import Array, Tensors
from genba.core.resolve import resolve
from genba.core.task import Parity
from genba.data.view import DatasetView
from genba.edge.tensors import read_tensors, write_tensors
from genba.learn.models import load_model
from genba.stages.optimize_forms import calibration
from genba.stages.samples import affordable, spread
from genba.store.home import Store

ROOT = Path(__file__).parents[2]
HOME = ROOT / "benchmarks" / ".peers" / "codesign"
LINES = ("inspection", "wind-farm")
RESNET = "resnet-18"
NAMES = (*LINES, RESNET)
_BYTES = 16 << 20
_ROWS = 512
_AGREE = 0.995
_SIZE = 224
_CLASSES = 10


@dataclass(kw_only=True)
class Subject:
    """A model, the samples it is measured and judged on, and its reference."""

    name: str
    graph: bytes
    samples: Tensors  # of the test set
    calibrate: Sequence[Tensors]  # never of the test set
    wanted: Tensors  # what the reference answers to the samples
    parity: Callable[[Tensors, Tensors], Parity]
    image: bool

    def judge(self, outputs: Tensors) -> Parity:
        """Compare answers to the samples with those of the reference."""
        return self.parity(self.wanted, outputs)

    @cached_property
    def forms(self) -> dict[str, bytes | None]:
        """The forms that were made so far."""
        return {"": self.graph}

    def form(self, name: str) -> bytes | None:
        """Return the graph in a form, None when it gains nothing by it."""
        if name not in self.forms:
            self.forms[name] = resolve("lowering", name).lower(self.graph, self.calibrate)
        return self.forms[name]


def subject(name: str, home: Path = HOME) -> Subject:
    """Return one of the three by name, as it was kept when it was first made."""
    folder = home / "subjects" / name
    if not (folder / "about.json").is_file():
        _keep(_resnet() if name == RESNET else _of_line(name, home), folder)
    return _kept(folder)


def _keep(one: Subject, folder: Path) -> None:
    """Write a subject, so that every part of the benchmark sees the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.onnx").write_bytes(one.graph)
    (folder / "samples").write_bytes(write_tensors(one.samples))
    (folder / "wanted").write_bytes(write_tensors(one.wanted))
    for at, batch in enumerate(one.calibrate):
        (folder / f"calibrate-{at:03}").write_bytes(write_tensors(batch))
    about = {"name": one.name, "image": one.image}
    (folder / "about.json").write_text(json.dumps(about))


def _kept(folder: Path) -> Subject:
    about = json.loads((folder / "about.json").read_text())
    name = about["name"]
    if name == RESNET:
        parity: Callable[[Tensors, Tensors], Parity] = _same_class
    else:
        parity = resolve("task", load_line(ROOT / "lines" / f"{name}.toml", ()).task)().parity
    return Subject(
        name=name,
        graph=(folder / "graph.onnx").read_bytes(),
        samples=read_tensors((folder / "samples").read_bytes()),
        calibrate=[read_tensors(p.read_bytes()) for p in sorted(folder.glob("calibrate-*"))],
        wanted=read_tensors((folder / "wanted").read_bytes()),
        parity=parity,
        image=bool(about["image"]),
    )


def _of_line(name: str, home: Path) -> Subject:
    """Run a line, or find it run, and take its model."""
    path = ROOT / "lines" / f"{name}.toml"
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "genba", "run", path, "--home", home, "--json", "--watch", "no"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    results: Mapping[str, Any] = json.loads(done.stdout)["results"]
    line = load_line(path, ())
    task = resolve("task", line.task)()
    store = Store.open(home)
    try:
        model = load_model(store, results["train"])
        view = DatasetView.open(store, str(results["prepare"]["dataset"]), line)
        signature = task.signature(model.settings)
        rows = affordable(signature, _BYTES, _ROWS)
        samples = spread(task, view, "test", model.settings, rows)
        return Subject(
            name=name,
            graph=task.export(model),
            samples=samples,
            calibrate=calibration(task, view, model.settings).batches,
            wanted=task.reference(model)(samples),
            parity=task.parity,
            image=any(tensor.role == "image" for tensor in signature.inputs),
        )
    finally:
        store.close()


def textures(count: int, seed: int) -> tuple[Array, Array]:
    """Return generated images [N, 3, size, size] and their classes: gratings in noise."""
    chance = np.random.default_rng(seed)
    labels = np.arange(count) % _CLASSES
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] / _SIZE
    images = np.empty((count, 3, _SIZE, _SIZE), dtype=np.float32)
    for at, label in enumerate(labels):
        angle = np.pi * label / _CLASSES + chance.normal(0, 0.05)
        turns = chance.uniform(8, 24)
        wave = np.sin(2 * np.pi * turns * (x * np.cos(angle) + y * np.sin(angle)))
        colour = chance.uniform(0.5, 1.0, (3, 1, 1))
        images[at] = colour * wave + chance.normal(0, 0.5, (3, _SIZE, _SIZE))
    return images, labels


def resnet_untrained(seed: int = 0) -> Any:
    """Return a ResNet-18 in torch with random weights."""
    import torch

    from benchmarks.codesign.resnet import ResNet18

    torch.manual_seed(seed)
    return ResNet18(_CLASSES)


def resnet_torch(seed: int = 0) -> Any:
    """Return a ResNet-18 (He et al., 2015) in torch with random weights, ready to be used."""
    import torch

    network = resnet_untrained(seed)
    network.train()
    images, labels = textures(200, seed=1)
    with torch.no_grad():
        for at in range(0, 200, 20):  # statistics of the normalisations
            network(torch.from_numpy(images[at : at + 20]))
    network.eval()
    with torch.no_grad():
        features = torch.cat(
            [network.features(torch.from_numpy(images[at : at + 20])) for at in range(0, 200, 20)]
        ).numpy()
    centre, scale = features.mean(0), features.std(0) + 1e-6
    known = np.c_[(features - centre) / scale, np.ones(len(features))]
    wanted = np.eye(_CLASSES)[labels]
    solved = np.linalg.solve(known.T @ known + 10.0 * np.eye(known.shape[1]), known.T @ wanted)
    weight = solved[:-1].T / scale
    with torch.no_grad():
        network.fc.weight.copy_(torch.from_numpy(weight))
        network.fc.bias.copy_(torch.from_numpy(solved[-1] - weight @ centre))
    return network


def _resnet() -> Subject:
    import torch

    network = resnet_torch()
    samples, _ = textures(100, seed=2)
    other, _ = textures(32, seed=3)
    file = io.BytesIO()
    torch.onnx.export(
        network,
        (torch.from_numpy(samples[:2]),),
        file,
        input_names=["image"],
        output_names=["score"],
        dynamic_axes={"image": {0: "batch"}, "score": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    with torch.no_grad():
        wanted = network(torch.from_numpy(samples)).numpy()
    return Subject(
        name=RESNET,
        graph=file.getvalue(),
        samples={"image": samples},
        calibrate=[{"image": other[at : at + 4]} for at in range(0, 32, 4)],
        wanted={"score": wanted},
        parity=_same_class,
        image=True,
    )


def _same_class(wanted: Tensors, found: Tensors) -> Parity:
    """Compare decisions: the class with the largest score."""
    a, b = wanted["score"], found["score"]
    alike = float((a.argmax(1) == b.argmax(1)).mean())
    error = float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1.0)))
    return Parity(decision_agreement=alike, max_error=error, samples=len(a), passed=alike >= _AGREE)
