"""How long a unit will last: predictive maintenance from histories of units that ran to failure.

Every row of a unit is a sample: a window of its newest readings and its age. The answer is the
remaining life in cycles with an interval, and an alarm where stopping costs less than waiting.
Real histories are rare; see `docs/errors/G545.md` for what is needed. Lives that have not ended
are used for what they say: that they were longer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from genba.core.line import Limit, Line
from genba.core.protocols import Array, Columns, JsonObject, Predict, Tensors, View
from genba.core.task import (
    Comparison,
    Explanation,
    Model,
    Option,
    Parity,
    Recovered,
    Samples,
    Scores,
    Task,
)
from genba.core.values import Measure, Signature
from genba.learn.absent import absences, blanked
from genba.runs.effort import Effort
from genba.tasks.sensor.remaining_life import (
    baselines,
    compare,
    drift,
    example,
    explain,
    export,
    fit,
    parity,
    schema,
    score,
    service,
)
from genba.tasks.sensor.remaining_life.absent import watched
from genba.tasks.sensor.remaining_life.model import Estimator

__all__ = ["SensorRemainingLife"]


class SensorRemainingLife(Task):
    """The task `sensor.remaining_life`; each method is a function of one file of this folder."""

    name: ClassVar[str] = "sensor.remaining_life"
    uses: ClassVar[tuple[str, ...]] = ("genba.tasks.sensor.remaining_life", "genba.learn")
    split_by: ClassVar[str | None] = "entity"
    options: ClassVar[Mapping[str, Option]] = schema.OPTIONS
    main: ClassVar[Mapping[str, bool]] = {"rmse": False}

    @staticmethod
    def suggest(line: Line, classes: Sequence[str] = ()) -> Line:  # noqa: ARG004  # of the seam
        """State the options worth thinking about, and gates that a useful model passes."""
        stated = {
            name: schema.OPTIONS[name].default for name in ("cap", "cost_missed", "cost_stop")
        }
        gates = {"coverage": Limit(min=0.8), "missed_failures": Limit(max=0.2)}
        return replace(line, options={**stated, **line.options}, gates={**gates, **line.gates})

    def derive(self, line: Line, view: View) -> dict[str, Any]:
        """Derive every setting the line leaves open, as JSON that is printed and recorded."""
        return schema.derive(line, view)

    def signature(self, settings: JsonObject) -> Signature:
        """Return the inputs and outputs of a package with these settings."""
        return schema.signature(settings)

    def samples(self, columns: Columns, settings: JsonObject) -> Samples:
        """Turn consecutive rows of one unit into samples; their truth is not in the rows (NaN)."""
        return schema.samples(columns, settings)

    def fit(self, view: View, settings: JsonObject, effort: Effort) -> Model:
        """Search, train and calibrate."""
        return fit.fit(view, settings, effort)

    def reference(self, model: Model) -> Predict:
        """Return the model as a numpy function, the yardstick of every exported form."""
        return Estimator(model)

    def export(self, model: Model) -> bytes:
        """Return the model as ONNX with pre- and post-processing inside the graph."""
        return export.export(model)

    def score(self, predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
        """Measure any form of the model on a split, with intervals over units."""
        return score.score(predict, view, split, settings)

    def baselines(self, view: View, settings: JsonObject) -> Mapping[str, Scores]:
        """Measure what age and newest readings say, and what maintenance costs without a model."""
        return baselines.baselines(view, settings)

    def compare(self, champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
        """Compare two models sample by sample on the same rows, with intervals over units."""
        return compare.compare(champion, challenger, where)

    def parity(self, reference: Tensors, exported: Tensors) -> Parity:
        """Compare the outputs of the exported graph with the reference, decision by decision."""
        return parity.parity(reference, exported)

    def drift_reference(self, predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
        """Return what watching needs to notice drift: JSON, stored in the package."""
        return drift.drift_reference(predict, view, settings)

    def label(self, correction: str, classes: Sequence[str] = ()) -> float:  # noqa: ARG002  it has no classes
        """Turn what a person said into the label of a sample; raises Problem G801 if it cannot."""
        return schema.label(correction)

    def corrections(self, classes: Sequence[str] = ()) -> tuple[str, ...]:  # noqa: ARG002  as above
        """Return the two words that people need; a number of cycles is understood as well."""
        return schema.WORDS

    def rows(self, tensors: Tensors, settings: JsonObject) -> Recovered:
        """Find the rows of data again in what a package was given."""
        return schema.rows(tensors, settings)

    def outcome(self, outputs: Mapping[str, Any], label: float, settings: JsonObject) -> str:
        """Say how a failure, a needless stop or an inspected life judges an answer."""
        return service.outcome(outputs, label, settings)

    def uncertainty(self, outputs: Tensors, settings: JsonObject) -> Array:
        """Return how unsure each decision is: whether the interval holds the alarm point."""
        return service.uncertainty(outputs, settings)

    def embed(self, tensors: Tensors, outputs: Tensors, settings: JsonObject) -> Array:
        """Return how far sensors are from usual, where they are heading, and the predicted life."""
        return service.embed(tensors, outputs, settings)

    def absences(self, settings: JsonObject) -> Mapping[str, tuple[str, ...]]:
        """Return every sensor that the model looks at; what it left aside changes nothing."""
        return absences(watched(settings), settings)

    def without(self, tensors: Tensors, sensors: Sequence[str], settings: JsonObject) -> Tensors:
        """Return windows in which these sensors were never read."""
        return blanked(tensors, sensors, {"window": settings["sensors"]})

    def explain(self, predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
        """Say which sensors shorten a predicted life, by their level or by their trend."""
        return explain.explain(predict, tensors, settings)

    def hindsight(self, seen: Columns, settings: JsonObject) -> Mapping[str, Measure]:
        """Measure what later requests, and a confirmed failure, show about earlier predictions."""
        return service.hindsight(seen, settings)

    @staticmethod
    def example(folder: Path) -> Line:
        """Write generated histories without a header and return a line that reads them."""
        return example.example(folder)

    @staticmethod
    def disturbed(tensors: Tensors) -> Tensors:
        """Return windows in which every sensor reads too high."""
        return example.disturbed(tensors)
