"""What was measured on a target, kept in the home: `targets/NAME.points.json`.

Kept are points, not fitted numbers: corrections are made of them anew wherever they are asked for,
and a point that turns out to be wrong can be left out. Operators of a graph are kept once.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from genba.codesign.modelled import Seen
from genba.codesign.modelled_terms import Usage
from genba.codesign.operations import Operations
from genba.core import io
from genba.core.codec import decode
from genba.core.digest import digest_json
from genba.core.problem import Problem
from genba.targets.profile import FOLDER

_FORMAT: Final = 1
MOST: Final = 1_000  # the newest; older ones say less about the machine of today


def path_of(home: Path, target: str) -> Path:
    """Return where the points of a target are kept."""
    return home / FOLDER / f"{target}.points.json"


def read(home: Path, target: str) -> list[Seen]:
    """Return what was measured on a target, the oldest first; [] where nothing was.

    A file that cannot be read is as good as none: its points only make estimates better.
    """
    try:
        data = json.loads(path_of(home, target).read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            return []
        graphs = {key: decode(Operations, graph) for key, graph in data["graphs"].items()}
        return [_seen(entry, graphs) for entry in data["points"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Problem):
        return []


def remember(home: Path, target: str, points: Sequence[Seen]) -> list[Seen]:
    """Add points to those of a target, and return all that are kept.

    Raises:
        Problem: G303 or G304 when the disk is full or may not be written to.
    """
    kept = [*read(home, target), *points][-MOST:]
    graphs: dict[str, Any] = {}
    entries = []
    for point in kept:
        work = asdict(point.work)
        key = digest_json(work)[:16]
        graphs[key] = work
        entry = asdict(point)
        entries.append({**entry, "work": key})
    path = path_of(home, target)
    io.make_dirs_durable(path.parent)
    data = {"format": _FORMAT, "target": target, "graphs": graphs, "points": entries}
    io.write_durable(path, (json.dumps(data) + "\n").encode())
    return kept


def _seen(entry: dict[str, Any], graphs: dict[str, Operations]) -> Seen:
    usage = decode(Usage, entry["usage"])
    return Seen(**{**entry, "usage": usage, "work": graphs[entry["work"]]})
