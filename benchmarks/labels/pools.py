"""Rows of which some are labelled, as a task reads them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genba.core.line import Line
from genba.core.protocols import Columns, JsonObject, View

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

SHARES = {"train": 0.75, "calibrate": 0.25}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Rows of a dataset in memory, with what each of them is."""

    columns: Mapping[str, Array]
    truth: npt.NDArray[np.float64]

    def take(self, at: Indices) -> "Rows":
        """Return some of them."""
        taken = {name: column[at] for name, column in self.columns.items()}
        return Rows(columns=taken, truth=self.truth[at])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.truth)


def read(view: View, splits: tuple[str, ...], most: int, seed: int) -> Rows:
    """Return rows of a view drawn at random, in their order.

    Args:
        view: The dataset.
        splits: Of which splits.
        most: How many.
        seed: Another seed, other rows.
    """
    sizes = {split: view.count(split) for split in splits}
    total = sum(sizes.values())
    drawn = np.random.default_rng(seed).permutation(total)[:most]
    parts: list[Columns] = []
    start = 0
    for split in splits:
        for chunk in view.chunks(split):
            count = len(chunk["row"])
            at = np.sort(drawn[(drawn >= start) & (drawn < start + count)]) - start
            start += count
            if len(at):
                parts.append({name: np.asarray(column)[at] for name, column in chunk.items()})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Rows(columns=columns, truth=np.asarray(columns["label"], dtype=np.float64))


class PoolView:
    """A view of a pool of which some rows are labelled, and of a labelled test set.

    Args:
        whole: The dataset the rows are from.
        pool: What may be labelled.
        test: What the model is measured on.
        labelled: Whether each row of the pool is.
        seed: Divides the pool into train and calibrate, the same for every labelling.
    """

    def __init__(
        self, whole: View, pool: Rows, test: Rows, labelled: npt.NDArray[np.bool_], seed: int
    ) -> None:
        chance = np.random.default_rng(seed).random(len(pool))
        split = np.where(chance < SHARES["train"], "train", "calibrate")
        label = np.where(labelled, pool.truth, np.nan)
        known = Rows(columns={**pool.columns, "label": label}, truth=pool.truth)
        self._parts = {
            **{name: known.take(np.flatnonzero(split == name)) for name in SHARES},
            "test": test,
        }
        self.line: Line = whole.line
        self.digest = f"pool {seed}"
        self.entities = whole.entities
        self.sensors = whole.sensors
        self.has_clock = whole.has_clock
        self.modality = whole.modality
        self.classes = whole.classes

    def chunks(self, split: str, *, rows: int = 65_536) -> Iterator[Columns]:
        """Yield the rows of a split, entity by entity."""
        part = self._parts[split]
        owners = part.columns["entity"]
        for owner in np.unique(owners):
            mine = np.flatnonzero(owners == owner)
            for start in range(0, len(mine), rows):
                at = mine[start : start + rows]
                yield {name: column[at] for name, column in part.columns.items()}

    def count(self, split: str) -> int:
        """Return the number of rows in a split."""
        return len(self._parts[split])

    def ends(self) -> Array:
        """Return that no life has ended."""
        return np.full(len(self.entities), np.nan)

    def sheet(self) -> JsonObject:
        """Return the little that is known."""
        return {"rows": {split: len(part) for split, part in self._parts.items()}}
