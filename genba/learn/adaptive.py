"""Intervals that keep their promise while the world changes: adaptive conformal inference.

Gibbs and Candès (2021), "Adaptive conformal inference under distribution shift": the level at
which an interval is asked for is itself corrected, step by step, by how often the truth fell
outside: level <- level + rate * (promised misses - misses seen). Whatever the data do, the share of
misses then tends to what was promised.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RATE: Final = 0.01  # of the correction, for each moment that has become known
_LEVELS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07)
_MORE_LEVELS: Final = (0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
_BEYOND: Final = 2.0  # width asked for when even the widest known does not do


@dataclass(frozen=True, kw_only=True, slots=True)
class Widths:
    """How much wider or narrower an interval becomes with the level it is asked for.

    The level is the share of misses that is accepted; the multiplier of the level that was
    promised is 1.
    """

    level: tuple[float, ...]
    multiplier: tuple[float, ...]

    def at(self, level: float) -> float:
        """Return the multiplier of a level; below the smallest known it doubles.

        Example:
            >>> Widths(level=(0.1, 0.2), multiplier=(1.0, 0.6)).at(0.15)
            0.8
        """
        if level <= 0.0:
            return _BEYOND * self.multiplier[0]
        return float(np.interp(level, self.level, self.multiplier))

    def level_of(self, multiplier: float) -> float:
        """Return the level that has this multiplier."""
        return float(np.interp(multiplier, self.multiplier[::-1], self.level[::-1]))

    def to_json(self) -> dict[str, list[float]]:
        """Return what a package keeps."""
        return {"level": list(self.level), "multiplier": list(self.multiplier)}

    @classmethod
    def from_json(cls, kept: Any) -> "Widths":
        """Return what `to_json` gave."""
        return cls(level=tuple(kept["level"]), multiplier=tuple(kept["multiplier"]))


def widths(ratios: npt.ArrayLike, promised: float) -> Widths:
    """Return the table of widths from calibration rows.

    Args:
        ratios: |truth - expected| / half width of the interval, of every calibration value.
        promised: Share of misses that was promised.

    Example:
        >>> made = widths(np.linspace(0, 1.25, 1001), 0.2)
        >>> round(made.at(0.2), 2), round(made.at(0.1), 2)
        (1.0, 1.12)
    """
    known = np.asarray(ratios, dtype=np.float64)
    known = known[np.isfinite(known)]
    levels = sorted({*_LEVELS, *_MORE_LEVELS, promised})
    if not len(known):
        return Widths(level=(promised,), multiplier=(1.0,))
    found = np.quantile(known, [1.0 - level for level in levels])
    found = found / max(float(found[levels.index(promised)]), 1e-12)
    found = np.minimum.accumulate(np.maximum(found, 1e-6))
    return Widths(level=tuple(levels), multiplier=tuple(float(v) for v in found))


def corrected(level: float, misses: float, promised: float, rate: float = RATE) -> float:
    """Return the next level, given the share of misses just seen.

    Example:
        >>> corrected(0.1, 1.0, 0.1), corrected(0.1, 0.0, 0.1)
        (0.091, 0.101)
    """
    return round(level + rate * (promised - misses), 12)


def followed(
    ratios: npt.NDArray[Any],
    known_at: Iterable[npt.NDArray[np.int64]],
    table: Widths,
    promised: float,
) -> npt.NDArray[np.bool_]:
    """Replay a stream of forecasts and say which values the corrected intervals held.

    Args:
        ratios: |truth - expected| / half width at multiplier 1, [forecasts, values]; NaN where the
            truth is not known.
        known_at: For each forecast the flat indices into `ratios` (of earlier forecasts) whose
            truth became known since the forecast before. Nothing later is ever looked at.
        table: From calibration rows.
        promised: Share of misses that was promised.

    Returns:
        Whether each value was held, as an array like `ratios`; False where nothing is known.
    """
    flat = ratios.ravel()
    used = np.ones(len(ratios))
    values = ratios.shape[1]
    level = promised
    for turn, arrived in enumerate(known_at):
        seen = flat[arrived]
        good = np.isfinite(seen)
        if good.any():
            missed = seen[good] > used[arrived[good] // values]
            level = corrected(level, float(missed.mean()), promised)
        used[turn] = table.at(level)
    with np.errstate(invalid="ignore"):
        return np.asarray(ratios <= used[:, None], dtype=np.bool_)
