"""How fast the server is, beside the servers people use, the raw engine and a bare echo.

`python -m benchmarks.serve.run [--quick] [--rounds N] [--only NAME,...] [--skip NAME,...]`

Names are servers (ours, echo, torchserve, pytriton, mlserver, kserve, litserve, bentoml, ray) and
parts (raw, overload, swap, growth, store). An interrupted run goes on where it was.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import leaderboard
from benchmarks.machine import stamp
from benchmarks.serve import growth, models, overload, page
from benchmarks.serve.goals import goals
from benchmarks.serve.load import find_wrk
from benchmarks.serve.machine import cores
from benchmarks.serve.processes import foreign_cores
from benchmarks.serve.results import Results
from benchmarks.serve.rounds import Plan, Rounds, collect, say
from benchmarks.serve.servers import OURS, PEERS, RUNTIME, SERVERS
from benchmarks.serve.swap import swap
from genba import __version__

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
REPORT: Final = HERE / "report.json"
CELLS: Final = PEERS / "serve-cells.json"
PARTS: Final = ("raw", "overload", "swap", "growth", "store")
_STORE_S: Final = 420
_ROUNDS: Final = 3


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for and write the report, its page and the leaderboard."""
    given = _arguments(arguments)
    find_wrk()
    began, quiet = time.monotonic(), foreign_cores(1.0)
    chosen = [name for name in given.names if name not in given.skip]
    cells = given.cells
    results = Results(cells, frozenset(chosen) if given.only else None)
    plan = Plan(rounds=given.rounds or (1 if given.quick else _ROUNDS), quick=given.quick)
    with tempfile.TemporaryDirectory() as folder:
        rounds = Rounds(Path(folder), results, plan)
        _parts(results, chosen, Path(folder) / "models", quick=given.quick)
        rounds.run([SERVERS[name] for name in chosen if name in SERVERS])
        digests = rounds.digests
    report = {
        **stamp(),
        "seconds": time.monotonic() - began,
        "quick": given.quick,
        "foreign_cores_before": quiet,
        "cores": cores(),
        "genba": __version__,
        "runtime": RUNTIME,
        "models": digests,
        "deadline_ms": overload.DEADLINE_MS,
        "servers": {name: collect(server, results) for name, server in SERVERS.items()},
        **{part: _part(results, part) for part in PARTS},
    }
    report["goals"] = [goal.to_json() for goal in goals(report)]
    results.finish()
    given.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if given.report == REPORT:
        page.write(report)
        leaderboard.write()
    print("\n".join(page.goals_table(report)))
    return 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    every = (*SERVERS, *PARTS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks serve", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one pass, one second per load")
    parser.add_argument("--rounds", type=int, default=0, help=f"{_ROUNDS}, or 1 if quick")
    parser.add_argument("--only", default="", help="measure these anew, keep what else is known")
    parser.add_argument("--skip", default="", help="leave these out")
    parser.add_argument("--report", type=Path, default=REPORT, help="where to write the numbers")
    parser.add_argument(
        "--cells", type=Path, default=CELLS, help="where an interrupted run is kept"
    )
    given = parser.parse_args(arguments)
    given.skip = [name for name in given.skip.split(",") if name]
    given.names = [name for name in given.only.split(",") if name] or list(every)
    unknown = [name for name in (*given.names, *given.skip) if name not in every]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(every)}")
    return given


def _parts(results: Results, chosen: list[str], folder: Path, *, quick: bool) -> None:
    """Measure the parts that are ours alone."""
    one = 1 if quick else 2
    length = overload.QUICK if quick else overload.Length()
    every = {
        "raw|all": lambda: _raw(folder, 0.3 if quick else 1.5),
        "overload|cnn": lambda: overload.overload("cnn", length),
        "overload|tab": lambda: overload.overload("tab", length),
        "swap|tab": lambda: swap(every_s=1.0 if quick else 2.0, before_s=2.0 if quick else 3.0),
        "growth|memory": lambda: growth.small_memory(one),
        "growth|models": lambda: growth.by_models((1, 5) if quick else growth.LOADED),
        "growth|clients": lambda: growth.by_clients((1, 64) if quick else growth.CLIENTS),
        "store|all": lambda: _store(quick=quick),
    }
    for key, measure in every.items():
        if key.split("|")[0] in chosen:
            _measured(results, key, measure)


def _version() -> str:
    return f"{OURS.version()} {RUNTIME}"


def _measured(results: Results, key: str, measure: Callable[[], Any]) -> None:
    version = _version()
    if results.get(key, version) is not None:
        return
    say(key.replace("|", ", "))
    try:
        value = measure()
    except (RuntimeError, OSError, subprocess.SubprocessError) as problem:
        say(f"  {problem}")
        value = {"problem": str(problem)}
    results.put(key, version, value)


def _part(results: Results, name: str) -> dict[str, Any]:
    found = {parts[1]: value for parts, value in results.items(name, _version())}
    return found["all"] if list(found) == ["all"] else found


def _raw(folder: Path, seconds: float) -> Any:
    """Measure the raw engine in a process of its own."""
    return _said("raw", str(folder), f"{seconds:g}", *models.NAMES)


def _store(*, quick: bool) -> Any:
    """Measure how the store of predictions grows."""
    counts = ["20000"] if quick else ["100000", "1000000", "10000000"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.json"
        _run("store", "--predictions", *counts, "--json", str(path))
        return json.loads(path.read_text())


def _said(part: str, *arguments: str) -> Any:
    return json.loads(_run(part, *arguments).splitlines()[-1])


def _run(part: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.serve.{part}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=_STORE_S,
    )
    if done.returncode:
        raise RuntimeError(f"{part} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
