"""The limit: the same graph in ONNX Runtime with nobody in between.

`python -m benchmarks.serve.raw MODELS SECONDS [NAME ...]` prints one line of JSON. One caller asks
again and again, in batches of one and of more, on one and on all cores; for the images also one
caller per core, each with a session of its own.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from benchmarks.serve import models
from benchmarks.serve.machine import cores

_BATCHES: Final = {"tab": (1, 8, 64), "cnn": (1, 8)}
_WARM: Final = 3


def measure(folder: Path, name: str, seconds: float) -> list[dict[str, Any]]:
    """Return what each way of calling one graph gives.

    Args:
        folder: With the graphs.
        name: Which one.
        seconds: For each.
    """
    many = cores()
    found = []
    for batch in _BATCHES[name]:
        ways = [(threads, 1) for threads in sorted({1, many})]
        if name == "cnn" and many > 1 and batch > 1:
            ways.append((1, many))
        for threads, callers in ways:
            one = _way(
                folder / f"{name}.onnx", models.question(name, batch), (threads, callers), seconds
            )
            found.append({"batch": batch, "threads": threads, "callers": callers, **one})
    return found


def _way(path: Path, x: Any, way: tuple[int, int], seconds: float) -> dict[str, float]:
    threads, callers = way
    sessions = [_session(path, threads) for _ in range(callers)]
    for session in sessions:
        for _ in range(_WARM):
            session.run(["y"], {"x": x})
    taken: list[list[float]] = [[] for _ in sessions]
    began, used = time.perf_counter(), time.process_time()
    until = began + seconds
    running = [
        threading.Thread(target=_ask, args=(session, x, until, own))
        for session, own in zip(sessions, taken, strict=True)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    lasted, used = time.perf_counter() - began, time.process_time() - used
    every = np.concatenate([np.array(own) for own in taken])
    rows = len(every) * len(x)
    return {
        "rows_per_s": rows / lasted,
        "cpu_us": used / rows * 1e6,
        "p50_ms": float(np.quantile(every, 0.5)) * 1e3,
        "p99_ms": float(np.quantile(every, 0.99)) * 1e3,
    }


def _ask(session: Any, x: Any, until: float, taken: list[float]) -> None:
    inputs, clock = {"x": x}, time.perf_counter
    now = clock()
    while now < until:
        session.run(["y"], inputs)
        after = clock()
        taken.append(after - now)
        now = after


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main(arguments: Sequence[str]) -> None:
    """Measure what is named and print it."""
    folder, seconds, *names = arguments
    result = {name: measure(Path(folder), name, float(seconds)) for name in names or models.NAMES}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
