"""Anomalies in sensor readings: what is unusual, given what is known, at a stated alarm rate.

With an output the model learns what the output normally is, given the inputs, and alarms on the
difference. Without one every sensor is explained by the others. See schema.py for what a sample
is, model.py for what is computed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from genba.core.line import Line
from genba.core.options import read_options
from genba.core.protocols import Array, Columns, JsonObject, Predict, Tensors, View
from genba.core.task import (
    Comparison,
    Explanation,
    Model,
    Parity,
    Recovered,
    Samples,
    Scores,
    Task,
)
from genba.core.values import Signature
from genba.learn.absent import blanked
from genba.runs.effort import Effort
from genba.tasks.sensor.anomaly import (
    baselines,
    compare,
    drift,
    embed,
    example,
    explain,
    export,
    fit,
    parity,
    schema,
    score,
)
from genba.tasks.sensor.anomaly.model import Detector

__all__ = ["SensorAnomaly"]


class SensorAnomaly(Task):
    """The task `sensor.anomaly`; each method is a function of one file of this folder."""

    name: ClassVar[str] = "sensor.anomaly"
    uses: ClassVar[tuple[str, ...]] = ("genba.tasks.sensor.anomaly", "genba.learn")

    main: ClassVar[Mapping[str, bool]] = {"r2": True, "f1": True, "injected_missed_rate": False}

    @staticmethod
    def suggest(line: Line, classes: Sequence[str] = ()) -> Line:  # noqa: ARG004  # of the seam
        """Add gates that a useful model passes, by what the line has."""
        return schema.suggest(line)

    def derive(self, line: Line, view: View) -> dict[str, Any]:
        """Derive every setting the line leaves open, as JSON that is printed and recorded."""
        return {**schema.derive(line, view), **read_options(self.options, line.options)}

    def signature(self, settings: JsonObject) -> Signature:
        """Return the inputs and outputs of a package with these settings."""
        return schema.signature(settings)

    def samples(self, columns: Columns, settings: JsonObject) -> Samples:
        """Turn consecutive rows of one entity into samples."""
        return schema.samples(columns, settings)

    def fit(self, view: View, settings: JsonObject, effort: Effort) -> Model:
        """Search, train and calibrate."""
        return fit.fit(view, settings, effort)

    def reference(self, model: Model) -> Predict:
        """Return the model as a numpy function, the yardstick of every exported form."""
        return Detector(model)

    def export(self, model: Model) -> bytes:
        """Return the model as ONNX with pre- and post-processing inside the graph."""
        return export.export(model)

    def score(self, predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
        """Measure any form of the model on a split, with intervals."""
        return score.score(predict, view, split, settings)

    def baselines(self, view: View, settings: JsonObject) -> Mapping[str, Scores]:
        """Measure an isolation forest on the same split, thresholded by the same rule."""
        return baselines.baselines(view, settings)

    def compare(self, champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
        """Compare two models sample by sample on the same rows."""
        return compare.compare(champion, challenger, where)

    def parity(self, reference: Tensors, exported: Tensors) -> Parity:
        """Compare the outputs of the exported graph with the reference, decision by decision."""
        return parity.parity(reference, exported)

    def drift_reference(self, predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
        """Return what watching needs to notice drift: JSON, stored in the package."""
        return drift.drift_reference(predict, view, settings)

    def label(self, correction: str, classes: Sequence[str] = ()) -> float:  # noqa: ARG002  it has two of its own
        """Turn what a person said into the label of a sample; raises Problem G801 if it cannot."""
        return schema.label(correction)

    def corrections(self, classes: Sequence[str] = ()) -> tuple[str, ...]:  # noqa: ARG002  as above
        """Return the two words that people need."""
        return schema.WORDS

    def rows(self, tensors: Tensors, settings: JsonObject) -> Recovered:
        """Find the rows of data again in what a package was given."""
        return schema.rows(tensors, settings)

    def embed(self, tensors: Tensors, outputs: Tensors, settings: JsonObject) -> Array:
        """Return the newest readings in units of their usual spread, and how high they score."""
        return embed.embed(tensors, outputs, settings)

    def absences(self, settings: JsonObject) -> Mapping[str, tuple[str, ...]]:
        """Return the sensors; with an output, the inputs: without the output nothing is judged."""
        return schema.absences(settings)

    def without(self, tensors: Tensors, sensors: Sequence[str], settings: JsonObject) -> Tensors:
        """Return windows in which these sensors were never read."""
        return blanked(tensors, sensors, {"window": settings["sensors"]})

    def explain(self, predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
        """Say which sensors caused the score of one prediction, and at which lag."""
        return explain.explain(predict, tensors, settings)

    @staticmethod
    def example(folder: Path) -> Line:
        """Write readings of two generated pumps and return a line that reads them."""
        return example.example(folder)

    @staticmethod
    def disturbed(tensors: Tensors) -> Tensors:
        """Return windows in which one sensor reads too high."""
        return example.disturbed(tensors)
