"""Searches with 15 measurements over a measured grid: how much worse is their choice than the best?

`python -m benchmarks.codesign.searches`. Every search sees the same points and is told what one
pass of the grid measured; its choice is judged by the mean of all passes. Ours is asked twice: on a
target where nothing was measured before, and on one where the two other models were. Of random
search the median and the worst of many seeds count; grid search takes the points in the order in
which they are offered, or evenly over them.
"""

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codesign.subjects import HOME, NAMES, subject
from benchmarks.codesign.table import GOAL, Grid, TableBench
from genba.codesign.expected import Expectations
from genba.codesign.modelled import Seen, usage_of
from genba.codesign.modelled_points import read
from genba.codesign.operations import Operations, in_integers, operations
from genba.codesign.search import Budget, Search, Want
from genba.codesign.values import Point, Trial
from genba.targets.profile import Profile, read_profile

MEASUREMENTS = 15
SEEDS = 10


def works(name: str, home: Path) -> dict[str, Operations]:
    """Return the operators of a model by form."""
    plain = operations(subject(name, home).graph)
    return {"": plain, "int8": in_integers(plain)}


def profile_of(home: Path) -> Profile | None:
    """Return the profile of this machine, None where it was never probed."""
    path = home / "targets" / "this-machine.toml"
    return read_profile(path, home) if path.is_file() else None


def seen(grid: Grid, known: dict[str, Operations], number: int | None = None) -> list[Seen]:
    """Return the points of a grid as the model of cost takes them: of one pass, or of all."""
    found = []
    for entry in grid.entries:
        point = entry.point
        usage = usage_of(point.engine, point.settings, point.form, point.batch)
        for at, measures in enumerate(entry.passes):
            if number in (None, at):
                cpu, wall = measures["cpu_ms"].value, measures["latency_ms_p50"].value
                found.append(
                    Seen(
                        model=grid.name,
                        work=known[point.form],
                        usage=usage,
                        cpu_ms=cpu,
                        latency_ms_p50=wall,
                        load=measures["load"].value,
                    )
                )
    return found


def ours(grid: Grid, seed: int, hopes: Expectations | None) -> tuple[Trial | None, int]:
    """Search as `genba codesign` does, over the table; return the choice and the measurements."""
    trials = [Trial(point=entry.point) for entry in grid.entries]
    fill: Callable[[Sequence[Trial]], object] = hopes.fill if hopes else lambda _: None
    fill(trials)
    bench = TableBench(grid, seed)
    want = Want(prefer="cpu", bounds=grid.bounds)
    search = Search(trials, bench, want, Budget(measurements=MEASUREMENTS), expect=fill)
    search.explore()
    best = search.best()
    return best, len(bench.asked)


def picked(grid: Grid, order: Sequence[int], seed: int) -> Point | None:
    """Measure points in an order until the measurements are spent; return the best."""
    bench, found = TableBench(grid, seed), []
    for at in order[:MEASUREMENTS]:
        trial = Trial(point=grid.entries[at].point)
        bench.measure(trial, 1.0)
        late = trial.measures and trial.measures["latency_ms_p99"].value > grid.limit
        if not trial.refused and not late:
            found.append(trial)
    best = min(found, key=lambda t: t.measures[GOAL].value, default=None)
    return best.point if best else None


def of_seeds(regrets: Sequence[float]) -> dict[str, float | int]:
    """Return what matters of many searches; a choice that is not feasible is the worst."""
    return {
        "median": statistics.median(regrets),
        "p90": float(np.quantile(regrets, 0.9, method="higher")),
        "worst": max(regrets),
        "within_5_percent": float(np.mean([regret <= 0.05 for regret in regrets])),
        "searches": len(regrets),
    }


def olive(grid: Grid, python: Path) -> list[Point | None]:
    """Return what Olive's TPE sampler chooses over the same table, seed by seed."""
    rows = [
        {
            "runtime": "/".join(entry.point.family[1:]),
            "spread": f"{entry.point.threads}x{entry.point.streams}",
            "batch": entry.point.batch,
            GOAL: [found[GOAL].value for found in entry.passes],
            "feasible": [
                entry.parity is not None
                and entry.parity.passed
                and found["latency_ms_p99"].value <= grid.limit
                for found in entry.passes
            ],
        }
        for entry in grid.entries
    ]
    table = {"points": rows, "measurements": MEASUREMENTS, "seeds": SEEDS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.json"
        path.write_text(json.dumps(table))
        done = subprocess.run(
            [python, "-W", "ignore", Path(__file__).parent / "peers" / "olive_search.py", path],
            env={**os.environ, "OLIVE_DISABLE_TELEMETRY": "1", "HOME": folder, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
    places = json.loads(done.stdout.splitlines()[-1])
    return [None if at is None else grid.entries[at].point for at in places]


def compare(name: str, home: Path, python: Path | None = None) -> dict[str, Any]:
    """Return the regrets of every search on one model; Olive's where its interpreter is given."""
    grid = Grid(name)
    graph = subject(name, home).graph
    profile = profile_of(home)
    elsewhere = [other for other in NAMES if other != name]
    before = [p for other in elsewhere for p in seen(Grid(other), works(other, home))]
    before += read(home, "zoo")
    hopes: dict[str, Expectations | None] = {"genba, nothing known of the target": None}
    if profile is not None:
        known = {"target probed": [], "other models measured on the target": before}
        hopes |= {
            f"genba, {label}": Expectations(None, profile, {"": graph}, points)
            for label, points in known.items()
        }
    regrets: dict[str, list[float]] = {}
    most = 0  # measurements of a search: one more where what was verified missed a limit
    for label, hope in hopes.items():
        chosen = [ours(grid, seed, hope) for seed in range(SEEDS)]
        regrets[label] = [grid.regret(trial.point if trial else None) for trial, _ in chosen]
        most = max(most, *(asked for _, asked in chosen))
    count = len(grid.entries)
    shuffled = [np.random.default_rng(seed).permutation(count).tolist() for seed in range(SEEDS)]
    regrets["random"] = [grid.regret(picked(grid, o, s)) for s, o in enumerate(shuffled)]
    even = np.unique(np.linspace(0, count - 1, MEASUREMENTS).astype(int))
    for label, order in (("grid, in order", range(count)), ("grid, evenly spread", even)):
        regrets[label] = [grid.regret(picked(grid, list(order), seed)) for seed in range(SEEDS)]
    if python is not None:
        regrets["Olive's TPE"] = [grid.regret(point) for point in olive(grid, python)]
    best = grid.best
    return {
        "points": count,
        "most_measurements": most,
        "feasible": sum(grid.feasible(entry) for entry in grid.entries),
        "latency_ms_p99_limit": grid.limit,
        "best": {"label": best.point.label, GOAL: best.true(GOAL)},
        "load": grid.loads,
        "regret": {label: of_seeds(found) for label, found in regrets.items()},
    }


def main() -> None:
    """Print the regrets."""
    print(json.dumps({name: compare(name, HOME) for name in NAMES}, indent=1))


if __name__ == "__main__":
    main()
