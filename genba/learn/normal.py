"""Ridge regression with many outputs from sums that can be added up in any number of pieces."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class NormalEquations:
    """X'X and X'Y, gathered piece by piece, so that the rows are never in memory together.

    Every output shares the one matrix: a forecast of 720 steps costs one factorisation, not 720.

    Example:
        >>> sums = NormalEquations.empty(1, 1)
        >>> sums.add(np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
        >>> sums.solve(0.0).round(6).tolist()
        [[2.0]]
    """

    gram: Floats  # [D, D]
    moment: Floats  # [D, T]
    count: float  # weight of the rows

    @classmethod
    def empty(cls, features: int, outputs: int) -> "NormalEquations":
        """Return sums over nothing."""
        return cls(np.zeros((features, features)), np.zeros((features, outputs)), 0.0)

    def add(self, x: Floats, y: Floats, weight: Floats | None = None) -> None:
        """Add rows: features [N, D], outputs [N, T], and how much each row counts [N]."""
        if weight is not None:  # its root on both sides: a product of a matrix with itself is fast
            root = np.sqrt(weight)[:, None]
            x, y = x * root, y * root
        self.gram += x.T @ x
        self.moment += x.T @ y
        self.count += float(len(x) if weight is None else weight.sum())

    def joined(self, other: "NormalEquations") -> "NormalEquations":
        """Return the sums over the rows of both."""
        return NormalEquations(
            self.gram + other.gram, self.moment + other.moment, self.count + other.count
        )

    def solve(self, penalty: float) -> Floats:
        """Return the weights [D, T].

        Args:
            penalty: Of the squared weights, in units of the mean diagonal of X'X, so that the
                number means the same whatever the scale of the features.
        """
        size = len(self.gram)
        if not size:
            return np.zeros_like(self.moment)
        unit = max(float(np.trace(self.gram)) / size, 1e-12)
        system = self.gram + np.eye(size) * (unit * (penalty + 1e-10))
        return np.asarray(np.linalg.solve(system, self.moment), dtype=np.float64)
