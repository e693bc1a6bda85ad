"""Fitting scores of strangeness and their calibration."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf

from genba.edge.safety.plan import Unusual
from genba.edge.safety.unusual import scores
from genba.learn.safety.calibration import conformal, matrix, numbers
from genba.learn.safety.series import Floats

_PROTOTYPES: Final = 256
_SEED: Final = 20_240_601
_FLAT: Final = 1e-9


def fit_nearest(train: Floats, calibrate: Floats, alpha: float, categories: "Kinds") -> Unusual:
    """Fit the distance to the nearest known reading, in standardised units.

    Args:
        train: Standardised readings [N, D].
        calibrate: Rows that are scored for the p-value.
        alpha: A p-value at or below it trips.
        categories: What the calibration rows are compared within.
    """
    chance = np.random.default_rng(_SEED)
    kept = train[np.sort(chance.choice(len(train), min(_PROTOTYPES, len(train)), replace=False))]
    plan = Unusual(
        on="readings",
        method="nearest",
        alpha=alpha,
        matrix=matrix(np.concatenate([2 * kept, -(kept**2).sum(axis=1, keepdims=True)], axis=1)),
        pooled=conformal(np.zeros(0)),
    )
    return _calibrated(plan, calibrate, categories)


def fit_mahalanobis(
    on: str, train: Floats, calibrate: Floats, alpha: float, categories: "Kinds"
) -> Unusual:
    """Fit the Mahalanobis distance of an output, its covariance shrunk (Ledoit and Wolf, 2004)."""
    found = LedoitWolf().fit(train)
    covariance = found.covariance_ + np.eye(train.shape[1]) * _FLAT
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    plan = Unusual(
        on=on,
        method="mahalanobis",
        alpha=alpha,
        matrix=matrix(whitening),
        center=numbers(found.location_),
        pooled=conformal(np.zeros(0)),
    )
    return _calibrated(plan, calibrate, categories)


class Kinds:
    """Categories of calibration rows: one with too few rows to promise `alpha` is not used.

    Args:
        by: "class", "entity" or "".
        names: Of each calibration row.
    """

    def __init__(self, by: str = "", names: Sequence[str] = ()) -> None:
        self.by, self.names = by, np.array(names, dtype=object)

    def enough(self, alpha: float) -> list[str]:
        """Return the categories with rows enough."""
        if not self.by:
            return []
        found, counts = np.unique(self.names.astype(str), return_counts=True)
        return [str(n) for n, c in zip(found, counts, strict=True) if (c + 1) * alpha >= 1.0]


def _calibrated(plan: Unusual, calibrate: npt.NDArray[Any], kinds: Kinds) -> Unusual:
    found = scores(plan, calibrate)
    own = {name: conformal(found[kinds.names == name]) for name in kinds.enough(plan.alpha)}
    return Unusual(
        on=plan.on,
        method=plan.method,
        alpha=max(plan.alpha, 1.0 / (len(found) + 1)),
        matrix=plan.matrix,
        center=plan.center,
        pooled=conformal(found),
        by=kinds.by if own else "",
        categories=own,
    )
