"""The seams: what a task, an engine, a source, a target, a trigger and an executor must do.

Each protocol has a contract kit in `genba.testing` that any implementation can be run through.
Rows travel as columns: a mapping from column name to a numpy array, all of one length. That is
the whole of what a task sees of the data layer, so a task needs neither Polars nor Arrow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from genba.core.line import Data, Limits, Line
from genba.core.values import Measure, Signature

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]
Tensors = Mapping[str, Array]
Predict = Callable[[Tensors], dict[str, Array]]
JsonObject = Mapping[str, Any]


class View(Protocol):
    """A dataset version as a task reads it: by split, in chunks, never all at once.

    A chunk holds consecutive rows of one entity in the order of time, with these columns:
    `entity` (int32, index into `entities`), `time` (int64, ms since 1970 UTC; the row's number
    where the data has no clock), `row` (int64, unique in the dataset), `label` (float64: 0 normal,
    1 anomaly or class number, NaN unknown) and every input and output as float64 with NaN for
    missing. Columns of other types (text, image digests) keep their own dtype.
    """

    digest: str
    line: Line
    entities: tuple[str, ...]
    sensors: tuple[str, ...]  # inputs in the order of the line, then the output if there is one
    has_clock: bool

    def chunks(self, split: str, *, rows: int = 65_536) -> Iterator[Columns]:
        """Yield the rows of "train", "calibrate" or "test" in chunks of at most `rows` rows."""
        ...

    def count(self, split: str) -> int:
        """Return the number of rows in a split."""
        ...

    def sheet(self) -> JsonObject:
        """Return the dataset sheet."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A trained model as plain data: what was chosen, how it was set, its arrays."""

    candidate: str
    settings: Mapping[str, Any]  # everything the graph needs besides arrays; JSON
    arrays: Mapping[str, Array]
    trials: Sequence[JsonObject] = ()  # what the search tried, with its numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Rows turned into what a package takes."""

    tensors: Tensors  # named and shaped as the signature's inputs
    entity: Array  # int32 [N]
    time: Array  # int64 [N]
    row: Array  # int64 [N]
    label: Array  # float64 [N]
    truth: Array  # float64 [N, outputs]: what a prediction is compared with


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How a model did on a split."""

    measures: Mapping[str, Measure]
    evidence: Mapping[str, Array] = field(default_factory=dict)  # per sample: row, loss, alarm, ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A paired difference, challenger minus champion, with its interval; smaller loss is better."""

    name: str
    where: str  # "frozen test set" or "newest window"
    difference: Measure
    worse: bool  # the interval says that the challenger is worse than the margin allows
    better: bool  # the interval says that it is better
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How far an exported graph in an engine is from the reference."""

    decision_agreement: float  # 0..1
    max_error: float  # largest relative difference of any output
    samples: int
    passed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribution:
    """How much one input contributed to one prediction; the shares add up to 1."""

    name: str
    share: float
    value: float  # what was read
    usual: float  # what the model would have expected


class Task(Protocol):
    """A kind of capability."""

    name: ClassVar[str]
    uses: ClassVar[tuple[str, ...]]  # packages whose source decides its numbers; part of stage keys

    def derive(self, line: Line, view: View) -> dict[str, Any]:
        """Derive every setting the line leaves open, as JSON that is printed and recorded."""
        ...

    def signature(self, settings: JsonObject) -> Signature:
        """Return the inputs and outputs of a package with these settings."""
        ...

    def samples(self, columns: Columns, settings: JsonObject) -> Samples:
        """Turn consecutive rows of one entity into samples."""
        ...

    def fit(self, view: View, settings: JsonObject, effort: Any) -> Model:
        """Search, train and calibrate. `effort` is a `genba.runs.effort.Effort`."""
        ...

    def reference(self, model: Model) -> Predict:
        """Return the model as a numpy function, the yardstick of every exported form."""
        ...

    def export(self, model: Model) -> bytes:
        """Return the model as ONNX with pre- and post-processing inside the graph."""
        ...

    def score(self, predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
        """Measure any form of the model on a split, with intervals."""
        ...

    def baselines(self, view: View, settings: JsonObject) -> Mapping[str, Scores]:
        """Measure well-known methods on the same split, for the report. May be empty."""
        ...

    def compare(self, champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
        """Compare two models sample by sample on the same rows."""
        ...

    def parity(self, reference: Tensors, exported: Tensors) -> Parity:
        """Compare the outputs of the exported graph with the reference, decision by decision."""
        ...

    def drift_reference(self, predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
        """Return what watching needs to notice drift: JSON, stored in the package."""
        ...

    def label(self, correction: str) -> float:
        """Turn what a person said into the label of a sample; raises Problem G801 if it cannot."""
        ...

    def explain(
        self, predict: Predict, tensors: Tensors, settings: JsonObject
    ) -> tuple[Attribution, ...]:
        """Say which inputs caused the score of one prediction (batch of one), largest first."""
        ...


class Engine(Protocol):
    """An inference runtime with one package loaded."""

    name: ClassVar[str]

    def __init__(self, model: bytes, settings: JsonObject) -> None:
        """Load a graph; raises Problem G601 when this runtime cannot run it."""
        ...

    @classmethod
    def candidates(cls, cores: int) -> Sequence[JsonObject]:
        """Return the settings worth measuring on a machine with so many cores."""
        ...

    @classmethod
    def version(cls) -> str:
        """Return the version of the runtime."""
        ...

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run a batch."""
        ...

    def close(self) -> None:
        """Free what the runtime holds."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """What is known about a source before a row is read."""

    fingerprint: str  # digest of the content; equal content, equal fingerprint
    location: str
    bytes: int
    licence: str = "not stated"
    attribution: str = ""
    generated: bool = False  # made by a program, not measured in the world


class Source(Protocol):
    """A place rows come from."""

    def __init__(self, address: str, data: Data) -> None:
        """Take the part of `data.source` after the colon."""
        ...

    def facts(self) -> SourceFacts:
        """Fetch what must be fetched (with progress) and describe it."""
        ...

    def batches(self, cursor: JsonObject | None = None) -> Iterator[tuple[Any, JsonObject]]:
        """Yield (Arrow record batch, cursor after it); start behind `cursor` if one is given."""
        ...


class Device(Protocol):
    """A target: where a package will run."""

    def facts(self) -> JsonObject:
        """Return what is known of the device: processor, cores, memory, runtimes."""
        ...

    def measure(self, engine: Engine, tensors: Tensors) -> Mapping[str, Measure]:
        """Measure one engine: latency_ms_p50, latency_ms_p99, cpu_ms, memory_mib, energy_mj."""
        ...

    def fits(self, measures: Mapping[str, Measure], limits: Limits) -> tuple[str, ...]:
        """Return one sentence per limit that is exceeded, hardest first."""
        ...


class Trigger(Protocol):
    """A reason to train a challenger, a pure function of the folded ledger."""

    def reason(self, state: Any, threshold: float, now_ms: int) -> str | None:
        """Say why to retrain now in one sentence, or None; `state` is a `loop.state.LineState`."""
        ...


class Executor(Protocol):
    """Where a stage runs: in this process, in a child process, later on a cluster."""

    def run(self, function: str, payload: JsonObject) -> JsonObject:
        """Run "module:function" on JSON and return JSON; a Problem crosses unchanged."""
        ...
