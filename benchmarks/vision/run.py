"""Both benchmarks of images, one after the other: what an image costs, and what is found in it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("speed", "quality")


def main() -> int:
    """Run them in processes of their own; return 1 when one failed."""
    done = [
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.vision.{part}"], cwd=ROOT, check=False
        ).returncode
        for part in PARTS
    ]
    return int(any(done))


if __name__ == "__main__":
    raise SystemExit(main())
