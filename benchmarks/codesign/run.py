"""All parts one after the other; each can be run alone, and goes on where it was stopped.

`python -m benchmarks.codesign.run [PART ...] [--home HOME] [--olive PYTHON]`: parts are probe,
grid, zoo, searches, backtest, result and edge; all of them when none is named. Writes `report.json`
and the tables of `README.md`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.codesign import backtest, edge, grid, page, result, searches, zoo
from benchmarks.codesign.subjects import HOME, LINES, NAMES, ROOT
from benchmarks.machine import stamp

HERE = Path(__file__).parent
REPORT = HERE / "report.json"
MARK = "<!-- bench-codesign: written by python -m benchmarks.codesign.run -->"
PREPARED = ("probe", "grid", "zoo")
PARTS = (*PREPARED, "searches", "backtest", "result", "edge")


def genba(*words: str) -> None:
    """Run a command of Genba."""
    subprocess.run([sys.executable, "-m", "genba", *words], cwd=ROOT, check=True)


def prepare(part: str, home: Path) -> None:
    """Measure what the other parts stand on, where it is not there yet."""
    if part == "probe" and searches.profile_of(home) is None:
        genba("targets", "probe", "--home", str(home))
    if part == "grid":
        for name in NAMES:
            grid.measure(name, grid.PASSES, float("inf"), home)
    if part == "zoo":
        zoo.visit_all(home)


def releases(home: Path) -> dict[str, Any]:
    """Export each line and measure the release."""
    found = {}
    for name in LINES:
        folder = home / "releases" / name
        if not folder.is_dir():
            genba("export", "edge", name, "--to", str(folder), "--home", str(home))
        found[name] = edge.measure(folder, home / "edge-key.pub.pem", home)
    return found


def main() -> None:
    """Run the parts and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS)
    parser.add_argument("--home", type=Path, default=HOME)
    parser.add_argument("--olive", type=Path, help="an interpreter that has olive-ai")
    asked = parser.parse_args()
    home: Path = asked.home
    report: dict[str, Any] = json.loads(REPORT.read_text()) if REPORT.is_file() else {}
    measured: dict[str, Callable[[], Any]] = {
        "searches": lambda: {n: searches.compare(n, home, asked.olive) for n in NAMES},
        "backtest": lambda: backtest.report(home),
        "result": lambda: {n: result.compare(n, home) for n in NAMES},
        "edge": lambda: releases(home),
    }
    for part in asked.parts:
        print(f"-- {part}", flush=True)
        if part in PREPARED:
            prepare(part, home)
            continue
        report |= {part: measured[part](), **stamp()}
        REPORT.write_text(json.dumps(report, indent=1) + "\n")
    lines = list(page.page(report))
    text = (HERE / "README.md").read_text().partition(MARK)[0]
    (HERE / "README.md").write_text("\n".join([text.rstrip(), "", MARK, *lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
