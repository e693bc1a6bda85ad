"""Genba's curation of plain texts against datatrove's, on one core, with the same rules."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: One core each, so that CPU seconds are those of a core.
ALONE = {
    "PYTHONPATH": str(HERE.parents[1]),
    "POLARS_MAX_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def once(python: str, script: Path, texts: Path) -> dict[str, Any]:
    """Run one way in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, script, texts, folder],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **ALONE},
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**found, **json.loads((Path(folder) / "ids.json").read_text(encoding="utf-8"))}


def compared(ours: dict[str, Any], theirs: dict[str, Any], texts: Path) -> dict[str, Any]:
    """Return speeds and where the two differ, with our reasons for what only they keep."""
    size = sum(len(json.loads(row)["text"].encode()) for row in texts.open(encoding="utf-8")) / 1e6
    mine, other = set(ours["kept"]), set(theirs["kept"])
    reasons: dict[str, int] = {}
    for id in other - mine:
        why = ours["rejected"][id].split(":")[0]
        reasons[why] = reasons.get(why, 0) + 1
    return {
        "megabytes": size,
        "mb_per_cpu_s": {"genba": size / ours["cpu_s"], "datatrove": size / theirs["cpu_s"]},
        "times_faster": theirs["cpu_s"] / ours["cpu_s"],
        "memory_mib": {"genba": ours["memory_mib"], "datatrove": theirs["memory_mib"]},
        "kept": {"genba": len(mine), "datatrove": len(other), "both": len(mine & other)},
        "only_datatrove_keeps": dict(sorted(reasons.items(), key=lambda pair: -pair[1])),
        "only_genba_keeps": {
            "left out by its filters": len(mine - set(theirs["filtered"])),
            "left out as near-duplicates": len((mine - other) & set(theirs["filtered"])),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, help="JSON Lines with id and text; see corpus.py")
    parser.add_argument("--datatrove", required=True, help="python of an environment that has it")
    given = parser.parse_args()
    ours = once(sys.executable, HERE / "ours.py", given.texts)
    theirs = once(given.datatrove, HERE / "peers" / "datatrove_run.py", given.texts)
    report = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": platform.processor() or platform.machine(),
        "load": os.getloadavg()[0],
        **compared(ours, theirs, given.texts),
    }
    (HERE / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
