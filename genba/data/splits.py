"""Which rows train, which calibrate and which test, so that nothing leaks between them.

By time: the oldest rows train, the newest test, and after each cut a purge gap is left out.
By entity: whole entities. By chance (data without a clock): the contents of a row decide, so that
equal rows always fall on the same side.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from genba.core.line import Split
from genba.core.problem import Problem

SPLITS: Final = ("train", "calibrate", "test", "purged")
TRAIN, CALIBRATE, TEST, PURGED = range(4)
BEGINNING: Final = -(2**63)

Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """From this time on (ms), rows belong to this split."""

    from_ms: int
    split: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRule:
    """How every row gets its split; plain data, kept in the dataset sheet."""

    by: Literal["time", "entity", "random"]
    test: float
    calibrate: float
    seed: int = 0
    purge_steps: int = 0
    purge_ms: int = 0
    bounds: tuple[Bound, ...] = ()
    entities: Mapping[str, str] = field(default_factory=dict)  # those whose split is fixed

    def assign(
        self,
        names: Sequence[str],
        entity: npt.NDArray[np.int32],
        time: npt.NDArray[np.int64],
        contents: npt.NDArray[np.uint64],
    ) -> Codes:
        """Return the split of each row as an index into `SPLITS`.

        Args:
            names: The entities.
            entity: Index into `names` of each row.
            time: Time of each row in ms.
            contents: `fingerprints` of each row; used only when split by chance.
        """
        if self.by == "random":
            split = self._by_chance(contents)
        elif self.by == "time":
            starts = np.array([bound.from_ms for bound in self.bounds], dtype=np.int64)
            codes = np.array([SPLITS.index(b.split) for b in self.bounds], dtype=np.int8)
            split = codes[np.searchsorted(starts, time, side="right") - 1]
        else:
            split = np.zeros(len(time), dtype=np.int8)
        if not self.entities:
            return split
        fixed = [SPLITS.index(self.entities[n]) if n in self.entities else -1 for n in names]
        chosen = np.array(fixed, dtype=np.int8)[entity]
        return np.where(chosen >= 0, chosen, split).astype(np.int8)

    def _by_chance(self, contents: npt.NDArray[np.uint64]) -> Codes:
        share = mix(contents ^ np.uint64(self.seed)).astype(np.float64) / 2.0**64
        split = np.full(len(share), TRAIN, dtype=np.int8)
        split[share < self.test + self.calibrate] = CALIBRATE
        split[share < self.test] = TEST
        return split


def check_fractions(split: Split) -> None:
    """Refuse shares that leave nothing to train on.

    Raises:
        Problem: G216.
    """
    if split.test <= 0 or split.calibrate <= 0 or split.test + split.calibrate >= 1:
        raise Problem(
            "G216",
            f"The data cannot be split into test {split.test:g} and calibrate {split.calibrate:g}.",
            where="data.split",
            why="Both are shares of the rows above 0; together they must be below 1.",
            tries=["split = { test = 0.2, calibrate = 0.2 }"],
        )


def time_bounds(calibrate_ms: int, test_ms: int, purge_ms: int) -> tuple[Bound, ...]:
    """Return the bounds of train, calibrate and test with a purge gap behind each cut.

    Example:
        >>> [(b.from_ms, b.split) for b in time_bounds(100, 200, 10)[1:]]
        [(100, 'purged'), (110, 'calibrate'), (200, 'purged'), (210, 'test')]
    """
    if calibrate_ms > test_ms - purge_ms:  # no room for a calibration part
        calibrate_ms = test_ms
    found = [Bound(from_ms=BEGINNING, split="train")]
    for cut, split in ((calibrate_ms, "calibrate"), (test_ms, "test")):
        if split == "calibrate" and calibrate_ms == test_ms:
            continue
        if purge_ms:
            found.append(Bound(from_ms=cut, split="purged"))
        found.append(Bound(from_ms=cut + purge_ms, split=split))
    return tuple(found)


def deal_entities(names: Iterable[str], split: Split, seed: int) -> dict[str, str]:
    """Give whole entities to the three splits, by the order of their digests.

    Raises:
        Problem: G216 when there are fewer than three and none is held out by name.
    """
    free = sorted((n for n in names if n not in split.holdout), key=lambda n: _digest(n, seed))
    dealt = dict.fromkeys(split.holdout, "test")
    tests = 0 if split.holdout else max(1, round(split.test * len(free)))
    calibrates = max(1, round(split.calibrate * len(free))) if split.calibrate else 0
    if len(free) - tests - calibrates < 1:
        raise Problem(
            "G216",
            f"{len(free)} entities are too few to be split by entity.",
            where="data.split.by",
            why="Training, calibration and test need at least one entity each.",
            tries=['split = { by = "time" }', "add the data of more machines"],
        )
    for number, name in enumerate(free):
        dealt[name] = (
            "test" if number < tests else "calibrate" if number < tests + calibrates else "train"
        )
    return dealt


def fingerprints(columns: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.uint64]:
    """Return one number per row that depends on all its values and on nothing else.

    Every NaN counts as the same value, and so do 0.0 and -0.0.
    """
    state = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        bits = np.where(np.isnan(column), np.nan, column + 0.0).view(np.uint64)
        state = mix(state ^ bits)
    return state


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit numbers (the finaliser of SplitMix64); the same in every version."""
    with np.errstate(over="ignore"):
        state = values + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


def _digest(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
