"""The nouns of the ledger as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Method = Literal["measured", "estimated", "modelled"]
Role = Literal["stable", "canary", "shadow"]

#: What a tensor is for, so that no part of the house needs to know the task behind it.
ROLES: Final = {
    # inputs
    "feature": "numbers to predict from; captured, watched for drift",
    "image": "pixels, UINT8 [-1, height, width, 3] RGB; may be sent as JPEG or PNG; bytes captured",
    "text": "BYTES, UTF-8; captured",
    "given": "BYTES, UTF-8, may be left out: an answer to be scored in place of one being written",
    "entity": "index of the entity, -1 for an unknown one; may be sent as a name",
    "time": "milliseconds since 1970 UTC",
    "parameter": "FP32 [-1], changeable while in service; `default` where nobody says otherwise",
    # outputs
    "score": "how unusual, 1.0 = at the threshold",
    "alarm": "BOOL: the score is above the threshold",
    "expected": "a predicted value",
    "low": "lower end of the interval of `expected`",
    "high": "upper end of the interval of `expected`",
    "class": "INT64: index into the classes, -1 where the model abstains",
    "probability": "of every class",
    "map": "per pixel or patch, on the scale of the score; not captured",
    "mask": "BOOL per pixel or patch; not captured",
    "embedding": "what the sample looks like, for neighbours, novelty and label noise",
    "look": "a few plain statistics of the sample, watched for drift",
    "confidence": "FP32, mean natural logarithm of the probability per token",
    "count": "of tokens and such; captured",
    "origin": "BYTES: who answered, from what; captured",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A number with its unit, its interval and how it was obtained.

    `low` and `high` bound a 95 % interval where one is known.
    """

    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    method: Method = "measured"
    n: int | None = None

    def __str__(self) -> str:
        """Return the number as people write it: value, unit and interval."""
        text = f"{self.value:.4g}{' ' + self.unit if self.unit else ''}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:.4g} to {self.high:.4g}]"
        return text if self.method == "measured" else f"{text} ({self.method})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """What something cost: seconds are measured, the rest says how it is known."""

    seconds: float
    cpu_seconds: float
    joules: Measure
    cost_usd: Measure
    carbon_g: Measure


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """One gate and how the model did on it."""

    name: str
    passed: bool
    measure: Measure
    limit: str  # as people write it, "at least 0.95"
    reason: str  # one sentence, also when passed


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a model may go on; `gates` are sorted with the hardest failure first."""

    passed: bool
    gates: tuple[GateResult, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the gates that were missed, hardest limit first."""
        return tuple(g.reason for g in self.gates if not g.passed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """An immutable piece of a dataset: one Parquet blob."""

    digest: str
    rows: int
    origin: str  # "source", or "live" for rows captured from serving
    first_time_ms: int | None = None
    last_time_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetVersion:
    """An ordered list of segments; its id is the digest of that list and the schema."""

    id: str
    line: str
    segments: tuple[Segment, ...]
    entities: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int
    rejected: Mapping[str, int]  # reason -> rows
    sheet: str  # blob: the dataset sheet as JSON
    classes: tuple[str, ...] = ()  # what the labels 0, 1, 2, ... mean; () where they are numbers
    rejects: str | None = None  # blob: the rejected rows with their reasons, Parquet
    parent: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One named input or output of a package, in the words of the Open Inference Protocol."""

    name: str
    datatype: str  # FP32, INT64, BOOL, BYTES, ...
    shape: tuple[int, ...]  # -1 for the batch
    role: str = "feature"  # see ROLES
    unit: str = ""
    default: float | None = None  # of a parameter: what holds where nobody says otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What a package takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChoice:
    """A runtime and its settings, as chosen by measurement."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageFile:
    """A file of a package."""

    digest: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What is deployed: a content-addressed list of files and how to run them.

    The package id is the digest of this manifest, so no byte of it can change unnoticed.
    """

    format: int
    line: str
    task: str
    model: str  # model version id
    run: str
    dataset: str
    engine: EngineChoice
    signature: Signature
    settings: Mapping[str, Any]  # of the task: lags, sensors, thresholds, drift reference, ...
    entities: tuple[str, ...]
    files: Mapping[str, PackageFile]
    verdict: Verdict
    classes: tuple[str, ...] = ()  # what the labels 0, 1, 2, ... mean; () where they are numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One entry of the ledger's chain."""

    seq: int
    time_ms: int
    kind: str
    line: str
    subject: str
    body: Mapping[str, Any]
    previous: str
    digest: str
