"""Every line from raw data to its deployed model, cold and reused."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import stamp
from genba.core.codec import encode
from genba.core.linefile import load_line
from genba.data.sources import source_of
from genba.runs.progress import ConsoleProgress
from genba.targets.cost import bill

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REPEATS = 5
SHOWN = ("r2", "f1", "false_alarms_per_day", "false_alarm_rate")


def spent(line: Path, home: str) -> dict[str, Any]:
    """Run a line in a process of its own; return what it took and what it answered."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GENBA_H")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "genba", "run", line, "--home", home, "--json", "--watch", "no"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):  # 1: a gate said no, which is an answer as well
        raise SystemExit(f"{line.name} ended with {done.returncode}: {done.stdout}{done.stderr}")
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": user + system, "answer": json.loads(done.stdout)}


def measure(path: Path) -> dict[str, Any]:
    """Run one line cold and again."""
    source_of(load_line(path, ()), ConsoleProgress()).facts()  # the download is not the line's
    with tempfile.TemporaryDirectory() as home:
        cold = spent(path, home)
        again = [spent(path, home) for _ in range(REPEATS)]
    answer = cold["answer"]
    anew = {s["name"] for run in again for s in run["answer"]["stages"] if not s["reused"]}
    if anew:
        raise SystemExit(
            f"{', '.join(sorted(anew))} ran anew: was Genba's source edited meanwhile?"
        )
    results = answer["results"]
    measures = results.get("evaluate", {}).get("measures", {})
    return {
        "outcome": "deployed" if answer["deployed"] else answer["outcome"],
        "rows": results["prepare"]["rows"],
        "bill": encode(bill(cold["seconds"], cold["cpu_seconds"])),
        "stages": {s["name"]: s["seconds"] for s in answer["stages"]},
        "again_seconds": statistics.median(run["seconds"] for run in again),
        "again_cpu_seconds": statistics.median(run["cpu_seconds"] for run in again),
        "measures": {name: measures[name] for name in SHOWN if name in measures},
        "engine": (results.get("optimize", {}).get("engine") or {}).get("name", ""),
    }


def main() -> None:
    """Measure every line and write the report."""
    report: dict[str, Any] = {"repeats": REPEATS, "lines": {}}
    for path in sorted((ROOT / "lines").glob("*.toml")):
        found = report["lines"][path.stem] = measure(path)
        print(
            f"{path.stem:12} {found['outcome']} after {found['bill']['seconds']:.1f} s,"
            f" again in {found['again_seconds']:.2f} s",
            flush=True,
        )
    (HERE / "report.json").write_text(
        json.dumps({**stamp(), **report}, indent=2) + "\n", encoding="utf-8"
    )
    slow = [n for n, found in report["lines"].items() if found["again_seconds"] >= 1.0]
    if slow:
        raise SystemExit(f"a reused run takes a second or more: {', '.join(slow)}")


if __name__ == "__main__":
    main()
