"""The plan of a safety envelope: everything it checks, as JSON made by the factory.

The factory fits it from the rows that the model was trained and calibrated on (never the test
rows) and writes it into `safety.json` beside the evidence for it. A device only reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from genba.core.codec import decode
from genba.core.problem import Problem
from genba.core.values import Tensor

FORMAT: Final = 1
Numbers = tuple[float, ...]
Matrix = tuple[Numbers, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A sensor: where its newest reading stands in the tensors, and what is usual of it."""

    name: str
    tensor: str
    index: int  # in the flattened tensor
    low: float
    high: float
    declared: bool  # the range is the line's; else it is derived from the data
    unit: str = ""
    judged: bool = False  # the model itself says whether this reading is right
    longest: int = 0  # equal readings in a row from which on it counts as stuck; 0: not watched
    rest: float | None = None  # a value at which it stands still by nature, such as no wind
    longest_at_rest: int = 0  # equal readings at rest, likewise
    tolerated: bool = False  # without it the model was found to decide as with it


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """When a reading or an answer is too late."""

    ordered: bool  # readings follow each other in time
    step_ms: int | None = None
    stale_ms: int | None = None  # None: nobody stated one, not watched
    ahead_ms: int = 60_000  # a reading from further in the future: the clock or the stamp is wrong
    deadline_ms: float | None = None  # of one answer, inference and monitors
    history: int = 0  # readings before the newest that the model's decisions depend on
    holes: float = 0.0  # share of a sample's readings that may be missing; more: it is cold
    react: int = 6  # readings within which a fault must be noticed


@dataclass(frozen=True, kw_only=True, slots=True)
class Conformal:
    """Scores of calibration rows, thinned: the p-value of a new score is read off them.

    `at` ascends; `above[i]` is how many of the `count` calibration scores are at least `at[i]`.
    """

    at: Numbers
    above: tuple[int, ...]
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusual:
    """A score of strangeness with its calibration, pooled and per category (Mondrian)."""

    on: str  # "readings", or the name of an output (`look`, `embedding`)
    method: str  # "nearest" or "mahalanobis"
    alpha: float  # a p-value below it trips
    matrix: Matrix  # nearest: [M, D + 1] of 2 p and -|p|^2; mahalanobis: [D, D] whitening
    center: Numbers = ()
    pooled: Conformal
    by: str = ""  # "class", "entity" or "": what the categories are
    categories: Mapping[str, Conformal] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plausible:
    """Linear predictions of every reading: from the other sensors now, from the readings before.

    Features: 1, the standardised readings z, their products z_i z_j (i <= j), then the readings of
    the `history` steps before, newest first. A threshold of 0 says that the prediction is not good
    enough to be used.
    """

    center: Numbers
    scale: Numbers
    history: int
    weights: Matrix  # [features, 2 C]: from the others, then from before
    cross: Numbers  # [C] largest residual
    before: Numbers  # [C]
    drift: Numbers  # [C] largest smoothed residual of `cross`
    smooth: float  # weight of the newest residual


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What is usual of answers."""

    alarm: str = ""  # output names by role; "" where there is none
    score: str = ""
    expected: str = ""
    chosen: str = ""  # the class
    probability: str = ""
    margin: float = 0.0  # |log(score)| below it is too near the threshold to act on
    floor: float = 0.0  # probability of the answer below it, likewise
    most_step: float = 0.0  # largest change of `expected` from one reading to the next; 0: any
    longest: int = 0  # equal scores in a row; 0: not watched
    flood: float = 0.0  # largest smoothed share of alarms; 0: not watched
    check_every: int = 0  # readings from one known answer that is asked for to the next; 0: never


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A small decision tree over the readings that are left; leaves have feature -1."""

    inputs: tuple[str, ...]
    output: str
    feature: tuple[int, ...]
    threshold: Numbers
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: Numbers
    agreement: float  # with the model's decisions, on rows that neither was fitted on


@dataclass(frozen=True, kw_only=True, slots=True)
class Fallback:
    """Who answers instead of the model, first come, first asked."""

    chain: tuple[str, ...] = ("abstain",)
    value: Mapping[str, float] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)  # by the sensor it does without


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What is usual of image files."""

    tensor: str
    sizes: tuple[tuple[int, ...], ...] = ()  # widths and heights that were seen; (): of any size
    stride: int = 97  # pixels compared with the frame before: every so many


@dataclass(frozen=True, kw_only=True, slots=True)
class SafetyPlan:
    """What an envelope does. Not a safety-rated function."""

    format: int = FORMAT
    line: str
    package: str
    inputs: tuple[Tensor, ...]
    channels: tuple[Channel, ...] = ()
    timing: Timing
    unusual: tuple[Unusual, ...] = ()
    plausible: Plausible | None = None
    answers: Answers = field(default_factory=Answers)
    fallback: Fallback = field(default_factory=Fallback)
    picture: Picture | None = None


def read_plan(body: Mapping[str, Any]) -> SafetyPlan:
    """Return the plan in a safety manifest, or the plan itself.

    Args:
        body: `safety.json` as JSON, or the value of its key `plan`.

    Raises:
        Problem: G599 when it is no plan, or of a newer format.
    """
    found: Any = body.get("plan", body)
    version = found.get("format") if isinstance(found, Mapping) else None
    if version != FORMAT:
        raise unreadable(f"Its format is {version!r}; this version reads format {FORMAT}.")
    try:
        return decode(SafetyPlan, found)
    except Problem as problem:
        raise unreadable(problem.what) from problem


def unreadable(why: str) -> Problem:
    """Return the problem of a plan that cannot be used."""
    return Problem(
        "G599",
        "The plan of the safety envelope cannot be used.",
        where="safety.json",
        why=why,
        tries=["genba safety LINE", "genba explain G599"],
    )
