"""The seams: what a task, an engine, a source, a target, a trigger and an executor must do.

Each protocol has a contract kit in `genba.testing` that any implementation can be run through.
Rows travel as columns: a mapping from column name to a numpy array, all of one length. That is
the whole of what a task sees of the data layer, so a task needs neither Polars nor Arrow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy.typing as npt

from genba.core.line import Data, Limits, Line
from genba.core.values import DatasetVersion, Measure

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]
Tensors = Mapping[str, Array]
Predict = Callable[[Tensors], dict[str, Array]]
JsonObject = Mapping[str, Any]


class View(Protocol):
    """A dataset version as a task reads it: by split, in chunks, never all at once.

    A chunk holds consecutive rows of one entity in the order of time, with these columns:
    `entity` (int32, index into `entities`), `time` (int64, ms since 1970 UTC; a count such as a
    cycle, or the row's number, where the data has no clock), `row` (int64, unique in the dataset),
    `label` (float64: 0 normal, 1 anomaly or class number, NaN unknown) and every input and output
    as float64 with NaN for missing.

    A chunk of images has, besides these, `image` (object: the file's bytes, JPEG or PNG), `mask`
    (object: bytes of a grey PNG that is not zero where the defect is, or None) and `name` (object:
    the file it came from). Chunks of images are small, whatever `rows` asks for.

    A chunk of texts has, besides the first four, all as objects of text: `messages` (a JSON list of
    `role` and `content` up to the last message of the user; "[]" of plain text), `text` (that
    message, "" of plain text), `answer` (of plain text, the text itself; "" where there is none),
    `rejected` (an answer that was not preferred, or ""), `name` (where it came from:
    `faq.jsonl:12`, `feedback:ID`), and `weight` (float64: how much it counts, usually 1).
    """

    digest: str
    line: Line
    entities: tuple[str, ...]
    sensors: tuple[str, ...]  # inputs in the order of the line, then the output if there is one
    modality: str  # "table", "image" or "text"
    classes: tuple[str, ...]  # what the labels 0, 1, 2, ... mean; () where they are plain numbers

    @property
    def has_clock(self) -> bool:
        """Whether `time` is a time; otherwise it is a count, such as a cycle, or a row number."""
        ...

    def chunks(self, split: str, *, rows: int = 65_536) -> Iterator[Columns]:
        """Yield the rows of "train", "calibrate" or "test" in chunks of at most `rows` rows."""
        ...

    def count(self, split: str) -> int:
        """Return the number of rows in a split."""
        ...

    def ends(self) -> Array:
        """Return when each entity's life ended (float64 [entities], as `time`), NaN if it did not.

        Where any row is labelled, the first row labelled 1 is the end; where the data has no label
        at all, every entity ran to failure and its last row is the end.
        """
        ...

    def sheet(self) -> JsonObject:
        """Return the dataset sheet."""
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
class Layout:
    """One way for an engine to spread a graph over cores; none of them changes an answer."""

    settings: JsonObject  # what the engine is opened with
    runners: int  # batches that may be computed at the same time


@runtime_checkable
class Spreads(Protocol):
    """An engine that can be spread over cores in several ways, for a server to try; optional."""

    @classmethod
    def layouts(cls, settings: JsonObject, cores: int) -> Sequence[Layout]:
        """Return the ways worth trying for a package's settings, the simplest first."""
        ...


class Lowering(Protocol):
    """Another form of a graph, made with samples: in 8-bit integers. An entry of the catalog."""

    @staticmethod
    def lower(model: bytes, samples: Sequence[Tensors]) -> bytes | None:
        """Return the graph in that form, None when it would not gain by it.

        Args:
            model: The graph, ONNX.
            samples: Batches to calibrate it on; never of the test set.
        """
        ...


@runtime_checkable
class Lowers(Protocol):
    """An engine that may gain from other forms of a graph; optional."""

    @classmethod
    def lowered(cls) -> Mapping[str, JsonObject]:
        """Return the settings worth trying by the name of the lowering they are for."""
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


class Modality(Protocol):
    """A kind of data: how it is taken in, continued and checked. An entry of the catalog."""

    @staticmethod
    def ingest(source: Source, line: Line, store: Any, progress: Any, **how: Any) -> DatasetVersion:
        """Read a source into a new dataset version.

        Args:
            source: Where the rows come from.
            line: What they mean.
            store: Where they go.
            progress: Who is told how far it is.
            how: `parent` (an earlier version of the line, or None) and `split_by` (of the task).
        """
        ...

    @staticmethod
    def parent(store: Any, version: DatasetVersion) -> Any:
        """Return what `ingest` needs to know of an earlier version to continue it."""
        ...

    @staticmethod
    def extend(
        store: Any, line: Line, version: DatasetVersion, captures: Any, lessons: Any
    ) -> DatasetVersion:
        """Continue a version with captured predictions and what people said about them.

        Args:
            store: Where captures and segments are.
            line: Names the task, whose `rows` and `teach` are used.
            version: The version to continue.
            captures: Records of captured predictions.
            lessons: `genba.core.task.Lesson`s.
        """
        ...

    @staticmethod
    def refuse_leakage(view: View) -> None:
        """Refuse a version whose splits share what they must not; raises a Problem G2xx."""
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
