"""The line file as frozen values: purpose, limits and budget are stated, the rest is derived."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What one column must satisfy; a row that fails is rejected, counted and kept."""

    min: float | None = None
    max: float | None = None
    allowed: tuple[str, ...] | None = None
    required: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """How rows are divided; rows of one moment or one entity never fall on both sides."""

    by: Literal["time", "entity", "random"] | None = None  # derived: time where there is a clock
    test: float = 0.2
    calibrate: float = 0.2
    holdout: tuple[str, ...] = ()  # entities that only the test set may see


@dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """Another source whose newest values are put into each row, by time; columns: NAME.COLUMN."""

    source: str
    within_s: float  # older values are not used; the row's are missing then
    time: str | None = None  # derived: as data.time; "ts +01:00" where its clock shows UTC + 1 h


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Where the rows come from and what their columns mean."""

    source: str
    time: str | None = None
    entity: str | None = None
    inputs: tuple[str, ...] = ()  # derived: every numeric column that has no other meaning
    output: str | None = None
    known: tuple[str, ...] = ()  # inputs whose future is known when asked: calendar, weather
    label: str | None = None
    image: str | None = None  # of a manifest: the column that names the image file
    mask: str | None = None  # of a manifest: the column that names the mask file
    since: str | None = None  # ISO 8601; rows before are not read
    until: str | None = None  # ISO 8601; rows from here on are not read
    entities: tuple[str, ...] = ()  # derived: all
    checks: Mapping[str, Check] = field(default_factory=dict)
    split: Split = field(default_factory=Split)
    join: Mapping[str, Join] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much may be spent on training; what is found by then is what there is."""

    minutes: float = 1.0
    trials: int = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Training settings."""

    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    candidates: tuple[str, ...] = ()  # derived: every candidate of the task


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A gate: the measure must lie between the two."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the target allows for one prediction."""

    latency_ms_p99: float | None = None
    memory_mib: float | None = None
    energy_mj: float | None = None
    size_mib: float | None = None  # of the graph as it is packaged
    cost_usd_per_1k: float | None = None  # a thousand predictions, one after the other


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The device the package is for."""

    device: str = "this-machine"
    engines: tuple[str, ...] = ()  # derived: every engine that is installed
    limits: Limits = field(default_factory=Limits)
    prefer: Literal["cpu", "latency", "energy", "size", "cost", "quality"] = "cpu"
    measurements: int = 15  # that `genba codesign` may make; a run makes fewer


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """What is kept of predictions in service; they are all counted, whatever is kept."""

    inputs: Literal["all", "digest", "none"] = "all"
    sample: float = 1.0  # share whose rows are kept; alarms and errors always are


@dataclass(frozen=True, kw_only=True, slots=True)
class RollBackOn:
    """What a model in service may not exceed; measured over the newest window."""

    error_rate: float = 0.01
    latency_ms_p99: float = 50.0
    not_a_number_rate: float = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """How a new package reaches production, and who decides."""

    decide: Literal["observe", "ask", "auto"] = "ask"
    canary: float = 0.1
    decide_after: int = 500  # predictions of the canary
    roll_back_on: RollBackOn = field(default_factory=RollBackOn)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrain:
    """When to train a challenger; each key names a trigger of the catalog."""

    when: Mapping[str, float] = field(default_factory=dict)
    label_noise: float = 0.1  # feedback estimated to be noisier than this is not trained on


@dataclass(frozen=True, kw_only=True, slots=True)
class Safety:
    """The safety envelope of an edge package; docs/edge/safety.md says what is watched."""

    fallback: tuple[Literal["last_good_model", "rule", "fixed", "abstain", "stop"], ...] = ()
    value: Mapping[str, float] = field(default_factory=dict)  # of the fallback `fixed`, by output
    limits: Mapping[str, float] = field(default_factory=dict)  # failure rates and times
    accept: tuple[str, ...] = ()  # cells of the fault matrix that stay a risk, and are known to


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One capability from raw data to the deployed model and back.

    Example:
        >>> Line(name="pump", task="sensor.anomaly", data=Data(source="files:pump.csv")).train.seed
        0
    """

    name: str
    task: str
    data: Data
    options: Mapping[str, Any] = field(default_factory=dict)  # those that the task declares
    train: Train = field(default_factory=Train)
    gates: Mapping[str, Limit] = field(default_factory=dict)
    target: Target = field(default_factory=Target)
    rollout: Rollout = field(default_factory=Rollout)
    capture: Capture = field(default_factory=Capture)
    retrain: Retrain = field(default_factory=Retrain)
    safety: Safety = field(default_factory=Safety)
