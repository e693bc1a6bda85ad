"""A Gaussian for every place of a grid: moments in one pass, shrinkage, whitening.

Padim (Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
Localization", 2021) keeps one Gaussian per position and needs parts that lie alike in every image.
Here the moments of neighbouring positions can be pooled (`reach`), up to one Gaussian for all
(unaligned textures), and every covariance is drawn towards the mean of all of them, so that
twenty images are enough for a hundred dimensions.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

EVERYWHERE: Final = -1
_RIDGE: Final = 0.01  # share of the mean variance that is added to every direction


class Moments:
    """Count, sum and products of vectors at every place of a grid, in memory that does not grow.

    Args:
        grid: Height and width.
        dims: Length of the vectors.

    Example:
        >>> moments = Moments((2, 2), 3)
        >>> moments.add(np.ones((5, 4, 3), dtype=np.float32))
        >>> moments.count
        5
    """

    def __init__(self, grid: tuple[int, int], dims: int) -> None:
        self.grid, self.dims, self.count = grid, dims, 0
        places = grid[0] * grid[1]
        self._shift = np.zeros((places, dims), dtype=np.float32)
        self._sum = np.zeros((places, dims), dtype=np.float64)
        self._products = np.zeros((places, dims, dims), dtype=np.float32)

    def add(self, vectors: Floats) -> None:
        """Add vectors [images, places, dims]."""
        if not self.count:  # differences from a first mean lose no digits in float32
            self._shift = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        away = np.ascontiguousarray((vectors - self._shift).transpose(1, 0, 2))
        self._sum += away.sum(axis=1, dtype=np.float64)
        self._products += away.transpose(0, 2, 1) @ away
        self.count += len(vectors)

    def whitening(self, *, reach: int, strength: float) -> tuple[Floats, Floats]:
        """Return mean [P, dims] and whitening matrix [P, dims, dims]; P is 1 for EVERYWHERE.

        |W (x - mean)|^2 / dims is the squared Mahalanobis distance per dimension.

        Args:
            reach: Moments of places at most so many rows and columns away are pooled.
            strength: Weight, in images, of the mean covariance of all places.
        """
        count, mean, covariance = self._pooled(reach)
        prior = covariance.mean(axis=0, dtype=np.float64).astype(np.float32)
        trust = (count / (count + strength)).astype(np.float32)[:, None, None]
        covariance *= trust
        covariance += (1.0 - trust) * prior
        places, dims = np.arange(self.dims), self.dims
        spread = np.einsum("pdd->p", covariance, dtype=np.float64) / dims
        covariance[:, places, places] += (_RIDGE * spread + 1e-12)[:, None].astype(np.float32)
        return mean.astype(np.float32), _inverse_roots(covariance)

    def _pooled(
        self, reach: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Floats]:
        """Return the number of images behind each place, the means and the covariances."""
        if reach == EVERYWHERE:
            return self._everywhere()
        height, width = self.grid
        mean = self._sum / self.count
        covariance = self._products / np.float32(self.count)
        if reach:
            near = (_band(height, reach), _band(width, reach))
            away = mean + self._shift  # means are pooled as they are, not as differences
            centre = away.mean(axis=0)
            away -= centre
            second = covariance + _outer((self._shift - centre).astype(np.float32), mean)
            covariance = _spread(second, self.grid, near)
            mean = _spread(away, self.grid, near)
            covariance -= _outer_of(mean)
            return np.full(len(mean), float(self.count)), mean + centre, covariance
        covariance -= _outer_of(mean)
        return np.full(len(mean), float(self.count)), mean + self._shift, covariance

    def _everywhere(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Floats]:
        mean = self._sum / self.count
        whole = (mean + self._shift).mean(axis=0)
        second = (self._products / np.float32(self.count)).mean(axis=0, dtype=np.float64)
        shift = self._shift.astype(np.float64) - whole
        cross = shift.T @ mean
        second = second + (cross + cross.T + shift.T @ shift) / len(mean)
        count = np.array([float(self.count * len(mean))])
        return count, whole[None], second.astype(np.float32)[None]


def _outer(shift: Floats, mean: npt.NDArray[np.float64]) -> Floats:
    """Return what turns second moments about the shift into second moments about the centre."""
    found = _product(shift, mean.astype(np.float32))
    return np.asarray(found + found.transpose(0, 2, 1) + _product(shift, shift))


def _outer_of(mean: npt.NDArray[np.float64]) -> Floats:
    small = mean.astype(np.float32)
    return _product(small, small)


def _product(left: Floats, right: Floats) -> Floats:
    return np.asarray(left[:, :, None] * right[:, None, :], dtype=np.float32)


def _band(size: int, reach: int) -> npt.NDArray[np.float64]:
    """Return the matrix that averages neighbours; fewer of them at the edge."""
    places = np.arange(size)
    near = (np.abs(places[:, None] - places) <= reach).astype(np.float64)
    return np.asarray(near / near.sum(axis=1, keepdims=True))


def _spread(
    values: npt.NDArray[Any],
    grid: tuple[int, int],
    near: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
) -> npt.NDArray[Any]:
    """Average [places, ...] over neighbouring places."""
    height, width = grid
    rows, columns = (matrix.astype(values.dtype) for matrix in near)
    shaped = values.reshape(height, -1)
    shaped = (rows @ shaped).reshape(height, width, -1)
    return np.asarray(np.matmul(columns, shaped).reshape(values.shape))


def _inverse_roots(covariance: Floats) -> Floats:
    """Return L^-1 of each L L^T; the ridge keeps them well enough conditioned for float32."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)), dtype=np.float32)
