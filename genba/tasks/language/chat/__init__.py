"""A language model that answers as people taught it.

A base model is tuned on conversations, exported as one file with its vocabulary, and put together
with what an assistant needs around it. See schema.py for what a sample is, tuner.py for training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genba.core.line import Line
from genba.core.protocols import Array, Columns, JsonObject, Predict, Tensors, View
from genba.core.resolve import resolve
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
from genba.data.feedback import texts
from genba.runs.effort import Effort
from genba.tasks.language.chat import (
    baselines,
    compare,
    drift,
    example,
    explain,
    files,
    looks,
    parity,
    schema,
    score,
)

__all__ = ["LanguageChat"]


class LanguageChat(Task):
    """The task `language.chat`; each method is a function of one file of this folder."""

    name: ClassVar[str] = "language.chat"
    uses: ClassVar[tuple[str, ...]] = (
        "genba.tasks.language.chat",
        "genba.learn",
        "genba.edge",
    )
    modality: ClassVar[str] = "text"
    split_by: ClassVar[str | None] = "random"
    options: ClassVar[Mapping[str, Option]] = schema.OPTIONS
    embeds_answers: ClassVar[bool] = False

    @staticmethod
    def suggest(line: Line, classes: Sequence[str] = ()) -> Line:  # noqa: ARG004  # of the seam
        """Ask that training helps."""
        return schema.suggest(line)

    def derive(self, line: Line, view: View) -> dict[str, Any]:
        """Derive every setting the line leaves open, as JSON that is printed and recorded."""
        return schema.derive(line, view)

    def signature(self, settings: JsonObject) -> Signature:
        """Return the inputs and outputs of a package with these settings."""
        return schema.signature(settings)

    def samples(self, columns: Columns, settings: JsonObject) -> Samples:
        """Turn conversations into what a package takes, with the known answer to be scored."""
        return schema.samples(columns, settings)

    def fit(self, view: View, settings: JsonObject, effort: Effort) -> Model:
        """Tune the base model."""
        made: Model = resolve("tuner", "torch").fit(view, settings, effort)
        return made

    def reference(self, model: Model) -> Predict:
        """Return the model in torch as a function of tensors."""
        made: Predict = resolve("tuner", "torch").reference(model)
        return made

    def export(self, model: Model) -> bytes:
        """Return the model as GGUF: weights, vocabulary and chat template in one file."""
        made: bytes = resolve("tuner", "torch").export(model)
        return made

    def score(self, predict: Predict, view: View, split: str, settings: JsonObject) -> Scores:
        """Measure any form of the model on a split, with intervals."""
        return score.score(predict, view, split, settings)

    def baselines(self, view: View, settings: JsonObject) -> Mapping[str, Scores]:
        """Measure the base model, and answers to similar questions, on the same split."""
        return baselines.baselines(view, settings)

    def compare(self, champion: Scores, challenger: Scores, where: str) -> tuple[Comparison, ...]:
        """Compare two models question by question."""
        return compare.compare(champion, challenger, where)

    def parity(self, reference: Tensors, exported: Tensors) -> Parity:
        """Compare what the exported model thinks of given answers with what the reference does."""
        return parity.parity(reference, exported)

    def drift_reference(self, predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
        """Return what watching needs to notice drift: JSON, stored in the package."""
        return drift.drift_reference(predict, view, settings)

    def label(self, correction: str, classes: Sequence[str] = ()) -> float:  # noqa: ARG002  the seam's
        """Turn what a person said of an answer into a number; equal words, equal numbers."""
        return texts.label_of(correction)

    def corrections(self, classes: Sequence[str] = ()) -> tuple[str, ...]:  # noqa: ARG002  the seam's
        """Return words that `label` understands."""
        return texts.WORDS

    def rows(self, tensors: Tensors, settings: JsonObject) -> Recovered:  # noqa: ARG002  the seam's
        """Return the conversations a package was given."""
        return schema.rows(tensors)

    def outcome(self, outputs: Mapping[str, Any], label: float, settings: JsonObject) -> str:  # noqa: ARG002  the seam's
        """Say whether people found an answer good."""
        return texts.outcome_of(label)

    def uncertainty(self, outputs: Tensors, settings: JsonObject) -> Array:  # noqa: ARG002  the seam's
        """Return 1 less the mean probability of a token of the answer (geometric)."""
        sure = np.nan_to_num(np.asarray(outputs["log_probability"], dtype=np.float64), nan=-np.inf)
        return np.clip(1.0 - np.exp(sure), 0.0, 1.0)

    def embed(self, tensors: Tensors, outputs: Tensors, settings: JsonObject) -> Array:  # noqa: ARG002  the seam's
        """Return what the questions mean, as the sentence encoder sees it."""
        return looks.embed(schema.questions(tensors["messages"]), settings)

    def explain(self, predict: Predict, tensors: Tensors, settings: JsonObject) -> Explanation:
        """Say which parts of the question speak for the answer."""
        return explain.explain(predict, tensors, settings)

    def files(self, model: Model) -> Mapping[str, bytes]:
        """Return what stands around the language model in a package."""
        return files.files(model)

    @staticmethod
    def example(folder: Path) -> Line:
        """Write generated questions with answers and a tiny model, and the line that reads them."""
        return example.example(folder)

    @staticmethod
    def disturbed(tensors: Tensors) -> Tensors:
        """Return the questions as if people asked about something else."""
        return example.disturbed(tensors)
