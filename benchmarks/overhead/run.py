"""Ten trivial stages in Genba, Metaflow, Prefect and Dagster, each in its own environment."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import stamp

HERE = Path(__file__).parent
PEERS = HERE.parent / ".peers"
REPEATS = 5
STEPS = 10
# What resolved together on a fresh machine in November 2026.
REQUIREMENTS = {
    "metaflow": ["metaflow==2.19.39"],
    "prefect": ["prefect==3.7.2", "fastapi==0.129.2"],
    "dagster": ["dagster==1.13.29"],
}


def environment(name: str) -> Path:
    """Return the interpreter of a peer's environment, made if missing."""
    python = PEERS / name / "bin" / "python"
    done = PEERS / name / "installed"
    if not done.exists():
        print(f"installing {name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEERS / name], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]]
        subprocess.run(install, check=True)
        done.touch()
    return python


def once(name: str) -> dict[str, float]:
    """Run one tool once and return seconds: cold, again and of the whole command."""
    python = Path(sys.executable) if name == "genba" else environment(name)
    script = HERE / "ours.py" if name == "genba" else HERE / "peers" / f"{name}_flow.py"
    arguments = ["run"] if name == "metaflow" else []
    with tempfile.TemporaryDirectory() as folder:
        quiet = {
            "HOME": folder,
            "PYTHONPATH": str(HERE.parents[1]) if name == "genba" else "",
            "USERNAME": "bench",
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": folder,
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "METAFLOW_HOME": folder,
        }
        start = time.perf_counter()
        done = subprocess.run(
            [str(python), str(script), *arguments],
            cwd=folder,
            env={**os.environ, **quiet},
            capture_output=True,
            text=True,
            check=True,
        )
        whole = time.perf_counter() - start
    if name == "metaflow":
        return {"cold_s": whole, "again_s": whole, "command_s": whole}
    seconds: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**seconds, "command_s": whole}


def main() -> None:
    """Measure all tools in turn, print the ratios and write the report."""
    tools = ["genba", *REQUIREMENTS]
    for name in REQUIREMENTS:
        environment(name)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in tools}
    for _ in range(REPEATS):
        for name in tools:
            runs[name].append(once(name))
    medians = {
        name: {key: statistics.median(r[key] for r in found) for key in found[0]}
        for name, found in runs.items()
    }
    ours = medians["genba"]
    print(f"{'':10} {'cold, ms/step':>14} {'ratio':>7} {'again, ms/step':>15} {'ratio':>7}")
    for name, seconds in medians.items():
        cold, again = seconds["cold_s"], seconds["again_s"]
        print(
            f"{name:10} {cold / STEPS * 1000:14.2f} {cold / ours['cold_s']:7.1f}"
            f" {again / STEPS * 1000:15.2f} {again / ours['again_s']:7.1f}"
        )
    report = {
        **stamp(),
        "repeats": REPEATS,
        "versions": REQUIREMENTS,
        "median_seconds": medians,
    }
    (HERE / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
