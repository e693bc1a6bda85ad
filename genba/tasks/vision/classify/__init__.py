"""Which class is it? Images told apart by a light head on a frozen network.

A network that has seen ImageNet turns an image into features; what is trained is one or two layers
on top, from a handful of examples to thousands per class. The model abstains where it would be
wrong too often. See schema.py for what a sample is, heads.py for what is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

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
from genba.core.values import Signature
from genba.learn.classes import compare, parity, words
from genba.runs.effort import Effort
from genba.tasks.vision.classify import (
    baselines,
    drift,
    example,
    explain,
    export,
    fit,
    schema,
    score,
)
from genba.tasks.vision.classify.model import Classifier

__all__ = ["VisionClassify"]


class VisionClassify(Task):
    """The task `vision.classify`; each method is a function of one file of this folder."""

    name: ClassVar[str] = "vision.classify"
    uses: ClassVar[tuple[str, ...]] = (
        "genba.tasks.vision.classify",
        "genba.learn",
        "genba.edge.images",
        "genba.edge.imagefile",
    )
    modality: ClassVar[str] = "image"
    split_by: ClassVar[str | None] = "random"
    options: ClassVar[Mapping[str, Option]] = schema.OPTIONS

    @staticmethod
    def suggest(line: Line, classes: Sequence[str] = ()) -> Line:  # noqa: ARG004  # of the seam
        """Ask for seven in ten right: less is worth a look at the images, not a deployment."""
        return replace(line, gates={"accuracy": Limit(min=0.7), **line.gates})

    @staticmethod
    def variants(line: Line) -> Mapping[str, Mapping[str, Any]]:
        """Return a bank of filters and the next larger network."""
        return schema.variants(line)

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
        """Look at the images, search, train and calibrate."""
        return fit.fit(view, settings, effort)

    def reference(self, model: Model) -> Predict:
        """Return the model as a numpy function on its backbone's features."""
        return Classifier(model)

    def export(self, model: Model) -> bytes:
        """Return the model as ONNX with its network and all processing inside the graph."""
        return export.export(model)

    def score(self, predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
        """Measure any form of the model on a split, with intervals."""
        return score.score(predict, view, split, settings)

    def baselines(self, view: View, settings: JsonObject) -> Mapping[str, Scores]:
        """Measure what needs no network on the same split."""
        return baselines.baselines(view, settings)

    def compare(self, champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
        """Compare two models image by image on the same rows."""
        return compare.compare(champion, challenger, where)

    def parity(self, reference: Tensors, exported: Tensors) -> Parity:
        """Compare the outputs of the exported graph with the reference, decision by decision."""
        return parity.parity(reference, exported)

    def drift_reference(self, predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
        """Return what watching needs to notice drift: JSON, stored in the package."""
        return drift.drift_reference(predict, view, settings)

    def label(self, correction: str, classes: Sequence[str] = ()) -> float:
        """Turn the name of a class into its number; `new:NAME` is the one behind the last."""
        return words.label(correction, classes)

    def rows(self, tensors: Tensors, settings: JsonObject) -> Recovered:  # noqa: ARG002  the seam's
        """Return the images a package was given."""
        return schema.rows(tensors)

    def outcome(self, outputs: Mapping[str, Any], label: float, settings: JsonObject) -> str:  # noqa: ARG002  the seam's
        """Say "confirmed" or "wrong"; nothing where the model abstained."""
        return words.outcome(outputs.get("class"), label)

    def uncertainty(self, outputs: Tensors, settings: JsonObject) -> Array:  # noqa: ARG002  the seam's
        """Return 1 less the margin between the two likeliest classes."""
        probability = np.sort(np.asarray(outputs["probability"], dtype=np.float64), axis=1)
        return np.clip(1.0 - (probability[:, -1] - probability[:, -2]), 0.0, 1.0)

    def embed(self, tensors: Tensors, outputs: Tensors, settings: JsonObject) -> Array:  # noqa: ARG002  the seam's
        """Return where the model sees the images: the directions in which they differ most."""
        return np.asarray(outputs["embedding"], dtype=np.float64)

    def explain(self, predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
        """Say which regions of the image speak for the likeliest class."""
        return explain.explain(predict, tensors, settings)

    @staticmethod
    def example(folder: Path) -> Line:
        """Write generated shapes of three classes and return a line that reads them."""
        return example.example(folder)

    @staticmethod
    def disturbed(tensors: Tensors) -> Tensors:
        """Return the images as if a lamp had grown dim."""
        return example.disturbed(tensors)
