"""The self-test of a release in a process of its own, which may crash: `python -m` of this."""

import json
import sys
import time
from pathlib import Path

from genba.core.problem import Problem
from genba.edge.memory import Memory
from genba.edge.release import open_release
from genba.edge.trust import Trust


def main(folder: str, state: str, root: str, time_ms: str = "0") -> int:
    """Run it; a Problem is printed as JSON, exit code 1.

    Args:
        folder: Of the release.
        state: Of the device.
        root: sha256 of the content that was verified.
        time_ms: The earliest that it can be now, ms since 1970 UTC.
    """
    now_ms = max(int(time_ms), time.time_ns() // 1_000_000)
    try:
        release = open_release(
            Path(folder), Trust.at(Path(state)), Memory.at(Path(state)), now_ms, pinned=root
        )
        release.tested().engine.close()
    except Problem as problem:
        sys.stdout.write(json.dumps(problem.to_json()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
