"""The edge runtime: from import to the first prediction, its memory, and what the envelope costs.

`python -m benchmarks.codesign.edge RELEASE KEY --home HOME`: a folder that `genba export edge`
wrote, the key that signed it, and the home it is from. A fresh process opens the release as
`genba-edge` does (every byte verified, self-test repeated) and answers one recorded sample; wall
seconds are counted from before its first import. The envelope's cost is the median of the
differences of neighbouring calls, with it and without it, on consecutive readings of one machine
of the test set.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codesign.subjects import HOME, ROOT
from benchmarks.machine import stamp
from genba.core.linefile import load_line
from genba.core.protocols import JsonObject
from genba.core.resolve import resolve
from genba.core.task import Samples
from genba.data.view import DatasetView
from genba.edge.clocks import HandClock
from genba.edge.memory import Memory
from genba.edge.release import open_release
from genba.edge.safety import Envelope, Sample, read_plan
from genba.edge.trust import Trust, add_key
from genba.stages.samples import in_chunks, part
from genba.store.home import Store

STARTS = 9
CALLS = 3000
_KIB_PER_MIB = 1024


def starts(release: Path, key: Path) -> dict[str, Any]:
    """Start again and again; the first start also measures the deadline, as on a new device."""
    with tempfile.TemporaryDirectory() as state:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        trusting = ["-m", "genba.edge.cli", "trust", str(key), "--state", state]
        subprocess.run(
            [sys.executable, *trusting], env=environment, check=True, capture_output=True
        )
        found, commands = [], []
        for _ in range(STARTS + 1):
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.codesign.first", str(release), state],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            commands.append(time.perf_counter() - begun)
            found.append(json.loads(done.stdout))
    rest = found[1:]
    numbers = [name for name, value in rest[0].items() if isinstance(value, float)]
    return {
        "engine": rest[0]["engine"],
        "heavy": rest[0]["heavy"],
        "first_on_a_new_device_s": found[0]["whole_s"],
        "median": {name: statistics.median(run[name] for run in rest) for name in numbers},
        "most": {name: max(run[name] for run in rest) for name in numbers},
        "command_s": statistics.median(commands[1:]),
    }


def bare(release: Path) -> float:
    """Return the peak of a process with numpy alone, MiB: what is there without a package."""
    program = (
        "import numpy\nlines = open('/proc/self/status').read().splitlines()\n"
        "print(next(l for l in lines if l.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=release
    )
    return int(done.stdout) / _KIB_PER_MIB


def readings(home: Path, name: str, dataset: str, settings: JsonObject) -> Samples:
    """Return consecutive readings of one machine of the line's test set."""
    line = load_line(ROOT / "lines" / f"{name}.toml", ())
    task = resolve("task", line.task)()
    store = Store.open(home)
    try:
        view = DatasetView.open(store, dataset, line)
        whole = next(iter(in_chunks(task, view, "test", settings)))
        return part(whole, np.flatnonzero(whole.entity == whole.entity[0])[:CALLS])
    finally:
        store.close()


def envelope(release: Path, key: Path, home: Path) -> dict[str, Any] | None:
    """Return the microseconds that the envelope adds to a prediction; None without a plan."""
    with tempfile.TemporaryDirectory() as state:
        here = Path(state)
        add_key(here, key.read_bytes())
        now = time.time_ns() // 1_000_000
        opened = open_release(release, Trust.at(here), Memory.at(here), now)
        if opened.safety is None:
            return None
        ready, manifest = opened.tested(), opened.package.manifest
    known = readings(home, manifest.line, manifest.dataset, manifest.settings)
    clock = HandClock(int(known.time[0]))
    guarded = Envelope(read_plan(opened.safety), ready, opened.interface, clock)
    owner = manifest.entities[int(known.entity[0])]
    added, plain, actions = [], [], Counter[str]()
    for at, stamped in enumerate(known.time.tolist()):
        clock.turn(max(0, int(stamped) - clock.now_ms()))
        tensors = {name: tensor[at : at + 1] for name, tensor in known.tensors.items()}
        sample = Sample(tensors=tensors, time_ms=int(stamped), entity=owner)
        first = time.perf_counter_ns()
        ready.predict(tensors)
        second = time.perf_counter_ns()
        answer = guarded.answer(sample)
        third = time.perf_counter_ns()
        plain.append(second - first)
        added.append((third - second) - (second - first))
        actions[answer.action] += 1
    return {
        "readings": len(added),
        "predict_us_median": statistics.median(plain) / 1e3,
        "envelope_us_median": statistics.median(added) / 1e3,
        "envelope_us_p99": float(np.quantile(added, 0.99)) / 1e3,
        "actions": dict(actions),
    }


def measure(release: Path, key: Path, home: Path) -> dict[str, Any]:
    """Return the report of one release."""
    found = {**stamp(), "release": release.name, "start": starts(release, key)}
    found["numpy_alone_mib"] = bare(release)
    found["envelope"] = envelope(release, key, home)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("key", type=Path)
    parser.add_argument("--home", type=Path, default=HOME)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.release, asked.key, asked.home), indent=1))


if __name__ == "__main__":
    main()
