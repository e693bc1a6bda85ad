"""Where the traceback of an unexpected error goes: a file to send along, not the terminal."""

import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from genba import __version__
from genba.core.ids import new_id
from genba.core.io import make_dirs_durable, write_durable
from genba.core.problem import Problem


def keep_traceback(trace: str, argv: Sequence[str]) -> str:
    """Write a traceback with the facts a report needs and return where it is.

    It goes under the home, or under the system's temporary folder when the home cannot be
    written, as when the disk is full.
    """
    text = "\n".join(
        [
            f"genba {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"arguments: {' '.join(argv)}",
            "",
            trace,
        ]
    )
    name = f"{new_id('crash')}.txt"
    home = Path(os.environ.get("GENBA_HOME") or ".genba")
    for folder in (_asked_home(argv) or home, Path(tempfile.gettempdir())):
        try:
            make_dirs_durable(folder / "crashes")
            path = folder / "crashes" / name
            write_durable(path, text.encode())
        except (OSError, Problem):
            continue
        return str(path)
    sys.stderr.write(text)  # nowhere to write: losing the evidence would be worse
    return "printed above"


def _asked_home(argv: Sequence[str]) -> Path | None:
    for number, word in enumerate(argv):
        if word.startswith("--home="):
            return Path(word.partition("=")[2])
        if word == "--home" and number + 1 < len(argv):
            return Path(argv[number + 1])
    return None
