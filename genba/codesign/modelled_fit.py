"""Corrections of the roofline, fitted on what was measured on the same target.

Milliseconds are a sum of terms times corrections. Corrections are not negative, are drawn towards
what is known without any point (1 for what the probe priced, 0 for what it did not), and one
measurement that went wrong moves them little (Huber, "Robust estimation of a location parameter",
1964). A family of kernels, such as OpenVINO in bfloat16, has corrections of its own, drawn towards
those of all.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from genba.codesign.modelled_terms import COUNTED, PRICED, TERMS
from genba.core.protocols import Array

Family = tuple[str, str, str, str]

_PULL: Final = 2.0  # towards what is known without the points: as strong as some models
_FREE: Final = 0.1  # as much of that for what the probe did not price
_KERNELS: Final = 3  # parts of a family that say which kernels run
_HUBER: Final = 0.25  # relative; beyond, a point counts in proportion to its distance, not squared
_ROUNDS: Final = 12
_SAME: Final = 1e-4  # relative; then it has converged
_STEPS: Final = 20
_FAR: Final = 8  # a point that is expected at so much less counts as if it were not
_LEAST: Final = 0.02  # of a correction of what the probe priced: nothing is free
_FLOOR: Final = np.array([_LEAST] * len(PRICED) + [0.0] * len(COUNTED))
_SMALL: Final = 1e-12


#: Terms that may be counted as nothing where nothing is known of them.
_SURE: Final = np.array([name in (*PRICED, "operators") for name in TERMS])


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One measurement as the fit sees it."""

    family: Family
    model: str  # points of one model are alike: they are held out together
    terms: Array  # float64 [terms]
    measured: float  # ms


@dataclass(frozen=True, slots=True)
class Corrections:
    """What each term is multiplied by."""

    shared: Array
    kernels: Mapping[tuple[str, ...], Array]  # by runtime, form and precision
    families: Mapping[Family, Array]  # and by how they are spread over cores
    offsets: Mapping[str, float]  # of each model, in natural logarithms
    known: Array  # bool [terms]: priced by the probe, or met in a measured point

    def covers(self, terms: Array) -> bool:
        """Say whether every term that counts is known; a guess about the rest is worth nothing."""
        return not bool(np.any(terms[~self.known]))

    def of(self, terms: Array, family: Family, model: str = "") -> float:
        """Return the milliseconds expected."""
        weights = self.families.get(family, self.kernels.get(family[:_KERNELS], self.shared))
        expected = float(terms @ weights) * float(np.exp(self.offsets.get(model, 0.0)))
        return max(expected, _SMALL)


def uncorrected() -> Corrections:
    """Return the corrections where nothing was measured: the roofline as it is."""
    return Corrections(_prior(), {}, {}, {}, _SURE)


def fit(rows: Sequence[Row]) -> Corrections:
    """Return corrections for what was measured; without rows, those of no correction."""
    if not rows:
        return uncorrected()
    shared = _solve(rows, _prior())
    kernels: dict[tuple[str, ...], Array] = {
        kernel: _solve([r for r in rows if r.family[:_KERNELS] == kernel], shared)
        for kernel in dict.fromkeys(row.family[:_KERNELS] for row in rows)
    }
    families = {
        family: _solve([r for r in rows if r.family == family], kernels[family[:_KERNELS]])
        for family in dict.fromkeys(row.family for row in rows)
    }
    met = np.any(np.stack([row.terms for row in rows]) > 0, axis=0) | _SURE
    known = Corrections(shared, kernels, families, {}, met)
    offsets = {}
    for model in dict.fromkeys(row.model for row in rows):
        off = [np.log(r.measured / known.of(r.terms, r.family)) for r in rows if r.model == model]
        # Drawn to zero: one point alone says half of what it says.
        offsets[model] = float(np.median(off)) * len(off) / (len(off) + 1)
    return Corrections(shared, kernels, families, offsets, met)


def _prior() -> Array:
    return np.array([1.0] * len(PRICED) + [0.0] * len(COUNTED))


def _solve(rows: Sequence[Row], centre: Array) -> Array:
    """Minimise the relative errors plus the distance from `centre`; no correction below its floor.

    Relative to the geometric mean of what was measured and what is expected, so that half as much
    is as wrong as twice as much.
    """
    terms = np.stack([row.terms for row in rows])
    measured = np.array([row.measured for row in rows])
    count = Counter(row.model for row in rows)
    share = np.array([1.0 / count[row.model] for row in rows])  # each model counts as much
    drawn = (_PULL * _scales(terms / measured[:, None])) ** 2
    weights: Array = np.maximum(centre, _FLOOR)
    for _ in range(_ROUNDS):
        expected = np.maximum(terms @ weights, _SMALL)
        unit = np.sqrt(measured * np.maximum(expected, measured / _FAR))
        errors = np.abs(expected - measured) / unit
        trust = share * np.minimum(1.0, _HUBER / np.maximum(errors, _SMALL))
        design = terms / unit[:, None]
        square = (design * trust[:, None]).T @ design + np.diag(drawn)
        target = design.T @ (trust * measured / unit) + drawn * centre
        before, weights = weights, _bounded(square, target)
        if np.allclose(before, weights, rtol=_SAME):
            break
    return weights


def _scales(relative: Array) -> Array:
    """Return how strongly each correction is drawn: by what its term weighs in the points."""
    heavy = np.sqrt((relative**2).mean(axis=0))
    priced = np.array([name in PRICED for name in TERMS])
    scales: Array = np.where(priced, np.maximum(heavy, 1.0), _FREE * heavy + _SMALL)
    return scales


def _bounded(square: Array, target: Array) -> Array:
    """Return the minimum of a quadratic above the floor, by an active set of bounds.

    As in Lawson and Hanson, "Solving least squares problems", 1974, chapter 23.
    """
    free = np.ones(len(target), dtype=bool)
    weights: Array = _FLOOR.copy()
    for _ in range(_STEPS):
        weights = np.where(free, weights, _FLOOR)
        rest = target[free] - square[np.ix_(free, ~free)] @ weights[~free]
        weights[free] = np.linalg.solve(square[np.ix_(free, free)], rest)
        below = free & (weights < _FLOOR)
        if below.any():
            free &= ~below
            continue
        rising = ~free & (target - square @ weights > _SMALL)
        if not rising.any():
            break
        free |= rising & (np.cumsum(rising) == 1)  # one at a time, or two may take turns for ever
    found: Array = np.maximum(weights, _FLOOR)
    return found
