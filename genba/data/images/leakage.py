"""Does anything leak between the splits of a version of images?"""

import itertools
from typing import Any, Final

import numpy as np

from genba.core.problem import Problem
from genba.data.images import alike, pieces
from genba.data.view import DatasetView

_USED: Final = ("train", "calibrate", "test")


def check_leakage(view: DatasetView) -> tuple[str, ...]:
    """Return, in sentences, every way in which images of one split are known to another.

    Looked for: the same file or the same thumbnail on two sides, and, up to `alike.EXACT` images,
    near-duplicates on two sides; a file that is there twice; an entity on two sides where they
    were split by entity.
    """
    sheet: Any = view.sheet()
    rows = _rows(view)
    leaks = []
    digests = np.array([row["digest"] for row in rows])
    if len(set(digests.tolist())) < len(digests):
        leaks.append("A file is in it twice.")
    used = [row for row in rows if row["split"] in _USED]
    if sheet["split"]["rule"]["by"] == "entity":
        leaks += _entity_leaks(used)
    looks = np.frombuffer(b"".join(row["look"] for row in used), dtype=np.uint8)
    looks = looks.reshape(-1, alike.SIDE**2)
    limit = float(sheet["alike"]["limit"]) if len(used) <= alike.EXACT else 0.0
    pairs = alike.near_pairs(looks, limit)
    split = np.array([_USED.index(row["split"]) for row in used])
    apart = pairs[split[pairs[:, 0]] != split[pairs[:, 1]]] if len(pairs) else pairs
    if len(apart):
        one, other = (used[place] for place in apart[0])
        leaks.append(
            f"{len(apart):,} near-duplicates are on two sides: {one['name']} is in "
            f"{one['split']}, {other['name']} in {other['split']}."
        )
    return tuple(leaks)


def refuse_leakage(view: DatasetView) -> None:
    """Stop where something leaks.

    Raises:
        Problem: G214 with every leak that was found.
    """
    leaks = check_leakage(view)
    if leaks:
        raise Problem(
            "G214",
            "The splits leak: " + leaks[0],
            where=f"dataset {view.digest[:12]}",
            why=" ".join(leaks[1:]),
            tries=["genba run LINE", "genba explain G214"],
        )


def _rows(view: DatasetView) -> list[dict[str, Any]]:
    names = ["digest", "look", "split", "entity", "name"]
    found: list[dict[str, Any]] = []
    for segment in view.version.segments:
        found += pieces.read(view.store.blobs, segment, names).to_pylist()
    return sorted(found, key=lambda row: str(row["digest"]))


def _entity_leaks(rows: list[dict[str, Any]]) -> list[str]:
    owners: dict[str, set[str]] = {name: set() for name in _USED}
    for row in rows:
        owners[row["split"]].add(row["entity"])
    return [
        f"The entity {min(both)} is in {one} and in {other}."
        for one, other in itertools.combinations(_USED, 2)
        if (both := owners[one] & owners[other])
    ]
