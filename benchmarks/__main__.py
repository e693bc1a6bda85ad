"""Run every benchmark, or those that are named, and write docs/LEADERBOARD.md.

`python -m benchmarks [NAME ...]`
"""

import subprocess
import sys
from pathlib import Path

from benchmarks import leaderboard

HERE = Path(__file__).parent
ROOT = HERE.parent


def main() -> int:
    """Run them one after the other, so that none disturbs another; return 1 when one failed."""
    found = [path.parent.name for path in sorted(HERE.glob("*/run.py"))]
    names = sys.argv[1:] or found
    unknown = [name for name in names if name not in found]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        print(f"\n== {name} ==", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}.run"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    leaderboard.write()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
