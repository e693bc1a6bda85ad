"""Inspection: what is wrong with a part, learned from good parts only, at a stated overkill.

A frozen network describes every patch of an image; what lies far from the patches of good parts is
unusual. Labelled defects are welcome: they help to choose between settings and are what recall is
measured on, but the model of good parts never learns from them. See schema.py for what a sample
is, heads.py for what is learned, model.py for what is computed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genba.core.line import Line
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
    at_row,
)
from genba.core.values import Signature
from genba.runs.effort import Effort
from genba.tasks.vision.anomaly import (
    baselines,
    compare,
    drift,
    example,
    explain,
    export,
    fit,
    parity,
    refit,
    schema,
    score,
)
from genba.tasks.vision.anomaly.calibrate import overkill_at
from genba.tasks.vision.anomaly.model import Detector

__all__ = ["VisionAnomaly", "overkill_at"]


class VisionAnomaly(Task):
    """The task `vision.anomaly`; each method is a function of one file of this folder."""

    name: ClassVar[str] = "vision.anomaly"
    uses: ClassVar[tuple[str, ...]] = (
        "genba.tasks.vision.anomaly",
        "genba.learn",
        "genba.edge.images",
    )
    modality: ClassVar[str] = "image"
    options: ClassVar[Mapping[str, Option]] = schema.OPTIONS

    @staticmethod
    def suggest(line: Line, classes: Sequence[str] = ()) -> Line:
        """State the overkill to aim at, and add gates that a useful model passes."""
        return schema.suggest(line, classes)

    @staticmethod
    def variants(line: Line) -> Mapping[str, Mapping[str, Any]]:
        """Return a smaller working size and a bank of filters, and larger backbones."""
        return schema.variants(line)

    def refit(self, model: Model, predict: Predict, view: View) -> Model | None:
        """Set the threshold again, as an exported form sees the calibration parts."""
        return refit.refit(model, predict, view)

    def derive(self, line: Line, view: View) -> dict[str, Any]:
        """Derive every setting the line leaves open, as JSON that is printed and recorded."""
        return schema.derive(line, view)

    def signature(self, settings: JsonObject) -> Signature:
        """Return the inputs and outputs of a package with these settings."""
        return schema.signature(settings)

    def samples(self, columns: Columns, settings: JsonObject) -> Samples:
        """Decode images to the working size."""
        return schema.samples(columns, settings)

    def fit(self, view: View, settings: JsonObject, effort: Effort) -> Model:
        """Search, train on good parts, calibrate."""
        return fit.fit(view, settings, effort)

    def reference(self, model: Model) -> Predict:
        """Return the model as a numpy function behind the backbone."""
        return Detector(model)

    def export(self, model: Model) -> bytes:
        """Return the model as ONNX with pre- and post-processing inside the graph."""
        return export.export(model)

    def score(self, predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
        """Measure any form of the model on a split, with intervals."""
        return score.score(predict, view, split, settings)

    def baselines(self, view: View, settings: JsonObject) -> Mapping[str, Scores]:
        """Measure two methods on raw pixels on the same split, thresholded by the same rule."""
        return baselines.baselines(view, settings)

    def compare(self, champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
        """Compare two models image by image."""
        return compare.compare(champion, challenger, where)

    def parity(self, reference: Tensors, exported: Tensors) -> Parity:
        """Compare the outputs of the exported graph with the reference, decision by decision."""
        return parity.parity(reference, exported)

    def drift_reference(self, predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
        """Return what watching needs to notice drift: JSON, stored in the package."""
        return drift.drift_reference(predict, view, settings)

    def label(self, correction: str, classes: Sequence[str] = ()) -> float:
        """Turn what a person said into a label; raises Problem G801 if it cannot."""
        return schema.label(correction, classes)

    def corrections(self, classes: Sequence[str] = ()) -> tuple[str, ...]:
        """Return words that `label` understands, to show to people."""
        return tuple(dict.fromkeys(["good", "defect", *classes[1:]]))

    def teach(self, columns: Columns, lessons: Sequence[Lesson]) -> Columns:
        """Relabel images, and redraw or add the mask where somebody marked the region."""
        kept = dict(Task.teach(self, columns, lessons))
        marked = [lesson for lesson in lessons if lesson.mask is not None]
        if marked and "mask" in columns:
            masks = np.array(columns["mask"], dtype=object)
            for lesson in marked:
                masks[at_row(columns, lesson)] = lesson.mask
            kept["mask"] = masks
        return kept

    def rows(
        self,
        tensors: Tensors,
        settings: JsonObject,  # noqa: ARG002  # of the seam
    ) -> Recovered:
        """Return the images a package was given: bytes as they came, pixels as PNG."""
        return schema.rows(tensors)

    def embed(
        self,
        tensors: Tensors,  # noqa: ARG002  # of the seam
        outputs: Tensors,
        settings: JsonObject,  # noqa: ARG002  # of the seam
    ) -> Array:
        """Return what images look like: the principal components the graph answers with."""
        return np.asarray(outputs["embedding"], dtype=np.float64)

    def explain(self, predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
        """Return the map of one image, and which regions of it exceed the usual."""
        return explain.explain(predict, tensors, settings)

    @staticmethod
    def example(folder: Path) -> Line:
        """Write generated plates with and without defects, and return a line that reads them."""
        return example.example(folder)

    @staticmethod
    def disturbed(tensors: Tensors) -> Tensors:
        """Return the images darker and out of focus."""
        return example.disturbed(tensors)
