"""Pictures of the same thing: found by small grey thumbnails, grouped, never split apart.

A copy that was saved again, scaled, brightened or slightly cropped has nearly the thumbnail of its
original. So have two good parts before a fixed camera, and these must not be taken for copies. A
fixed limit cannot tell the two apart, so the limit follows from the data: two images are near-
duplicates when they differ by a quarter of what images of this set usually differ from their
nearest neighbours, and by little in absolute terms.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from genba.edge.images import thumbnail

SIDE: Final = 16  # pixels of a thumbnail
_LEVELS: Final = 32.0  # standard deviation of a thumbnail after its contrast was evened out
_FLAT: Final = 4.0  # grey levels; contrast below is noise and is not blown up
_MOST: Final = 2.0  # levels (root mean square) that near-duplicates may differ by
_SHARE: Final = 0.25  # of the usual distance to the nearest neighbours
_NEIGHBOUR: Final = 5  # which of them; copies in threes or fours do not disturb it
_SAMPLE: Final = 1_000  # images of which the usual distance is found
_CROWD: Final = 20  # images; a larger group than this and the next is taken for chance
_CROWD_SHARE: Final = 0.1  # of all images
_SMALLEST: Final = 0.02  # levels; below, only equal thumbnails count
_REACH: Final = 64  # images of a cell that one is compared with at most, in each direction
_AT_ONCE: Final = 1 << 20  # pairs
_NEXT: Final = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))  # cells, so that each pair is met once
_WAVES: Final = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (0, 3))
_PIECE: Final = 65_536
_BLOCK: Final = 512
#: Up to so many images, every pair is compared.
EXACT: Final = 4_096

Looks = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """Which images are near-duplicates of each other."""

    first: Numbers  # [N]: number of the first image of the group each one is in
    limit: float  # levels below which two count as the same; 0 where only equal thumbnails do
    crowded: bool  # the images are too alike to tell copies from other parts


def look(data: bytes) -> bytes:
    """Return the thumbnail of an image file, 256 bytes; decodes the whole file.

    Raises:
        Problem: G230 to G234 when it cannot be decoded.
    """
    return thumbnail(data, SIDE, SIDE).tobytes()


def groups(
    looks: Looks, together: Sequence[tuple[int, int]] = (), limit: float | None = None
) -> Groups:
    """Find near-duplicates in about linear time and a few bytes per image.

    Args:
        looks: Thumbnails, uint8 [N, 256].
        together: Pairs of images that belong together for another reason.
        limit: Levels, as found for these images before; derived if not given.

    Example:
        >>> chance = np.random.default_rng(0)
        >>> looks = chance.integers(0, 256, (50, 256)).astype(np.uint8)
        >>> looks[7] = looks[3] // 2 + 60  # darker, the same picture
        >>> found = groups(looks)
        >>> found.first[7], len(set(found.first))
        (np.int64(3), 49)
    """
    count = len(looks)
    own = np.array(together, dtype=np.int64).reshape(-1, 2)
    if limit is not None:
        pairs = near_pairs(looks, limit)
        first = _joined(count, np.concatenate([pairs, own]))
        return Groups(first=first, limit=limit, crowded=False)
    limit = min(_MOST, _SHARE * _usual(looks))
    crowd = max(_CROWD, int(_CROWD_SHARE * count))
    crowded = False
    while True:
        limit = round(limit, 4) if limit >= _SMALLEST else 0.0
        pairs = near_pairs(looks, limit)
        first = _joined(count, pairs)
        if not limit or not count or np.bincount(first).max() <= crowd:
            break
        limit, crowded = limit / 2, True
    return Groups(first=_joined(count, np.concatenate([pairs, own])), limit=limit, crowded=crowded)


def near_pairs(looks: Looks, limit: float) -> Numbers:
    """Return pairs of images that differ by no more than the limit, int64 [M, 2].

    Every pair up to `EXACT` images. Of more, each image is compared with those nearest to it in a
    few projections only, and with a limit of 0 equal ones are paired with the first of their kind.

    Args:
        looks: Thumbnails, uint8 [N, 256].
        limit: Levels; 0 for equal thumbnails.
    """
    if not limit or len(looks) < 2:
        return _equal(looks)
    return _all_pairs(looks, limit) if len(looks) <= EXACT else _pairs(looks, limit)


def _usual(looks: Looks) -> float:
    """Return the median distance to the fifth neighbour, in a sample that is spread evenly."""
    sample = _even(looks[np.linspace(0, len(looks) - 1, min(len(looks), _SAMPLE)).astype(int)])
    if len(sample) < 2:
        return 0.0
    values = sample.astype(np.float64)
    squares = np.square(values).sum(axis=1)
    distance = squares[:, None] + squares[None] - 2 * values @ values.T
    np.fill_diagonal(distance, np.inf)
    nearest = min(_NEIGHBOUR, len(sample) - 1) - 1
    found = np.partition(distance, nearest, axis=1)[:, nearest]
    return float(np.sqrt(max(np.median(found), 0.0) / SIDE**2))


def _even(looks: Looks) -> Floats:
    """Return thumbnails with their brightness and contrast evened out."""
    values = looks.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    spread = np.maximum(values.std(axis=1, keepdims=True), _FLAT)
    scaled: Floats = (values / spread * _LEVELS).astype(np.float32)
    return scaled


def _all_pairs(looks: Looks, limit: float) -> Numbers:
    values = _even(looks)
    squares = np.square(values).sum(axis=1)
    most = np.float32((limit + 1e-2) ** 2 * SIDE**2)  # sums are rounded; the pairs are confirmed
    found = []
    for at in range(0, len(looks), _BLOCK):
        piece = slice(at, at + _BLOCK)
        apart = squares[piece, None] + squares[None] - 2 * values[piece] @ values.T
        pairs = np.argwhere(apart <= most).astype(np.int64) + np.array([at, 0])
        found.append(_confirmed(looks, pairs[pairs[:, 0] < pairs[:, 1]], limit))
    return np.concatenate(found)


def _pairs(looks: Looks, limit: float) -> Numbers:
    """Find near pairs among many images.

    Projections on a few smooth waves can only be nearer to each other than the thumbnails are. So
    images are put into cells by two of them, sorted by a third one inside, and compared only with
    those that the projections do not rule out.
    """
    waves = _projected(looks)
    waves = waves[:, np.argsort(-waves.std(axis=0), kind="stable")]
    near = limit + 1e-3  # projections are rounded; what counts is looked at at the end
    cells = np.floor((waves[:, :2] - waves[:, :2].min(axis=0)) / near).astype(np.int64) + 1
    wide = int(cells[:, 1].max()) + 2
    along = waves[:, 2].astype(np.float64) - float(waves[:, 2].min())
    span = float(along.max()) + 4 * near
    cell = cells[:, 0] * wide + cells[:, 1]
    order = np.argsort(cell * span + along, kind="stable")
    cell, along = cell[order], along[order]
    waves = np.ascontiguousarray(waves[order, 3:].T)
    keys = cell * span + along
    found = [np.empty((0, 2), dtype=np.int64)]
    for down, right in _NEXT:
        there = (cell + down * wide + right) * span + along
        middle = np.searchsorted(keys, there)
        begin = np.maximum(np.searchsorted(keys, there - near), middle - _REACH)
        end = np.minimum(np.searchsorted(keys, there + near, side="right"), middle + _REACH)
        if (down, right) == (0, 0):
            begin = np.arange(1, len(keys) + 1)  # each pair once
        for one, other in _candidates(begin, end):
            for wave in waves:
                close = np.abs(wave[one] - wave[other]) <= near
                one, other = one[close], other[close]
            pairs = np.stack([order[one], order[other]], axis=1)
            found.append(_confirmed(looks, pairs, limit))
    return np.concatenate(found)


def _candidates(begin: Numbers, end: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield every (i, j) with begin[i] <= j < end[i], a bounded number at a time."""
    count = np.maximum(end - begin, 0)
    total = np.cumsum(count)
    start = 0
    while start < len(count):
        before = int(total[start - 1]) if start else 0
        stop = max(int(np.searchsorted(total, before + _AT_ONCE, side="right")), start + 1)
        many = count[start:stop]
        one = np.repeat(np.arange(start, stop), many)
        into = np.arange(len(one)) - np.repeat(np.cumsum(many) - many, many)
        yield one, begin[one] + into
        start = stop


