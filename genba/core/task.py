"""The seam that matters most: what a kind of capability must do, and the values it trades in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from genba.core.line import Line
from genba.core.protocols import Array, Columns, JsonObject, Predict, Tensors, View
from genba.core.values import Measure, Signature


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A setting of `[options]` in the line file that a task understands."""

    about: str  # one line, with the unit
    default: Any  # its type is the type that is asked for; a list: of such elements
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """What people agreed on about one prediction or moment."""

    value: str  # as it was said
    label: float  # what `Task.label` makes of it
    prediction: str | None = None
    entity: str | None = None
    time_ms: int | None = None
    mask: bytes | None = None  # grey PNG: not zero where somebody marked a region
    authors: tuple[str, ...] = ()  # who said so, sorted
    feedback: tuple[str, ...] = field(default=(), compare=False)  # ids of its rows, sorted


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """Rows of data found again in what packages were given."""

    columns: Columns  # sensors as float64, or image; all of one length
    of: Array  # int64: index of the prediction each row was found in
    steps_back: Array  # int64: how many steps before the prediction's time the row is; 0 = its own


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Why a prediction came out as it did."""

    attributions: tuple[Attribution, ...]  # largest first; the shares add up to 1
    heat: Array | None = None  # float32 [height, width]: 1.0 = at the threshold


class Task(Protocol):
    """A kind of capability. Subclass it: what has a body here need not be written again."""

    name: ClassVar[str]
    uses: ClassVar[tuple[str, ...]]  # packages whose source decides its numbers; part of stage keys
    modality: ClassVar[str] = "table"  # of its data: an entry of `catalog.MODALITIES`
    split_by: ClassVar[str | None] = None  # how rows are divided where neither line nor clock says
    options: ClassVar[Mapping[str, Option]] = {}  # what `[options]` of the line may hold
    embeds_answers: ClassVar[bool] = True  # whether `embed` looks at what was answered
    #: What says how good a model is, the most telling first; whether larger is better.
    main: ClassVar[Mapping[str, bool]] = {}

    @staticmethod
    def suggest(line: Line, classes: Sequence[str] = ()) -> Line:  # noqa: ARG004  # of the seam
        """Complete a line that was guessed from a look at the data; by default it stays as it is.

        The place for gates that a useful model passes and for options worth stating.

        Args:
            line: As guessed.
            classes: Of images, the good one first; none of tables.
        """
        return line

    @staticmethod
    def variants(line: Line) -> Mapping[str, Mapping[str, Any]]:  # noqa: ARG004  # of the seam
        """Return other sizes of the model that a search may train: name -> options to change.

        The cheapest to train first; by default none.
        """
        return {}

    def refit(self, model: Model, predict: Predict, view: View) -> Model | None:
        """Fit the threshold again, to what an exported form of the model answers.

        A form in fewer bits scores a little higher or lower everywhere; a threshold from the
        calibration split, as that form sees it, keeps what was promised.

        Args:
            model: As it was trained.
            predict: The exported form; it answers what the signature says.
            view: The dataset; the test split is not touched.

        Returns:
            The model with its new threshold, from which the graph is exported again; None where
            a task has no threshold, the default.
        """
        return None

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

    def label(self, correction: str, classes: Sequence[str] = ()) -> float:
        """Turn what a person said into the label of a sample; raises Problem G801 if it cannot.

        Args:
            correction: As it was said: "anomaly", "scratch", "12.5", "failed".
            classes: Of the dataset; a class that is not among them may be refused.
        """
        ...

    def corrections(self, classes: Sequence[str] = ()) -> tuple[str, ...]:
        """Return words that `label` understands, the commonest first, to show to people."""
        return tuple(classes)

    def teach(self, columns: Columns, lessons: Sequence[Lesson]) -> Columns:
        """Say how lessons change the rows that were served: by default, the row's label.

        Args:
            columns: Rows of one entity in the order of time, as a chunk of the view, and
                `prediction` (object: id or None).
            lessons: Of this entity.

        Returns:
            The columns to keep, of the same length; those that changed are new arrays.
        """
        label = np.array(columns["label"], dtype=np.float64)
        for lesson in lessons:
            label[at_row(columns, lesson)] = lesson.label
        return {**columns, "label": label}

    def rows(self, tensors: Tensors, settings: JsonObject) -> Recovered:
        """Find the rows of data again in what a package was given: the inverse of `samples`."""
        ...

    def outcome(self, outputs: Mapping[str, Any], label: float, settings: JsonObject) -> str:
        """Say how a label judges an answer.

        Args:
            outputs: One row of the captured outputs.
            label: What people say.
            settings: Of the package.

        Returns:
            "confirmed", "false_alarms", "missed", "wrong" (any other mistake), or "" where the
            label says nothing about the answer.
        """
        if outputs.get("alarm") is None:
            return ""
        if outputs["alarm"]:
            return "confirmed" if label else "false_alarms"
        return "missed" if label else ""

    def uncertainty(self, outputs: Tensors, settings: JsonObject) -> Array:
        """Return how unsure each answer is, 0 to 1 [N]: what the labelling queue asks first.

        By default the nearness of the score to the threshold 1.
        """
        score = np.asarray(outputs["score"], dtype=np.float64)
        known = np.where(np.isfinite(score) & (score > 0), score, 0.0)
        inverse = np.divide(1.0, known, out=np.zeros_like(known), where=known > 0)
        return np.minimum(known, inverse)

    def embed(self, tensors: Tensors, outputs: Tensors, settings: JsonObject) -> Array:
        """Return what samples look like, float64 [N, D]: near each other = alike.

        Used for the nearest known cases of an explanation, for novelty and for label noise.

        Args:
            tensors: What the package was given; images may be left out.
            outputs: What it answered.
            settings: Of the package.
        """
        ...

    def explain(self, predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
        """Say what caused the answer to one prediction (a batch of one)."""
        ...

    def hindsight(self, seen: Columns, settings: JsonObject) -> Mapping[str, Measure]:
        """Measure what can only be known afterwards, over a stretch of served predictions.

        Args:
            seen: Every captured column of one entity in the order of time: `entity`, `time`,
                inputs and outputs, shaped as in the signature.
            settings: Of the package.

        Returns:
            Measures by name, such as `coverage`: how often the truth, as later requests show it,
            lay within the interval that was promised. By default none.
        """
        return {}

    def tune(self, measures: Mapping[str, Measure], settings: JsonObject) -> Mapping[str, float]:
        """Return parameters to set while in service, given `hindsight`; by default none.

        Args:
            measures: Of the newest window.
            settings: Of the package, with `parameters`: those that hold now.
        """
        return {}

    def absences(self, settings: JsonObject) -> Mapping[str, tuple[str, ...]]:
        """Return what may be missing in service, name -> sensors; by default nothing.

        How good a model is without each is measured.
        """
        return {}

    def without(self, tensors: Tensors, sensors: Sequence[str], settings: JsonObject) -> Tensors:
        """Return samples as if these sensors had not been read."""
        return tensors

    def files(self, model: Model) -> Mapping[str, bytes]:
        """Return what a package needs besides its graph, by file name; by default nothing."""
        return {}

    @staticmethod
    def example(folder: Path) -> Line:
        """Write a small generated dataset to the folder and return a line that reads it.

        For the contract kit and for people who want to see the task work: small enough to be
        trained in seconds, with anything the task can use (labels, masks, gaps).
        """
        ...

    @staticmethod
    def disturbed(tensors: Tensors) -> Tensors:
        """Return samples as if the world had changed (a worn sensor, a darker lamp), for drills."""
        ...


def at_row(columns: Columns, lesson: Lesson) -> Array:
    """Return which rows a lesson is about: the prediction's own, else those of its moment."""
    if lesson.prediction is not None:
        return np.flatnonzero(np.asarray(columns["prediction"]) == lesson.prediction)
    if lesson.time_ms is None:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.asarray(columns["time"]) == lesson.time_ms)
