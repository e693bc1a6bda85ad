"""Opening a release as the commands of a device do."""

import argparse
import time
from pathlib import Path

from genba.edge.memory import Memory
from genba.edge.release import Release, open_release
from genba.edge.trust import Trust


def add_release(parser: argparse.ArgumentParser) -> None:
    """Add what says which release is meant."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `genba export edge` wrote")
    parser.add_argument("--line", help="refuse a release of any other line")


def opened(given: argparse.Namespace) -> Release:
    """Open the release that a command names.

    Raises:
        Problem: As `genba.edge.release.open_release`.
    """
    return open_release(
        given.folder,
        Trust.at(given.state),
        Memory.at(given.state),
        time.time_ns() // 1_000_000,
        line=given.line,
    )
