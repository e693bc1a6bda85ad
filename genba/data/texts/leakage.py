"""Does anything leak between the splits of a version of texts?"""

import itertools
from typing import Any, Final

import numpy as np
import polars as pl

from genba.core.problem import Problem
from genba.data.texts import alike, pieces
from genba.data.texts.reading import keys_of
from genba.data.view import DatasetView

_USED: Final = ("train", "calibrate", "test")
_PLACES: Final = {name: place for place, name in enumerate(_USED)}
_COLUMNS: Final = ("messages", "answer", "rejected", "split", "entity", "name", "digest", "row")


def check_leakage(view: DatasetView) -> tuple[str, ...]:
    """Return, in sentences, every way in which texts of one split are known to another.

    Looked for: the same text twice; the same question, a near-duplicate of one, or of an answer,
    on two sides; an answer of one side within a text of another; an entity on two sides where they
    were split by entity.
    """
    sheet: Any = view.sheet()
    segments = view.version.segments
    tables = (pieces.read(view.store.blobs, segment, list(_COLUMNS)) for segment in segments)
    rows = pl.concat([pl.DataFrame(table) for table in tables])
    rows = rows.sort("row")  # the order in which they were grouped
    used = rows.filter(pl.col("split").is_in(_USED))
    leaks = []
    if used["digest"].n_unique() < used.height:  # one of them may have been laid aside
        leaks.append("A text is in it twice.")
    if sheet["split"]["rule"]["by"] == "entity":
        leaks += _entity_leaks(used)
    pairs = alike.near_pairs(keys_of(rows), crowded=bool(sheet["alike"]["too_alike"]))
    split = np.array([_PLACES.get(name, -1) for name in rows["split"].to_list()])
    one, other = split[pairs[:, 0]], split[pairs[:, 1]]
    apart = pairs[(one != other) & (one >= 0) & (other >= 0)]
    if len(apart):
        one_row, other_row = (rows.row(int(place), named=True) for place in apart[0])
        leaks.append(
            f"{len(apart):,} near-duplicates are on two sides: {one_row['name']} is in "
            f"{one_row['split']}, {other_row['name']} in {other_row['split']}."
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


def _entity_leaks(rows: pl.DataFrame) -> list[str]:
    owners = {name: set(rows.filter(pl.col("split") == name)["entity"]) for name in _USED}
    return [
        f"The entity {min(both)} is in {one} and in {other}."
        for one, other in itertools.combinations(_USED, 2)
        if (both := owners[one] & owners[other])
    ]
