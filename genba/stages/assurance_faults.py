"""Faults of sensors, of the way to the model and of the model, put into real readings.

Each has a name, how bad it is where nobody notices, and a function that changes a stretch of rows
from its onset on. Sizes are drawn with the episode's own seed, in spreads of the sensor on the
training rows, and lie where a person looking at one number would not see them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from genba.core.protocols import Array
from genba.learn.safety.series import Floats

CRITICAL, MAJOR, MINOR = "critical", "major", "minor"
_SPIKE: Final = (4.0, 10.0)  # spreads
_BIAS: Final = (1.0, 3.0)
_LAG: Final = (3, 12)  # readings
_DELAY: Final = (3, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a fault is put."""

    sensors: tuple[str, ...]
    sensor: str  # the one that fails, "" where all do
    onset: int
    spread: Floats  # of each sensor
    chance: np.random.Generator


Columns = dict[str, Array]
Change = Callable[[Columns, Place], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A kind of fault."""

    name: str
    severity: str
    about: str
    layers: tuple[str, ...]  # that are there for it
    change: Change | None = None  # of the rows; None: of the way or of the model
    each: bool = False  # one cell for every sensor
    fewest: int = 1  # sensors


def missing(columns: Columns, place: Place) -> None:
    """Let a sensor give no reading."""
    columns[place.sensor][place.onset :] = np.nan


def spike(columns: Columns, place: Place) -> None:
    """Let one single reading be far away."""
    sign = place.chance.choice((-1.0, 1.0))
    columns[place.sensor][place.onset] += sign * place.chance.uniform(*_SPIKE) * _spread(place)


def stuck(columns: Columns, place: Place) -> None:
    """Let a sensor repeat its newest reading."""
    columns[place.sensor][place.onset :] = columns[place.sensor][place.onset]


def bias(columns: Columns, place: Place) -> None:
    """Let a sensor read too high or too low by the same amount."""
    sign = place.chance.choice((-1.0, 1.0))
    columns[place.sensor][place.onset :] += sign * place.chance.uniform(*_BIAS) * _spread(place)


def lag(columns: Columns, place: Place) -> None:
    """Let a sensor say what it read some readings ago, with stamps of now."""
    late = int(place.chance.integers(_LAG[0], _LAG[1] + 1))
    column = columns[place.sensor]
    rows = np.arange(place.onset, len(column))
    column[rows] = column[np.maximum(rows - late, 0)].copy()


def swapped(columns: Columns, place: Place) -> None:
    """Exchange two sensors, as a wrong plug does."""
    one, other = place.chance.choice(len(place.sensors), 2, replace=False)
    first, second = columns[place.sensors[one]], columns[place.sensors[other]]
    kept = first[place.onset :].copy()
    first[place.onset :] = second[place.onset :]
    second[place.onset :] = kept


def delay_of(chance: np.random.Generator) -> int:
    """Return how many readings late everything is."""
    return int(chance.integers(_DELAY[0], _DELAY[1] + 1))


SENSOR_FAULTS: Final = (
    Fault(name="missing", severity=CRITICAL, about="a sensor gives no reading (NaN)",
          layers=("range",), change=missing, each=True),
    Fault(name="spike", severity=MAJOR, about="one reading of a sensor is 4 to 10 spreads away",
          layers=("range", "predicted", "unusual", "cross"), change=spike, each=True),
    Fault(name="stuck", severity=MAJOR, about="a sensor repeats its newest reading",
          layers=("stuck", "cross"), change=stuck, each=True),
    Fault(name="bias", severity=MINOR, about="a sensor reads 1 to 3 spreads too high or low",
          layers=("cross", "predicted", "unusual", "range"), change=bias, each=True),
    Fault(name="lag", severity=MINOR, about="a sensor is 3 to 12 readings behind the others",
          layers=("cross", "predicted"), change=lag, each=True),
    Fault(name="swapped", severity=MAJOR, about="two sensors are exchanged",
          layers=("range", "unusual", "cross", "predicted"), change=swapped, fewest=2),
)  # fmt: skip

WAY_FAULTS: Final = (
    Fault(name="delay", severity=MAJOR, about="readings arrive 3 to 10 readings late",
          layers=("time",)),
    Fault(name="drop", severity=CRITICAL, about="no reading arrives any more", layers=("time",)),
    Fault(name="power_loss", severity=CRITICAL,
          about="the device loses its power and all that it remembered", layers=("cold",)),
)  # fmt: skip

MODEL_FAULTS: Final = (
    Fault(name="bad_model:garbled", severity=CRITICAL,
          about="the numbers of every weight are shuffled", layers=("model",)),
    Fault(name="bad_model:constant", severity=CRITICAL, about="the model always says the same",
          layers=("model",)),
    Fault(name="bad_model:inverted", severity=CRITICAL, about="the model says the opposite",
          layers=("model",)),
)  # fmt: skip


def _spread(place: Place) -> float:
    return float(place.spread[place.sensors.index(place.sensor)])
