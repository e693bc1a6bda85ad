"""How unlike everything known is a reading, as a p-value.

Split-conformal p-values (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World",
2005; for outliers: Bates et al., "Testing for outliers with conformal p-values", Annals of
Statistics 2023): with n scores of rows the detector was not fitted on, p is one more than the
number of those at least as strange, over n + 1. On rows that are exchangeable with those,
p <= alpha happens with probability at most alpha. Where there are classes or entities with rows
enough, each is compared with its own kind (Mondrian categories, chapter 4.5 of the same book), so
that a rare kind is not drowned.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from genba.edge.safety.plan import Conformal, Unusual

Floats = npt.NDArray[np.float64]


class Strangeness:
    """One score of a plan with its calibration."""

    def __init__(self, plan: Unusual) -> None:
        self.plan = plan
        self.on, self.alpha, self.by = plan.on, plan.alpha, plan.by
        self._matrix = np.array(plan.matrix, dtype=np.float64)
        self._center = np.array(plan.center, dtype=np.float64)
        self._one = np.ones(self._matrix.shape[1])
        self._nearest = plan.method == "nearest"
        self._pooled = _table(plan.pooled)
        self._own = {name: _table(found) for name, found in plan.categories.items()}

    def score(self, x: Any) -> float:
        """Return how strange a vector is: squared distance to the nearest or to the middle."""
        if self._nearest:
            self._one[:-1] = x
            return float(x @ x - (self._matrix @ self._one).max())
        away = self._matrix @ (x - self._center)
        return float(away @ away)

    def p_value(self, score: float, category: str = "") -> float:
        """Return the conformal p-value of a score, among its own category where it has one."""
        at, above, count = self._own.get(category, self._pooled)
        if score != score:  # not a number: as strange as can be
            return 1.0 / (count + 1)
        place = bisect_left(at, score)
        return (1 + (above[place] if place < len(at) else 0)) / (count + 1)


def scores(plan: Unusual, rows: npt.NDArray[Any]) -> Floats:
    """Return the scores of many rows, as `Strangeness.score` gives them one by one."""
    x, matrix = np.asarray(rows, dtype=np.float64), np.array(plan.matrix, dtype=np.float64)
    if plan.method == "nearest":
        found = np.empty(len(x))
        for start in range(0, len(x), 4096):
            part = x[start : start + 4096]
            near = (part @ matrix[:, :-1].T + matrix[:, -1]).max(axis=1)
            found[start : start + 4096] = (part * part).sum(axis=1) - near
        return found
    away = (x - np.array(plan.center)) @ matrix.T
    return np.asarray((away * away).sum(axis=1))


def category(by: str, outputs: Mapping[str, Any], chosen: str, entity: str) -> str:
    """Return what a reading is compared within."""
    if by == "class":
        return str(int(outputs[chosen].flat[0])) if chosen in outputs else ""
    return entity if by == "entity" else ""


def _table(found: Conformal) -> tuple[list[float], list[int], int]:
    return list(found.at), list(found.above), found.count
