"""What watching compares new texts with: their length, their nearness, and the model's doubt."""

from typing import Any, Final

from genba.core.protocols import JsonObject, Predict, View
from genba.learn.classes import drift
from genba.tasks.language.classify import schema

_WATCHED: Final = drift.Watched(
    looks=tuple(schema.LOOKS),
    samples=schema.samples,
    most=5_000,
    block=1,  # texts follow each other by chance
)


def drift_reference(predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
    """Return what watching needs to notice drift, see `genba.learn.classes.drift`."""
    return drift.drift_reference(predict, view, settings, _WATCHED)
