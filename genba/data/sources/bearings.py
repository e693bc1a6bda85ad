"""Bearings that never existed, run until they fail: a seeded model of how rolling bearings wear.

Each bearing runs cycle after cycle under one of three duties (light, normal, heavy: load and
speed), which its machine changes now and then; machines differ in how often they run heavy. Wear
has two phases, as in rolling-contact fatigue:

1. Nothing is to be seen until a spall begins. The dose until then follows a Weibull distribution,
   and a cycle adds to it with the third power of the load (the life equation of ISO 281).
2. The spall grows like a crack: by (load^1.5 x size)^1.3 per cycle (a law of the form of Paris),
   times a rate of its own for each bearing (log-normal) and a gamma-distributed shock for each
   cycle. The bearing has failed when the spall reaches size 1.

What is measured depends on duty, wear, ambient temperature and the place where the sensor sits
(every bearing has gains of its own), with noise, outliers, single missing values and sensors that
fall silent for some cycles. Units are arbitrary but plausible. Nothing here was measured.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: A change of the model or of a number below changes this, and with it the fingerprint.
VERSION: Final = 1
COLUMNS: Final = (
    "load_kn",
    "speed_rpm",
    "ambient_c",
    "vibration_rms",
    "vibration_kurtosis",
    "vibration_peak",
    "temperature_c",
    "current_a",
    "ultrasound_db",
    "debris",
)
_DUTIES: Final = np.array([[4.0, 1_200.0], [7.0, 1_800.0], [10.0, 1_500.0]])  # kN, 1/min
_STAY: Final = 0.85  # probability that a machine goes on with its duty
_LOAD: Final = 7.0  # kN at which doses are counted
_DOSE: Final = 140.0  # cycles at that load until half of all spalls have begun, about
_SHAPE: Final = 6.0  # of the Weibull distribution of doses
_SPALL: Final = 0.04  # size at which it begins
_RATE: Final = 0.09  # of growth per cycle at the reference load
_LONGEST: Final = 600  # cycles; by then every bearing has failed
_MISSING: Final = 0.005
_OUTLIERS: Final = 0.002
_SILENCES: Final = 0.15  # expected number per sensor and 100 cycles


@dataclass(frozen=True, kw_only=True, slots=True)
class Life:
    """One bearing from new to failed."""

    readings: Floats  # [cycles, columns] with NaN where a reading is missing
    spall: Floats  # [cycles] its size, which no sensor sees

    @property
    def cycles(self) -> int:
        """How many it lasted."""
        return len(self.readings)


def live(seed: int, number: int) -> Life:
    """Run one bearing until it fails; a bearing is the same whichever others are run.

    Args:
        seed: Of the fleet.
        number: Of the bearing.

    Example:
        >>> life = live(0, 1)
        >>> life.readings.shape == (life.cycles, len(COLUMNS)), float(life.spall[-1]) >= 1.0
        (True, True)
    """
    chance = np.random.default_rng([VERSION, seed, number])
    duty = _duties(chance)
    load = duty[:, 0] * chance.normal(1.0, 0.02, _LONGEST)
    speed = duty[:, 1] * chance.normal(1.0, 0.005, _LONGEST)
    spall = _wear(load, chance)
    end = int(np.argmax(spall >= 1.0)) + 1
    table = _measure(load[:end], speed[:end], spall[:end], chance)
    return Life(readings=_damaged(table, chance), spall=spall[:end])


def _duties(chance: np.random.Generator) -> Floats:
    """Return load and speed of every cycle: a Markov chain with preferences of its machine."""
    liking = chance.dirichlet([15.0, 15.0, 15.0])
    stays = chance.random(_LONGEST) < _STAY
    wanted = chance.choice(len(_DUTIES), size=_LONGEST, p=liking)
    changed = np.flatnonzero(~stays | (np.arange(_LONGEST) == 0))
    at = np.searchsorted(changed, np.arange(_LONGEST), side="right") - 1
    return _DUTIES[wanted[changed[at]]]


def _wear(load: Floats, chance: np.random.Generator) -> Floats:
    """Return the size of the spall after every cycle."""
    dose = np.cumsum((load / _LOAD) ** 3) / (np.mean((_DUTIES[:, 0] / _LOAD) ** 3))
    begins = int(np.searchsorted(dose, _DOSE * chance.weibull(_SHAPE)))
    rate = _RATE * chance.lognormal(0.0, 0.3)
    shocks = chance.gamma(4.0, 0.25, _LONGEST)
    spall, size = np.zeros(_LONGEST), 0.0
    for cycle in range(_LONGEST):
        if size or cycle >= begins:
            size = size or _SPALL
            stress = (load[cycle] / _LOAD) ** 1.5
            size = min(size + rate * shocks[cycle] * (stress * size) ** 1.3 * 0.5, 1e3)
        spall[cycle] = size
    spall[-1] = max(spall[-1], 1.0)
    return spall


def _measure(load: Floats, speed: Floats, spall: Floats, chance: np.random.Generator) -> Floats:
    """Return readings of every cycle, all there and none wrong."""
    count = len(load)
    gain = dict(zip(COLUMNS[3:], chance.normal(1.0, 0.06, 7), strict=True))
    fast, heavy = speed / 1_500.0, load / _LOAD
    size = np.sqrt(np.minimum(spall, 2.0))  # sensors see its length, not its area
    ambient = 22.0 + 4.0 * np.sin(np.arange(count) / 24.0 + chance.uniform(0, 2 * np.pi))
    ambient += chance.normal(0, 0.5, count)
    rms = (0.8 + 0.5 * fast**2 + 0.3 * heavy) * (1.0 + 2.2 * size**1.5)
    rms *= gain["vibration_rms"] * chance.normal(1.0, 0.06, count)
    # Impacts stand out while the spall is small; later the whole signal is impacts.
    kurtosis = 3.0 + 14.0 * size * np.exp(-3.0 * size) * gain["vibration_kurtosis"]
    kurtosis += chance.gamma(2.0, 0.15, count)
    peak = rms * (3.2 + 0.45 * kurtosis) * gain["vibration_peak"] * chance.normal(1.0, 0.08, count)
    heat = 9.0 * heavy * fast * (1.0 + 0.9 * size**2) * gain["temperature_c"]
    smooth = np.convolve(np.r_[np.full(4, heat[0]), heat], np.full(5, 0.2), mode="valid")
    current = (3.0 + 4.5 * heavy * fast * (1.0 + 0.12 * size)) * gain["current_a"]
    ultrasound = 38.0 + 6.0 * fast + 11.0 * np.log10(1.0 + 12.0 * spall) * gain["ultrasound_db"]
    growth = np.diff(np.r_[0.0, np.minimum(spall, 2.0)])
    debris = chance.poisson(2.0 + 400.0 * growth * gain["debris"])
    return np.stack(
        [
            load,
            speed,
            ambient,
            rms,
            kurtosis,
            peak,
            ambient + 12.0 + smooth + chance.normal(0, 0.6, count),
            current + chance.normal(0, 0.1, count),
            ultrasound + chance.normal(0, 0.9, count),
            debris.astype(np.float64),
        ],
        axis=1,
    )


def _damaged(table: Floats, chance: np.random.Generator) -> Floats:
    """Return readings as they arrive: rounded, some wrong, some missing."""
    table = table.round(3)
    measured = slice(3, None)  # load, speed and ambient come from the control system
    shape = table[:, measured].shape
    wrong = chance.random(shape) < _OUTLIERS
    table[:, measured] = np.where(wrong, table[:, measured] * 4.0, table[:, measured])
    table[:, measured] = np.where(chance.random(shape) < _MISSING, np.nan, table[:, measured])
    for sensor in range(3, table.shape[1]):
        for _ in range(int(chance.poisson(_SILENCES * len(table) / 100))):
            start = int(chance.integers(len(table)))
            table[start : start + int(chance.integers(3, 15)), sensor] = np.nan
    return table
