"""What watching compares new images with: how they look, and how sure the model is of them."""

from typing import Any, Final

from genba.core.protocols import JsonObject, Predict, View
from genba.learn.classes import drift
from genba.tasks.vision.classify import schema

_WATCHED: Final = drift.Watched(
    looks=tuple(schema.LOOKS),
    samples=schema.samples,
    most=2_500,
    block=16,  # a folder, a box
)


def drift_reference(predict: Predict, view: View, settings: JsonObject) -> dict[str, Any]:
    """Return what watching needs to notice drift, see `genba.learn.classes.drift`."""
    return drift.drift_reference(predict, view, settings, _WATCHED)
