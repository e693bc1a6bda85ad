"""Forecasts of sensor readings: load, prices, temperatures, flows, as many steps ahead as asked.

With an output that column is forecast, without one every column that is not known in advance.
Columns named `known` (calendar, weather forecasts) are given for the future as well. See schema.py
for what a request is, model.py for what is computed.
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
    Lesson,
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
from genba.tasks.sensor.forecast import (
    baselines,
    compare,
    drift,
    example,
    explain,
    export,
    feedback,
    fit,
    hindsight,
    parity,
    schema,
    score,
)
from genba.tasks.sensor.forecast.model import Forecaster

__all__ = ["SensorForecast"]


class SensorForecast(Task):
    """The task `sensor.forecast`; each method is a function of one file of this folder."""

    name: ClassVar[str] = "sensor.forecast"
    uses: ClassVar[tuple[str, ...]] = ("genba.tasks.sensor.forecast", "genba.learn")
    options: ClassVar[Mapping[str, Option]] = schema.OPTIONS
    main: ClassVar[Mapping[str, bool]] = {"skill": True, "mae": False}

    @staticmethod
    def suggest(line: Line, classes: Sequence[str] = ()) -> Line:  # noqa: ARG004  # of the seam
        """Ask for less error than repeating the past, and for intervals that nearly hold."""
        gates = {"skill": Limit(min=0.0), "coverage_adaptive": Limit(min=0.8)}
        return replace(line, gates={**gates, **line.gates})

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
        """Search by backtest, train and calibrate."""
        return fit.fit(view, settings, effort)

    def reference(self, model: Model) -> Predict:
        """Return the model as a numpy function, the yardstick of every exported form."""
        return Forecaster(model)

    def export(self, model: Model) -> bytes:
        """Return the model as ONNX with pre- and post-processing inside the graph."""
        return export.export(model)

    def score(self, predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
        """Measure any form of the model on a split, with intervals."""
        return score.score(predict, view, split, settings)

    def baselines(self, view: View, settings: JsonObject) -> Mapping[str, Scores]:
        """Measure naive forecasts on the same split."""
        return baselines.baselines(view, settings)

    def compare(self, champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
        """Compare two models forecast by forecast from the same origins."""
        return compare.compare(champion, challenger, where)

    def parity(self, reference: Tensors, exported: Tensors) -> Parity:
        """Compare the outputs of the exported graph with the reference."""
        return parity.parity(reference, exported)

    def drift_reference(self, predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
        """Return what watching needs to notice drift: JSON, stored in the package."""
        return drift.drift_reference(predict, view, settings)

    def label(
        self,
        correction: str,
        classes: Sequence[str] = (),  # noqa: ARG002  # a value has no class
    ) -> float:
        """Read the true value of the output; raises Problem G801 where it is no number."""
        return feedback.label(correction)

    def corrections(
        self,
        classes: Sequence[str] = (),  # noqa: ARG002  # a value has no class
    ) -> tuple[str, ...]:
        """Return examples of what `label` understands."""
        return ("12.5", "COLUMN = 12.5")

    def teach(self, columns: Columns, lessons: Sequence[Lesson]) -> Columns:
        """Put true values where they belong."""
        return feedback.teach(columns, lessons)

    def rows(self, tensors: Tensors, settings: JsonObject) -> Recovered:
        """Find the rows of data again in windows that were served."""
        return feedback.rows(tensors, settings)

    def outcome(
        self,
        outputs: Mapping[str, Any],  # noqa: ARG002  # nothing of it is about now
        label: float,  # noqa: ARG002  # it is
        settings: JsonObject,  # noqa: ARG002  # nor are they
    ) -> str:
        """Say nothing: a corrected value of now does not judge a forecast of later."""
        return ""

    def uncertainty(self, outputs: Tensors, settings: JsonObject) -> Array:
        """Return how wide each interval is against the usual width, 0 to 1."""
        return feedback.uncertainty(outputs, settings)

    def embed(
        self,
        tensors: Tensors,
        outputs: Tensors,  # noqa: ARG002  # the window says it all
        settings: JsonObject,
    ) -> Array:
        """Return the shape of each window, for neighbours and novelty."""
        return feedback.embed(tensors, settings)

    def absences(self, settings: JsonObject) -> Mapping[str, tuple[str, ...]]:
        """Return every sensor: what is forecast, what is known in advance, and what is beside."""
        return absences(list(settings["sensors"]), settings)

    def without(self, tensors: Tensors, sensors: Sequence[str], settings: JsonObject) -> Tensors:
        """Return windows, and what was known in advance, in which these were never read."""
        places = {"window": settings["sensors"], "future": settings["known"]}
        return blanked(tensors, sensors, places)

    def explain(self, predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
        """Say which sensors, and from when, drove one forecast (a batch of one)."""
        return explain.explain(predict, tensors, settings)

    def hindsight(self, seen: Columns, settings: JsonObject) -> Mapping[str, Measure]:
        """Measure served forecasts by what later requests brought: live coverage and error."""
        return hindsight.hindsight(seen, settings)

    def tune(self, measures: Mapping[str, Measure], settings: JsonObject) -> Mapping[str, float]:
        """Return the width of intervals to set, given live coverage."""
        return hindsight.tune(measures, settings)

    @staticmethod
    def example(folder: Path) -> Line:
        """Write generated load of two substations and return a line that reads it."""
        return example.example(folder)

    @staticmethod
    def disturbed(tensors: Tensors) -> Tensors:
        """Return windows in which everything reads half as much again."""
        return example.disturbed(tensors)
