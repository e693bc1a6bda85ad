"""One contender in a process of its own; started by `benchmarks.codesign.result`.

Reads one line of JSON {"model", "who", "home", "batch", "threads", "point"}, answers its decision
agreement, and then for every further line the processor seconds per row of one round.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codesign.subjects import RESNET, Subject, resnet_torch, subject
from genba.core.protocols import Array, Tensors
from genba.core.resolve import resolve

ROUND_S = 0.25
MOST = 64
Run = Callable[[Tensors], dict[str, Array]]


def runs(asked: dict[str, Any], one: Subject) -> Run:
    """Return how the contender answers a batch."""
    if asked["who"] == "torch":
        return _torch(one, asked["threads"])
    if asked["who"] == "onnxruntime defaults":
        return _defaults(one)
    point = asked["point"]
    graph = one.form(point["form"])
    engine = resolve("engine", point["engine"])(graph, point["settings"])
    found: Run = engine.run
    return found


def _torch(one: Subject, threads: int | None) -> Run:
    import torch

    from benchmarks.codesign.eager import Eager

    if threads:
        torch.set_num_threads(threads)
    if one.name != RESNET:
        return Eager(one.graph).run
    network = resnet_torch()

    def run(tensors: Tensors) -> dict[str, Array]:
        with torch.inference_mode():
            return {"score": network(torch.from_numpy(tensors["image"])).numpy()}

    return run


def _defaults(one: Subject) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(one.graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = {i.name for i in session.get_inputs()}

    def run(tensors: Tensors) -> dict[str, Array]:
        fed = {name: t for name, t in tensors.items() if name in wanted}
        return dict(zip(names, session.run(names, fed), strict=True))

    return run


def main() -> None:
    """Answer until there is nothing more to do."""
    asked = json.loads(sys.stdin.readline())
    one = subject(asked["model"], Path(asked["home"]))
    run, batch = runs(asked, one), int(asked["batch"])
    rows = min(MOST, len(next(iter(one.samples.values()))))
    parts = [run(_rows(one.samples, at, at + 16)) for at in range(0, rows, 16)]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    wanted = {name: t[: len(next(iter(outputs.values())))] for name, t in one.wanted.items()}
    agreement = one.parity(wanted, outputs).decision_agreement
    batches = [_wrapped(one.samples, at * batch, batch) for at in range(8)]
    for each in batches[:3]:
        run(each)
    print(json.dumps(agreement), flush=True)
    for _ in sys.stdin:
        done, begun, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begun < ROUND_S or done < 2:
            run(batches[done % len(batches)])
            done += 1
        print((time.process_time() - cpu) / done / batch, flush=True)


def _rows(tensors: Tensors, start: int, stop: int) -> dict[str, Array]:
    return {name: t[start:stop] for name, t in tensors.items()}


def _wrapped(tensors: Tensors, start: int, count: int) -> dict[str, Array]:
    return {
        n: np.ascontiguousarray(t[np.arange(start, start + count) % len(t)])
        for n, t in tensors.items()
    }


if __name__ == "__main__":
    main()
