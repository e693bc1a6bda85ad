"""Anomalies in sensor readings: what is unusual, given what is known, at a stated alarm rate.

With an output the model learns what the output normally is, given the inputs, and alarms on the
difference. Without one every sensor is explained by the others. See schema.py for what a sample
is, model.py for what is computed.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from genba.core.line import Line
from genba.core.protocols import (
    Attribution,
    Columns,
    Comparison,
    JsonObject,
    Model,
    Parity,
    Predict,
    Samples,
    Scores,
    Tensors,
    View,
)
from genba.core.values import Signature
from genba.runs.effort import Effort
from genba.tasks.sensor.anomaly import (
    baselines,
    compare,
    drift,
    explain,
    export,
    fit,
    parity,
    schema,
    score,
)
from genba.tasks.sensor.anomaly.model import Detector

__all__ = ["SensorAnomaly"]


class SensorAnomaly:
    """The task `sensor.anomaly`; each method is a function of one file of this folder."""

    name: ClassVar[str] = "sensor.anomaly"
    uses: ClassVar[tuple[str, ...]] = ("genba.tasks.sensor.anomaly", "genba.learn")

    def derive(self, line: Line, view: View) -> dict[str, Any]:
        """Derive every setting the line leaves open, as JSON that is printed and recorded."""
        return schema.derive(line, view)

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

    def label(self, correction: str) -> float:
        """Turn what a person said into the label of a sample; raises Problem G801 if it cannot."""
        return schema.label(correction)

    def explain(
        self, predict: Predict, tensors: Tensors, settings: JsonObject
    ) -> tuple[Attribution, ...]:
        """Say which inputs caused the score of one prediction (batch of one), largest first."""
        return explain.explain(predict, tensors, settings)
