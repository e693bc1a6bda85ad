"""What the search's choice costs beside eager torch and beside ONNX Runtime as it comes.

`python -m benchmarks.codesign.result`. All decide as the reference does. Each contender has a
process of its own; rounds of a quarter of a second alternate, processor time counts, and the ratio
is the median of the ratios of neighbouring rounds: on a shared machine the time of the very same
work doubles and halves within a minute. Torch is asked on one thread, where it takes the least
processor time, and as it comes; ONNX Runtime in a session without options.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.codesign.subjects import HOME, NAMES, ROOT
from benchmarks.codesign.table import GOAL, Entry, Grid
from benchmarks.machine import stamp
from genba.targets.probe import load_average

ROUNDS = 11


class Contender:
    """A process that times rounds."""

    def __init__(self, process: "subprocess.Popen[str]", asked: dict[str, Any]) -> None:
        self._process = process
        self.agreement = float(self._say(json.dumps(asked)))

    def round(self) -> float:
        """Return processor milliseconds per row of one round."""
        return 1e3 * float(self._say("go"))

    def _say(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def contender(asked: dict[str, Any]) -> Iterator[Contender]:
    """Start a contender and end it."""
    threads = {"OMP_NUM_THREADS": str(asked["threads"])} if asked["threads"] else {}
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.codesign.contender"],
        cwd=ROOT,
        env={**kept, **threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Contender(process, asked)
        assert process.stdin is not None
        process.stdin.close()


def best_of(grid: Grid, batch: int | None) -> Entry:
    """Return the best feasible point, of one batch or of all."""
    fit = [e for e in grid.entries if grid.feasible(e) and batch in (None, e.point.batch)]
    return min(fit, key=lambda e: e.true(GOAL))


def race(name: str, ours: Entry, home: Path) -> dict[str, Any]:
    """Let the contenders take turns on one model, in batches as our choice takes them."""
    batch = ours.point.batch
    asked: dict[str, dict[str, Any]] = {
        "ours": {"who": "ours", "point": asdict(ours.point), "threads": 1},
        "torch, one thread": {"who": "torch", "threads": 1},
        "torch as it comes": {"who": "torch", "threads": None},
        "onnxruntime as it comes": {"who": "onnxruntime defaults", "threads": None},
    }
    whole = {"model": name, "home": str(home), "batch": batch}
    loads = [load_average()]
    with ExitStack() as stack:
        there = {
            who: stack.enter_context(contender({**whole, **what})) for who, what in asked.items()
        }
        spent: dict[str, list[float]] = {who: [] for who in there}
        for _ in range(ROUNDS):
            for who, one in there.items():
                spent[who].append(one.round())
        agreement = {who: one.agreement for who, one in there.items()}
    loads.append(load_average())
    return {
        "choice": ours.point.label,
        "batch": batch,
        "cpu_ms_median": {who: statistics.median(found) for who, found in spent.items()},
        "times_less": {
            who: statistics.median(a / b for a, b in zip(found, spent["ours"], strict=True))
            for who, found in spent.items()
            if who != "ours"
        },
        "agreement": agreement,
        "load": loads,
    }


def compare(name: str, home: Path) -> list[dict[str, Any]]:
    """Race with one row at a time, and in the batches that the best of all points takes."""
    grid = Grid(name)
    single, best = best_of(grid, 1), best_of(grid, None)
    chosen = [single] if best.point.batch == 1 else [single, best]
    return [race(name, entry, home) for entry in chosen]


def main() -> None:
    """Race on all models and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOME)
    parser.add_argument("names", nargs="*", default=NAMES)
    asked = parser.parse_args()
    found = {name: compare(name, asked.home) for name in asked.names}
    print(json.dumps({**stamp(), "models": found}, indent=1))


if __name__ == "__main__":
    main()
