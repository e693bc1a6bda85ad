"""A few vectors that stand for many: a reservoir of bounded size and a greedy k-centre coreset.

PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022) keeps
the patches that cover all others best, found greedily on a random projection. Here they are drawn
from a reservoir (Vitter, "Random Sampling with a Reservoir", 1985), so that neither memory nor
time grows with the number of images.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_PROJECTED: int = 32


class Reservoir:
    """A uniform sample of a stream of vectors, in memory that does not grow.

    Args:
        size: Vectors kept at most.
        seed: Of the draw.

    Example:
        >>> kept = Reservoir(3, seed=0)
        >>> kept.add(np.arange(20, dtype=np.float32).reshape(10, 2))
        >>> kept.vectors.shape, kept.seen
        ((3, 2), 10)
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seen = size, 0
        self._rng = np.random.default_rng(seed)
        self._rank = np.zeros(0)
        self.vectors: Floats = np.zeros((0, 0), dtype=np.float32)

    def add(self, vectors: Floats) -> None:
        """Offer vectors [n, dims]: each gets a random rank, and the lowest ranks are kept."""
        rank = self._rng.random(len(vectors))
        self.seen += len(vectors)
        if not len(self._rank):
            self.vectors = np.zeros((0, vectors.shape[1]), dtype=np.float32)
        joined = np.concatenate([self._rank, rank])
        keep = np.sort(np.argsort(joined, kind="stable")[: self.size])
        old, new = keep[keep < len(self._rank)], keep[keep >= len(self._rank)] - len(self._rank)
        self.vectors = np.concatenate([self.vectors[old], vectors[new]])
        self._rank = joined[keep]


def k_centres(vectors: Floats, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose vectors so that no other is far from a chosen one (greedy k-centre, 2-approximate).

    Args:
        vectors: To choose from [n, dims].
        count: How many to choose.
        seed: Of the projection and the first choice.

    Returns:
        Their positions, in the order they were chosen.

    Example:
        >>> points = np.array([[0.0, 0], [0.1, 0], [9, 9], [9.1, 9]], dtype=np.float32)
        >>> sorted(int(i) // 2 for i in k_centres(points, 2, seed=0))
        [0, 1]
    """
    if count >= len(vectors):
        return np.arange(len(vectors))
    rng = np.random.default_rng(seed)
    small = vectors
    if vectors.shape[1] > _PROJECTED:
        shape = (vectors.shape[1], _PROJECTED)
        small = vectors @ (rng.standard_normal(shape) / np.sqrt(_PROJECTED)).astype(np.float32)
    length = np.einsum("nd,nd->n", small, small)
    chosen = np.empty(count, dtype=np.int64)
    chosen[0] = int(rng.integers(len(vectors)))
    nearest = np.full(len(vectors), np.inf, dtype=np.float32)
    for i in range(count):
        if i:
            chosen[i] = int(nearest.argmax())
        at = chosen[i]
        away = length - 2.0 * (small @ small[at]) + length[at]
        np.minimum(nearest, away, out=nearest)
        nearest[at] = -np.inf
    return chosen
