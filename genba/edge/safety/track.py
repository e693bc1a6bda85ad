"""What an envelope remembers of one entity: little, plain, and told as JSON."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_PLAIN: Final = (
    *("time_ms", "elapsed_ms", "seen", "fresh", "runs", "last", "flood"),
    *("score", "expected", "equal", "tainted", "taint", "tainted_for"),
)
_ARRAYS: Final = ("before", "drift")


@dataclass(slots=True)
class Track:
    """The memory of one entity."""

    time_ms: int | None = None  # of the newest reading
    elapsed_ms: int = 0  # when it came, by the clock that only goes on
    seen: int = 0  # readings in a row without a gap
    fresh: int = 0  # of those, how many the predictions look back on
    last: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    before: Floats = field(default_factory=lambda: np.zeros(0))
    drift: Floats = field(default_factory=lambda: np.zeros(0))
    tainted: str = ""  # a sensor whose bad reading the samples still hold
    taint: int = 0  # for so many readings more
    tainted_for: int = 0  # of so many in all
    score: float | None = None
    expected: float | None = None
    equal: int = 1  # equal scores in a row
    flood: float = 0.0  # smoothed share of alarms
    frame: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """Return the memory as plain data; of a picture nothing is kept."""
        made: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        return made | {name: getattr(self, name).tolist() for name in _ARRAYS}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Track":
        """Return the memory that `to_json` has told.

        Raises:
            KeyError: When something is missing; `Envelope.restore` turns it into a problem.
        """
        made: dict[str, Any] = {name: body[name] for name in _PLAIN}
        for name in _ARRAYS:
            made[name] = np.array(body[name], dtype=np.float64)
        return cls(**made)