def _projected(looks: Looks) -> Floats:
    """Project thumbnails on smooth waves of length 1, so that distances can only shrink."""
    at = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    waves = [np.outer(np.cos(row * at), np.cos(column * at)).ravel() for row, column in _WAVES]
    basis = np.stack([wave / np.linalg.norm(wave) for wave in waves], axis=1) / SIDE
    pieces = range(0, len(looks), _PIECE)
    return np.concatenate([_even(looks[at : at + _PIECE]) @ basis for at in pieces]).astype(
        np.float32
    )


def _confirmed(looks: Looks, pairs: Numbers, limit: float) -> Numbers:
    kept = [pairs[:0]]
    for at in range(0, len(pairs), _PIECE):
        some = pairs[at : at + _PIECE]
        apart = np.square(_even(looks[some[:, 0]]) - _even(looks[some[:, 1]])).mean(axis=1)
        kept.append(some[apart <= limit**2])
    return np.concatenate(kept)


def _equal(looks: Looks) -> Numbers:
    """Return pairs of images with the very same thumbnail, each with the first of its kind."""
    if not len(looks):
        return np.empty((0, 2), dtype=np.int64)
    whole = np.ascontiguousarray(looks).view(np.dtype((np.void, looks.shape[1]))).ravel()
    _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
    pairs = np.stack([first[kind], np.arange(len(looks))], axis=1)
    others: Numbers = pairs[pairs[:, 0] != pairs[:, 1]]
    return others


def _joined(count: int, pairs: Numbers) -> Numbers:
    """Return the smallest member of each image's group: union-find, all pairs at once."""
    first = np.arange(count, dtype=np.int64)
    while len(pairs):
        left, right = first[pairs[:, 0]], first[pairs[:, 1]]
        apart = left != right
        pairs, lower = pairs[apart], np.minimum(left, right)[apart]
        np.minimum.at(first, np.maximum(left, right)[apart], lower)
        while not np.array_equal(first, first[first]):
            first = first[first]
    return first
