"""What people said, applied to rows that were served: the task says how, entity by entity."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.core.task import Lesson, Task
from genba.data.recovered import PREDICTION
from genba.data.roles import ONLY_ENTITY, Roles


def taught(
    task: Task, frame: pl.DataFrame, names: Sequence[str], roles: Roles, lessons: Iterable[Lesson]
) -> pl.DataFrame:
    """Return the rows with labels and readings as `Task.teach` leaves them.

    Args:
        task: Of the line.
        frame: Every column of a version without `split`, and the prediction each row is; sorted
            by entity and time.
        names: The entities; a task is given the place of a row's entity among them.
        roles: What the columns mean.
        lessons: About anything; those about other rows change nothing.
    """
    said = _by_entity(frame, roles, lessons)
    if not said or not frame.height:
        return frame
    columns = _columns(frame, names, roles)
    changeable = ("label", *roles.numbers)
    values = {name: np.array(columns[name]) for name in changeable}
    owners = frame["entity"].to_numpy()
    for entity, heard in said.items():
        at = np.flatnonzero(owners == entity)
        if not len(at):
            continue
        kept = task.teach({name: column[at] for name, column in columns.items()}, heard)
        for name in changeable:
            values[name][at] = np.asarray(kept[name], dtype=np.float64)
    return frame.with_columns(pl.Series(name, column) for name, column in values.items())


def _columns(
    frame: pl.DataFrame, names: Sequence[str], roles: Roles
) -> Mapping[str, npt.NDArray[Any]]:
    """Return rows in the types a view gives them in."""
    places = {name: place for place, name in enumerate(names)}
    entity = frame["entity"].replace_strict(places, return_dtype=pl.Int32)
    kept = ("time", "row", "label", *roles.numbers, *roles.words)
    return {
        "entity": entity.to_numpy(),
        "prediction": np.array(frame[PREDICTION].to_list(), dtype=object),
        **{name: frame[name].to_numpy() for name in kept},
    }


def _by_entity(
    frame: pl.DataFrame, roles: Roles, lessons: Iterable[Lesson]
) -> dict[str, list[Lesson]]:
    """Return lessons by entity, those about a prediction that is no row aimed at its moment.

    Of several predictions about one moment one became the row, perhaps not the one people judged.
    """
    rows = set(frame[PREDICTION].drop_nulls())
    found: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        entity = lesson.entity if roles.entity else ONLY_ENTITY
        if entity is None:
            continue
        aimed = lesson
        if lesson.prediction not in rows and lesson.time_ms is not None:
            aimed = replace(lesson, prediction=None)
        found.setdefault(entity, []).append(aimed)
    return found
