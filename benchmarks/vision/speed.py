"""What one image costs: the packaged classifier against the same network in eager torch.

`python -m benchmarks.vision.speed [--python PATH]`: PATH is an interpreter that has torch,
efficientnet-lite-pytorch, numpy and safetensors; without one an environment is made in
`benchmarks/.peers`. Both sides compute the same numbers (checked), one image at a time, on one
thread; what counts is processor time. Rounds of a quarter of a second alternate: on a shared
machine the time of the very same work doubles and halves within a minute. The ratio is the median
of the ratios of neighbouring rounds, against whichever memory layout torch is faster in.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy as safetensors

from benchmarks.machine import stamp
from genba.core.problem import Problem
from genba.core.protocols import Engine
from genba.core.resolve import installed, resolve
from genba.core.task import Model
from genba.learn.backbone import load
from genba.learn.classes.heads import Head
from genba.learn.weights.pinned import load_weights
from genba.runs.progress import ConsoleProgress
from genba.tasks.vision.classify import VisionClassify, schema

HERE = Path(__file__).parent
PEER = HERE.parent / ".peers" / "torch"
NAME = "efficientnet-lite0"
SIZE = 224
CLASSES = 10
IMAGES = 20
TURNS = 25
LAYOUTS = ("contiguous", "channels_last")
#: Cut behind the last block, as a classifier, and at a sixteenth of the size, as an inspection.
CUTS = {"classify": {"8": 2, "16": 2, "32": 1}, "inspect": {"8": 2, "16": 2}}
REQUIREMENTS = ["torch==2.13.0", "numpy", "safetensors"]
NETWORK = "efficientnet-lite-pytorch==0.1.0"


def environment() -> Path:
    """Return the interpreter of the peer's environment, made if missing."""
    python, done = PEER / "bin" / "python", PEER / "installed"
    if not done.exists():
        print("installing torch ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *REQUIREMENTS], check=True)
        subprocess.run([*install, "--no-deps", NETWORK], check=True)
        done.touch()
    return python


def model(grids: dict[str, int]) -> Model:
    """Return a classifier on the real network with a head that has learnt nothing."""
    backbone = load(NAME, ConsoleProgress())
    taps = [f"{tap}@{grid}" for tap, grid in grids.items()]
    width = sum(backbone.shape(tap, SIZE)[0] for tap in taps)
    chance = np.random.default_rng(0)
    weight = chance.normal(0, 0.05, (width, CLASSES)).astype(np.float32)
    head = Head(layers=((weight, np.zeros(CLASSES, dtype=np.float32)),))
    embedding = np.zeros((width, schema.EMBEDDING), dtype=np.float32)
    return Model(
        candidate="linear",
        settings={
            "size": SIZE,
            "classes": [str(number) for number in range(CLASSES)],
            "backbone": NAME,
            "backbone_version": backbone.version,
            "taps": taps,
            "abstain_below": 0.0,
        },
        arrays={
            **head.to_arrays(),
            "embed.map": embedding,
            "embed.offset": np.zeros(schema.EMBEDDING, dtype=np.float32),
        },
    )


@contextmanager
def torch_peer(
    python: Path, made: Model, grids: dict[str, int], images: Any
) -> Iterator[tuple[Callable[[str], float], str, Any]]:
    """Start torch and yield a function that times a round in a layout, its version, its answers."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("weights", "head", "images", "out")]
        safetensors.save_file(load_weights(NAME, ConsoleProgress()), paths[0])
        head = {n: made.arrays[f"head.0.{n}"] for n in ("weight", "offset")}
        safetensors.save_file(head, paths[1])
        safetensors.save_file({"image": images}, paths[2])
        with subprocess.Popen(
            [str(python), str(HERE / "speed_peer.py"), *paths],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            given, said = child.stdin, child.stdout

            def ask(line: str) -> str:
                given.write(line + "\n")
                given.flush()
                return said.readline().strip()

            version = ask(json.dumps(grids))
            answers = safetensors.load_file(paths[3])["probability"]
            yield lambda layout: float(ask(layout)), version, answers
            given.close()


def engines(graph: bytes) -> dict[str, Engine]:
    """Return every engine on one thread that can run the graph."""
    found: dict[str, Engine] = {}
    for name in installed("engine"):
        if name == "faulty":
            continue
        for settings in resolve("engine", name).candidates(1):
            if settings.get("threads") == 1:
                try:
                    found[f"{name} {settings['precision']}"] = resolve("engine", name)(
                        graph, settings
                    )
                except Problem as problem:
                    print(f"{name}: {problem.what}", file=sys.stderr)
    return found


def once(engine: Engine, images: Any) -> float:
    """Return processor seconds per image of one round, one image at a time."""
    bar = np.zeros(1, dtype=np.float32)
    start = time.process_time()
    for i in range(len(images)):
        engine.run({"image": images[i : i + 1], "abstain_below": bar})
    return (time.process_time() - start) / len(images)


def measure(python: Path) -> dict[str, Any]:
    """Measure both cuts and return the report."""
    images = np.random.default_rng(1).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    report: dict[str, Any] = {**stamp(), "images": IMAGES, "pixels": SIZE, "turns": TURNS}
    report["cuts"] = {}
    for cut, grids in CUTS.items():
        made = model(grids)
        graph = VisionClassify().export(made)
        runtimes = engines(graph)
        with torch_peer(python, made, grids, images) as (peer, version, answers):
            report["torch"] = version
            off = {name: differs(runtime, images, answers) for name, runtime in runtimes.items()}
            report["cuts"][cut] = {**timed(runtimes, peer, images), "difference": off}
        for runtime in runtimes.values():
            runtime.close()
    return report


def timed(
    runtimes: dict[str, Engine], peer: Callable[[str], float], images: Any
) -> dict[str, dict[str, float]]:
    """Let all take turns; return the median milliseconds of each, and the median ratios."""
    seconds: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for _ in range(TURNS):
        torch = {layout: peer(layout) for layout in LAYOUTS}
        for layout, found in torch.items():
            seconds.setdefault(f"torch {layout}", []).append(found)
        for name, runtime in runtimes.items():
            found = once(runtime, images)
            seconds.setdefault(name, []).append(found)
            for layout in LAYOUTS:
                ratios.setdefault(f"{name}|{layout}", []).append(torch[layout] / found)
    return {
        "median_ms": {name: 1e3 * statistics.median(found) for name, found in seconds.items()},
        "least_ms": {name: 1e3 * min(found) for name, found in seconds.items()},
        "times_faster": {
            name: min(statistics.median(ratios[f"{name}|{layout}"]) for layout in LAYOUTS)
            for name in runtimes
        },
    }


def differs(engine: Engine, images: Any, answers: Any) -> float:
    """Return the largest difference of a probability from torch's."""
    bar = np.zeros(len(images), dtype=np.float32)
    found = engine.run({"image": images, "abstain_below": bar})["probability"]
    return float(np.abs(found - answers).max())


def show(report: dict[str, Any]) -> None:
    """Print processor time per image and how many times faster than the faster layout of torch."""
    for cut, found in report["cuts"].items():
        print(f"{cut} at {report['pixels']} pixels, one thread: CPU ms per image, median (least)")
        for name, ms in found["median_ms"].items():
            text = f"  {name:22} {ms:6.1f} ({found['least_ms'][name]:.1f})"
            if name in found["times_faster"]:
                text += f"   {found['times_faster'][name]:.1f} x faster"
                text += f", differs by at most {found['difference'][name]:.1e}"
            print(text)


def main() -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="an interpreter that has torch")
    python = parser.parse_args().python or environment()
    report = measure(python)
    show(report)
    (HERE / "speed.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
