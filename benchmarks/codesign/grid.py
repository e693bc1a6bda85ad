"""Every point of a grid, measured: `python -m benchmarks.codesign.grid [--seconds N] [--passes N]`.

Points are measured in a random order, each in a process of its own, in passes; what was measured
is kept after every point (`grid-NAME.json`), so that it can go on where it was stopped.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codesign.subjects import HOME, NAMES, Subject, subject
from benchmarks.machine import stamp
from genba.codesign.runner import Order, bench
from genba.codesign.runner import measure as measure_one
from genba.codesign.values import Point
from genba.core.codec import encode
from genba.core.problem import Problem

HERE = Path(__file__).parent
PASSES = 3
SECONDS = 0.6  # of measuring one point
CORES = 2
IMAGES = (1, 2, 3, 4, 6, 8, 12, 16)
ROWS = (1, 4, 8, 16, 32, 64, 128, 512)
FEWER = (1, 2, 3, 4, 6)  # where there are forms in integers besides
#: Threads of a batch and batches at a time.
SPREADS = ((1, 1), (2, 1), (1, 2))


def points(one: Subject) -> list[Point]:
    """Return the grid of a model: every runtime, precision, form, spread and batch."""
    forms = ["int8"] if one.form("int8") is not None else []
    found = []
    for batch in FEWER if forms else IMAGES if one.image else ROWS:
        for precision, form in (("float32", ""), *(("int8", form) for form in forms)):
            for threads, _ in SPREADS[:2]:
                settings = {"precision": precision, "threads": threads}
                found.append(Point(engine="onnxruntime", settings=settings, form=form, batch=batch))
        for precision, form in (("float32", ""), ("bfloat16", ""), *(("int8", f) for f in forms)):
            for threads, streams in SPREADS:
                settings = {"precision": precision, "threads": threads, "streams": streams}
                found.append(Point(engine="openvino", settings=settings, form=form, batch=batch))
    return found


def take(one: Subject, point: Point, known: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """Measure one point and hold its answers against the reference.

    Args:
        one: The model.
        point: What to measure.
        known: How those answered whose kernels are the same; what is found is added.
    """
    graph = one.form(point.form)
    assert graph is not None
    order = Order(
        engine=point.engine,
        settings=point.settings,
        graph=graph,
        samples=one.samples,
        batch=point.batch,
        callers=point.streams,
        seconds=SECONDS,
        limit_s=120.0,
    )
    entry: dict[str, Any] = {"id": point.id, "label": point.label, "point": asdict(point)}
    kernels = (*point.family, str(point.threads))
    try:
        if kernels in known:
            measures = measure_one(order)
        else:
            found = bench(order)
            measures, known[kernels] = found.measures, encode(one.judge(found.outputs))
    except Problem as problem:
        return {**entry, "refused": problem.to_json()}
    return {**entry, "measures": encode(measures), "parity": known[kernels]}


def path_of(name: str) -> Path:
    """Return where the grid of a model is kept."""
    return HERE / f"grid-{name}.json"


def measure(name: str, passes: int, until: float, home: Path = HOME) -> bool:
    """Go on with the grid of a model; return whether it is whole."""
    path = path_of(name)
    grid: dict[str, Any] = (
        json.loads(path.read_text()) if path.is_file() else {**stamp(), "model": name, "passes": []}
    )
    one = subject(name, home)
    wanted = points(one)
    known: dict[tuple[str, ...], Any] = {}
    for number in range(passes):
        if len(grid["passes"]) <= number:
            grid["passes"].append([])
        done = {entry["id"] for entry in grid["passes"][number]}
        order = np.random.default_rng(number).permutation(len(wanted))
        for point in (wanted[at] for at in order):
            if point.id in done:
                continue
            if time.monotonic() > until:
                return False
            entry = take(one, point, known)
            grid["passes"][number].append({**entry, "when": stamp()["measured"]})
            path.write_text(json.dumps(grid, indent=1) + "\n")
            value = entry.get("measures", {}).get("cpu_ms", {}).get("value")
            print(f"{name} {number} {point.label}: {value and round(value, 4)} CPU ms", flush=True)
    return True


def main() -> int:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--home", type=Path, default=HOME)
    asked = parser.parse_args()
    until = time.monotonic() + asked.seconds
    whole = [measure(name, asked.passes, until, asked.home) for name in asked.names]
    return 0 if all(whole) else 1


if __name__ == "__main__":
    raise SystemExit(main())
