"""The part of a series that the calendar and known covariates explain, whatever came before.

A profile over the week (or year), a profile over the day for every covariate that is 0 or 1 (a
working day), and for every other covariate hinges whose slopes vary with the time of day: heating
and cooling. Fitted in closed form; one number per moment and output.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from genba.core.protocols import Array, JsonObject
from genba.learn.linear import Hinges, make_hinges
from genba.learn.normal import NormalEquations
from genba.tasks.sensor.forecast import steps

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Penalty of the ridge and knots of the hinges of every covariate.
DETAIL: Final = {"fine": (1e-5, 10), "coarse": (1e-3, 5)}
_CHUNK: Final = 8_192
_WAVES: Final = 3  # of the day, by which slopes may vary
_YEAR_WAVES: Final = 2
_YEARS: Final = 1.5  # of data, from which the season of the year can be told from a trend


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """A fitted explanation as arrays."""

    profile: Floats  # [bins, outputs]
    flags: Ints  # [B] columns of the known covariates that are 0 or 1
    daily: Floats  # [B, day_bins, outputs]
    curves: Ints  # [C] columns of the known covariates that are not
    source: Ints  # [M] of `Hinges`
    knot: Floats  # [M]
    slopes: Floats  # [1 + 2 * waves, 1 + C + M, outputs]
    year: Floats  # [2 * year waves, outputs]; no rows where a year cannot be told from a trend

    def apply(self, known: Floats, local: Ints, settings: JsonObject) -> Floats:
        """Return what is explained at moments.

        Args:
            known: Standardised known covariates [..., K].
            local: What local clocks show, ms [...].
            settings: Of the task.
        """
        bins = steps.phases(local, settings["calendar"])
        total = self.profile[bins["profile"]]
        for place, column in enumerate(self.flags):
            total = total + known[..., column, None] * self.daily[place][bins["day"]]
        if len(self.curves):
            basis = self.hinges.expand(known[..., self.curves].reshape(-1, len(self.curves)))
            for wave, slope in zip(_day_waves(local, len(self.slopes)), self.slopes, strict=True):
                total = total + wave[..., None] * (basis @ slope).reshape(*local.shape, -1)
        for wave, size in zip(_year_waves(local, len(self.year)), self.year, strict=True):
            total = total + wave[..., None] * size
        return np.asarray(total, dtype=np.float64)

    @property
    def hinges(self) -> Hinges:
        """The basis of the covariates that are not 0 or 1."""
        return Hinges(source=self.source, knot=self.knot)

    def to_arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {f"explained.{name}": getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Any) -> "Explained":
        """Return what `to_arrays` gave."""
        return cls(**{name: arrays[f"explained.{name}"] for name in cls.__slots__})


def fit(z: Floats, known: Floats, local: Ints, settings: JsonObject, *, detail: str) -> Explained:
    """Fit the explanation of standardised outputs.

    Args:
        z: Outputs [N, O]; rows with anything missing are left out.
        known: Standardised known covariates [N, K].
        local: Local time of each row, ms [N].
        settings: Of the task.
        detail: A key of `DETAIL`.
    """
    penalty, knots = DETAIL[detail]
    good = np.isfinite(z).all(axis=1)
    z, known, local = z[good], known[good], local[good]
    flags, curves = _kinds(known, settings)
    hinges = make_hinges(known[:, curves], knots) if len(curves) else _no_hinges()
    long = len(local) > 0 and float(np.ptp(local)) >= _YEARS * steps.YEAR_MS
    empty = Explained(
        profile=np.zeros((int(settings["calendar"]["bins"]), z.shape[1])),
        flags=flags,
        daily=np.zeros((len(flags), int(settings["calendar"]["day_bins"]), z.shape[1])),
        curves=curves,
        source=hinges.source,
        knot=hinges.knot,
        slopes=np.zeros((_slope_waves(settings), 1 + len(curves) + len(hinges.source), z.shape[1])),
        year=np.zeros((2 * _YEAR_WAVES if long else 0, z.shape[1])),
    )
    sums: NormalEquations | None = None
    for start in range(0, len(z), _CHUNK):
        rows = slice(start, start + _CHUNK)
        x = _basis(empty, known[rows], local[rows], settings)
        sums = sums or NormalEquations.empty(x.shape[1], z.shape[1])
        sums.add(x, z[rows])
    if sums is None:
        return empty
    sums.gram /= sums.count
    sums.moment /= sums.count
    size = len(sums.gram) / max(float(np.trace(sums.gram)), 1e-12)
    return _unpacked(empty, sums.solve(penalty * size))


def _basis(made: Explained, known: Floats, local: Ints, settings: JsonObject) -> Floats:
    """Return the columns whose weights `_unpacked` takes apart, in its order."""
    bins, rows = steps.phases(local, settings["calendar"]), np.arange(len(local))
    profile = np.zeros((len(local), len(made.profile)))
    profile[rows, bins["profile"]] = 1.0
    parts = [profile]
    for column in made.flags:
        daily = np.zeros((len(local), made.daily.shape[1]))
        daily[rows, bins["day"]] = known[:, column]
        parts.append(daily)
    if len(made.curves):
        basis = made.hinges.expand(known[:, made.curves])
        parts += [w[:, None] * basis for w in _day_waves(local, len(made.slopes))]
    parts += [w[:, None] for w in _year_waves(local, len(made.year))]
    return np.concatenate(parts, axis=1)


def _unpacked(made: Explained, weights: Floats) -> Explained:
    sizes = {"profile": made.profile, "daily": made.daily}
    if len(made.curves):
        sizes["slopes"] = made.slopes
    sizes["year"] = made.year
    found: dict[str, Floats] = {}
    start = 0
    for name, like in sizes.items():
        stop = start + like.size // weights.shape[1]
        found[name] = weights[start:stop].reshape(like.shape)
        start = stop
    rest = {name: getattr(made, name) for name in Explained.__slots__}
    return Explained(**{**rest, **found})


def _kinds(known: Floats, settings: JsonObject) -> tuple[Ints, Ints]:
    """Tell covariates of two values from others; without a day profile all are curves."""
    daily = int(settings["calendar"]["day_bins"]) > 0
    flag = [daily and len(np.unique(column)) <= 2 for column in known.T]
    places = np.arange(known.shape[1], dtype=np.int64)
    chosen = np.array(flag, dtype=bool)
    return places[chosen], places[~chosen]


def _slope_waves(settings: JsonObject) -> int:
    return 1 + 2 * _WAVES if int(settings["calendar"]["day_bins"]) else 1


def _day_waves(local: Ints, count: int) -> list[Floats]:
    """Return 1, cos, sin, cos 2, ... of the time of day."""
    angle = 2.0 * np.pi * (local % steps.DAY_MS) / steps.DAY_MS
    waves = [np.ones(local.shape)]
    for number in range(1, count // 2 + 1):
        waves += [np.cos(number * angle), np.sin(number * angle)]
    return waves


def _year_waves(local: Ints, count: int) -> list[Floats]:
    angle = 2.0 * np.pi * (local % steps.YEAR_MS) / steps.YEAR_MS
    return [
        wave
        for number in range(1, count // 2 + 1)
        for wave in (np.cos(number * angle), np.sin(number * angle))
    ]


def _no_hinges() -> Hinges:
    return Hinges(source=np.zeros(0, dtype=np.int64), knot=np.zeros(0))
