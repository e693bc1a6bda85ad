"""A package is tried in a process of its own before the server loads it.

What a native runtime does with a graph cannot be known from its bytes: it may crash, hang, or
take all memory there is. So the first load, the self-test and the warm-up happen in a child. It
has the libraries imported and forks for each package, which costs milliseconds and keeps what one
package does from the next; and what the fork uses of memory is the package's and nothing else's.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from genba.core.problem import Problem
from genba.core.protocols import Engine, JsonObject
from genba.core.resolve import resolve
from genba.serve.lanes.models import LoadedModel, load_model, short
from genba.serve.lanes.probe import Probe, share
from genba.serve.limits import Limits
from genba.store.blobs import Blobs

_NICE: Final = 5  # requests come first
_LONGER: Final = 5.0  # times the time that was planned
_QUARTERS: Final = 4
_FEWEST_RUNS: Final = 8  # fewer say nothing about a leak
_MOST_RUNS: Final = 400
_LEAK_BYTES: Final = 2 * 1_024 * 1_024  # over three quarters of the runs; less is noise
_STEADY: Final = 0.2  # of that in each quarter: a buffer that grows once is no leak
_ANSWER_BYTES: Final = 65_536
#: A graph that gives back what it is given, [N, 1] FP32: what a runtime takes before any package.
_IDENTITY: Final = (
    b'\x08\t:A\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x14\n\x01x\x12\x0f\n\r\x08\x01\x12\t\n\x03'
    b"\x12\x01N\n\x02\x08\x01b\x14\n\x01y\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01N\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def main() -> None:
    """Try packages, one JSON line in and one out, until the input ends."""
    with suppress(PermissionError):
        os.nice(_NICE)
    for line in sys.stdin:
        asked = json.loads(line)
        with suppress(Problem):  # the fork says it better
            resolve("engine", asked["engine"])
        sys.stdout.write(json.dumps(_in_a_fork(asked)) + "\n")
        sys.stdout.flush()


def _in_a_fork(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Try one package in a copy of this process and say how that ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "wb") as answer:
            _alone(asked, answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read(_ANSWER_BYTES)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return {"late": True} if number == signal.SIGALRM else {"signal": number}
    return json.loads(said) if said else {"exit": os.waitstatus_to_exitcode(status)}


def _alone(asked: Mapping[str, Any], answer: BinaryIO) -> None:
    """Load a package within limits of time and memory, and write down what came of it."""
    os.dup2(2, 1)  # what a runtime prints is no answer
    signal.setitimer(signal.ITIMER_REAL, asked["seconds"])  # ends native code as well
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (asked["bytes"], asked["bytes"]))
    started = time.perf_counter()
    told: dict[str, Any] = {}
    try:
        limits = Limits(**asked["limits"])
        runtime = _first_use(asked["engine"], asked["settings"]) if asked["graph"] else None
        before = resident_bytes()
        blobs = Path(asked["blobs"])
        probe = Probe(blobs.parent, limits.cores or share())  # what it finds is for the server
        model = load_model(asked["package"], Blobs(blobs).read, limits, probe)
        told["bytes"] = max(resident_bytes() - before, 0)
        told["leaks"] = leaked_bytes(model, asked["leak_s"])
        told["seconds"] = time.perf_counter() - started
        del runtime
    except Problem as problem:
        told = {"problem": problem.to_json()}
    except Exception as error:  # noqa: BLE001  # such as no memory left
        told = {"error": f"{type(error).__name__}: {error}"[:500]}
    answer.write(json.dumps(told).encode())


def _first_use(name: str, settings: JsonObject) -> object:
    """Let a runtime take what it takes once, so that it is not put down to the package."""
    with suppress(Exception):  # what is wrong with it is found with the package itself
        engine: Engine = resolve("engine", name)(_IDENTITY, settings)
        engine.run({"x": np.zeros((1, 1), dtype=np.float32)})
        return engine
    return None


def leaked_bytes(model: LoadedModel, seconds: float) -> int:
    """Return how many bytes a batch leaves behind; 0 when memory does not grow steadily.

    Args:
        model: Loaded and warm.
        seconds: How long to try; too few runs in that time find nothing.
    """
    rows = model.batch_rows
    own_s = model.batch_seconds if model.talks is None else model.pace.seconds(_MOST_RUNS)
    runs = min(int(seconds / max(own_s, 1e-6)), _MOST_RUNS)
    if runs < _FEWEST_RUNS:
        return 0
    tensors = short(model, rows)
    sizes = []
    until = time.perf_counter() + _LONGER * seconds
    for _ in range(_QUARTERS):
        for _ in range(runs // _QUARTERS):
            if time.perf_counter() > until:
                return 0  # it has become slow; whoever serves it will see that
            model.run(tensors, rows)
        sizes.append(resident_bytes())
    grown = sizes[-1] - sizes[0]
    steps = [later - earlier for earlier, later in zip(sizes, sizes[1:], strict=False)]
    if grown < _LEAK_BYTES or min(steps) < _STEADY * grown:
        return 0
    return grown // (runs // _QUARTERS * (_QUARTERS - 1))


def resident_bytes() -> int:
    """Return the memory of this process that is in use, in bytes; 0 where it cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
