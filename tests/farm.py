"""A wind farm that never existed, with the books of its owner; the program below makes it up.

Power follows wind and air. Turbines stop now and then after the quiet months; the books say only
that the farm lost energy at that time, as real ones do.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from genba.core.line import Line
from genba.core.linefile import parse_line

TURBINES: Final = ("T1", "T2", "T3")
START: Final = np.datetime64("2024-01-01T00:00:00", "ms")
QUIET_DAYS: Final = 60
_PER_DAY: Final = 24
_LINE: Final = """
name = "farm"
task = "sensor.anomaly"
[data]
source = "files:{path}"
time = "time"
entity = "turbine"
inputs = ["wind", "air"]
output = "power"
[data.checks]
air = {{ min = -30, max = 60 }}
[train]
budget = {{ minutes = 1, trials = 2 }}
[gates]
r2 = {{ min = 0.8 }}
[target]
engines = ["onnxruntime"]
limits = {{ latency_ms_p99 = 100 }}
[rollout]
canary = 0.3
decide_after = 200
roll_back_on = {{ error_rate = 0.01, latency_ms_p99 = 150 }}
[retrain]
when = {{ labels = 20 }}
"""


def farm_line(path: Path) -> Line:
    """Return the line that reads a farm's records."""
    return parse_line(_LINE.format(path=path))


def write_farm(path: Path, days: int, *, seed: int = 0) -> None:
    """Write hourly records of three turbines; the same seed gives the same bytes."""
    chance = np.random.default_rng(seed)
    count = days * _PER_DAY
    day = np.arange(count) / _PER_DAY
    weather = _weather(chance, count)
    stops = np.stack([_stops(chance, count) for _ in TURBINES])
    lost = np.where(stops.any(axis=0), 400.0, 0.0)
    parts = []
    for turbine, stopped in zip(TURBINES, stops, strict=True):
        wind = 8 + 2 * np.sin(2 * np.pi * day) + weather + chance.normal(0, 0.3, count)
        wind = np.clip(wind, 0.5, None)
        air = 10 + 8 * np.sin(2 * np.pi * day / 365) + 3 * np.sin(2 * np.pi * day)
        air += chance.normal(0, 0.5, count)
        power = 2_000 / (1 + np.exp(8 - wind)) * (1.02 - 0.002 * air)
        power = np.where(stopped, 0.0, power + chance.normal(0, 25, count))
        columns = {"wind": wind.round(2), "air": air.round(2), "power": power.round(1)}
        time = START + np.arange(count) * np.timedelta64(86_400_000 // _PER_DAY, "ms")
        frame = pl.DataFrame({"time": time, "turbine": [turbine] * count, **columns})
        parts.append(frame.with_columns(pl.Series("loss_kwh", lost)))
    pl.concat(parts).write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%SZ")


def _weather(
    chance: np.random.Generator, count: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = np.empty(count)
    value = 0.0
    for i, step in enumerate(chance.normal(0, 0.8, count)):
        value = 0.9 * value + step
        found[i] = value
    return found


def _stops(chance: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    """A turbine stands still for some hours, every third day or so after the quiet months."""
    stopped = np.zeros(count, dtype=np.bool_)
    quiet = QUIET_DAYS * _PER_DAY
    if count > quiet:
        for first in chance.integers(quiet, count, (count - quiet) // (3 * _PER_DAY)):
            stopped[first : first + chance.integers(2, 6)] = True
    return stopped
