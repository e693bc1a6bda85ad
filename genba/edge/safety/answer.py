"""What goes into a safety envelope and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from genba.core.protocols import Array, Tensors

STATEMENT: Final = "not a safety-rated function"

Action = Literal["model", "last_good_model", "rule", "fixed", "abstain", "stop"]

#: The layers in the order in which they look at a reading, and what each is for.
LAYERS: Final = {
    "schema": "the reading has the names, shapes and types of the interface, and can be read",
    "range": "every sensor reads, and within its range",
    "time": "the reading is fresh, and is not the one before; the clock makes sense",
    "cold": "the envelope has seen enough since it started to judge",
    "unusual": "the reading is like those that the model has learned from (conformal p-value)",
    "stuck": "no sensor repeats itself longer than it ever did",
    "predicted": "the reading is near what the readings before it promise",
    "cross": "the sensors agree with each other",
    "deadline": "the answer came in time",
    "model": "the model answers as it did when it was made",
    "abstain": "the answer is sure enough to act on",
    "rate": "the answer moves no faster than it ever did",
}
#: Doubts about the reading or the sureness, not about the model: an alarm is not held back by them.
DOUBTS: Final = frozenset(
    {"unusual", "stuck", "predicted", "cross", "rate", "abstain", "cold", "deadline"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One reading, assembled for the package.

    Args:
        tensors: A batch of one as `Predictor.predict` takes it; None where none could be made.
        time_ms: When it was read, ms since 1970 UTC (or a count where the data has no clock).
        entity: Whose reading it is; each has a history of its own.
        size: Width and height of the image file in pixels, before it was decoded.
        fault: Why there are no tensors, for instance the code of the problem that decoding raised.
    """

    tensors: Tensors | None
    time_ms: int
    entity: str = ""
    size: tuple[int, int] | None = None
    fault: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trip:
    """One layer that said no.

    `part` is what it suspects: `sensor:NAME`, `input` (all of it), `model`, or nothing. `holds`
    says whether the model's answer may not be acted on because of it.
    """

    cause: str  # short and stable, `stuck:Ws_avg`
    layer: str  # see LAYERS
    detail: str  # numbers, for people
    time_ms: int
    part: str = ""
    holds: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Answer:
    """What may be acted on.

    Args:
        outputs: A batch of one; None where nobody but a person may decide (`abstain`, `stop`).
        action: Who answered.
        trips: Every layer that said no, in the order of the layers.
        suspect: What the model said where that must not be acted on.
    """

    outputs: Mapping[str, Array] | None
    action: Action
    trips: tuple[Trip, ...] = ()
    suspect: Mapping[str, Array] | None = None
