"""Peak memory of one engine, measured in a process of its own: `python -m genba.targets.footprint`.

In the process that trained the model the peak is long past and the libraries are loaded; only a
fresh process shows what a package adds on a device. The graph and the samples arrive on standard
input as frames, so nothing is written to disk, and a runtime that crashes takes only the child.
"""

import json
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from safetensors.numpy import save

from genba.core.problem import Problem
from genba.core.protocols import JsonObject, Tensors
from genba.core.resolve import resolve
from genba.core.values import Measure
from genba.edge.tensors import read_tensors
from genba.edge.texts import pack, unpack

_LENGTH: Final = struct.Struct("<Q")
_KIB_PER_MIB: Final = 1024
_TIMEOUT_S: Final = 120.0
_SINGLES: Final = 50
_SAMPLE_ROWS: Final = 64
_SAMPLE_IMAGES: Final = 16  # as many as the server computes at once
_SAMPLE_TEXTS: Final = 4  # answered at the same time
_IMAGE_AXES: Final = 4


def memory_mib(engine: str, settings: JsonObject, model: bytes, tensors: Tensors) -> Measure:
    """Return how much memory a package adds to a Python process with numpy, at its peak.

    The runtime's library, the graph and the buffers of batches of 1 and 64 rows (16 images, 4
    conversations) count.

    Args:
        engine: Name of the engine in the catalog.
        settings: Its settings.
        model: The graph.
        tensors: Real samples.

    Raises:
        Problem: G607 when the process that measures dies or takes too long.
    """
    has_images = any(np.ndim(tensor) == _IMAGE_AXES for tensor in tensors.values())
    texts = sorted(name for name, tensor in tensors.items() if tensor.dtype == object)
    most = _SAMPLE_IMAGES if has_images else _SAMPLE_TEXTS if texts else _SAMPLE_ROWS
    samples = {
        name: np.ascontiguousarray(pack(t[:most]) if name in texts else t[:most])
        for name, t in tensors.items()
    }
    asked = {"engine": engine, "settings": dict(settings), "texts": texts}
    order = json.dumps(asked).encode()
    frames = b"".join(_LENGTH.pack(len(f)) + f for f in (order, model, save(samples)))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "genba.targets.footprint"],
            input=frames,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(engine, f"It was stopped after {_TIMEOUT_S:.0f} s.") from error
    if done.returncode:
        raise _failed(engine, _reason(done))
    return Measure(value=float(json.loads(done.stdout)["memory_mib"]), unit="MiB", n=1)


def main(source: BinaryIO) -> dict[str, Any]:
    """Load the engine that arrives on `source`, use it, and return the growth at the peak."""
    order, model, samples = (_frame(source) for _ in range(3))
    asked = json.loads(order)
    packed = read_tensors(samples)
    tensors = {n: unpack(t) if n in asked.get("texts", ()) else t for n, t in packed.items()}
    before = _status_mib("VmRSS")
    engine = resolve("engine", asked["engine"])(model, asked["settings"])
    first = {name: tensor[:1] for name, tensor in tensors.items()}
    for _ in range(1 if asked.get("texts") else _SINGLES):
        engine.run(first)
    engine.run(tensors)
    return {"memory_mib": round(_status_mib("VmHWM") - before, 2)}


def _frame(source: BinaryIO) -> bytes:
    (length,) = _LENGTH.unpack(source.read(_LENGTH.size))
    return source.read(length)


def _status_mib(field: str) -> float:
    """Return a size of this process; VmHWM is the peak since it started, unlike `ru_maxrss`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes[field].split()[0]) / _KIB_PER_MIB


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"It was ended by {signal.Signals(-done.returncode).name}."
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return last[0] if last else f"It ended with code {done.returncode}."


def _failed(engine: str, why: str) -> Problem:
    return Problem(
        "G607",
        f"The process that measures the memory of {engine} failed.",
        why=why,
        tries=["genba doctor", 'engines = ["onnxruntime"]', "genba explain G607"],
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.stdin.buffer)))
