"""Small numpy helpers for readings with gaps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean_known(x: npt.ArrayLike, axis: int) -> Floats:
    """Return the mean of what is there; NaN where nothing is, without a warning.

    Example:
        >>> mean_known([[1.0, np.nan], [3.0, np.nan]], 0)
        array([ 2., nan])
    """
    values = np.asarray(x, dtype=np.float64)
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    mean = np.full(np.shape(total), np.nan)
    return np.asarray(np.divide(total, count, out=mean, where=count > 0))


def filled(x: Floats, shifts: Sequence[int], axis: int, otherwise: Floats) -> Floats:
    """Replace what is missing by what was read so many steps before, shift after shift.

    Args:
        x: Readings, NaN for missing.
        shifts: See `schema.fill_shifts`.
        axis: Of time.
        otherwise: What stands for a sensor of which there is no reading at all; broadcast
            against `x`. Where there are some, their mean fills what the shifts left open.

    Example:
        >>> x = np.array([1.0, np.nan, 3.0, np.nan])
        >>> filled(x, [1], 0, np.zeros(1)).tolist()
        [1.0, 1.0, 3.0, 3.0]
    """
    valid = np.isfinite(x)
    if valid.all():
        return x
    made = np.where(valid, x, 0.0)
    usual = np.expand_dims(mean_known(x, axis), axis)
    usual = np.where(np.isfinite(usual), usual, otherwise)
    length = x.shape[axis]
    for shift in shifts:
        if shift >= length:
            continue
        old = _cut(x.ndim, axis, slice(None, length - shift))
        new = _cut(x.ndim, axis, slice(shift, None))
        take = np.zeros_like(valid)
        take[new] = valid[old] & ~valid[new]
        moved = np.zeros_like(made)
        moved[new] = made[old]
        made = np.where(take, moved, made)
        valid = valid | take
        if valid.all():
            return made
    return np.asarray(np.where(valid, made, usual), dtype=np.float64)


def _cut(dimensions: int, axis: int, part: slice) -> tuple[slice, ...]:
    cut = [slice(None)] * dimensions
    cut[axis] = part
    return tuple(cut)
