"""What leaves a device: answers, predictions for the factory, samples for labelling; as JSON."""

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.edge.interface import Interface
from genba.edge.safety import Answer, Sample

#: Outputs that stay here: they are as large as the image, or of no use without the model.
_STAYS: Final = frozenset({"map", "mask", "embedding"})
_MOST_TRIPS: Final = 8


def answer_body(
    facts: Mapping[str, Any], sample: Sample, answer: Answer, interface: Interface
) -> dict[str, Any]:
    """Return an answer as it is published.

    Args:
        facts: Of the device: `id`, `n`, `line`, `package`, `release`, `role`, `answered_ms`, ...
        sample: What was asked about.
        answer: What the envelope says.
        interface: Says which outputs are sent.
    """
    return {
        **facts,
        "entity": sample.entity,
        "time_ms": sample.time_ms,
        "action": answer.action,
        "outputs": outputs_of(answer.outputs, interface),
        "trips": [
            {"cause": trip.cause, "layer": trip.layer, "detail": trip.detail}
            for trip in answer.trips[:_MOST_TRIPS]
        ],
    }


def prediction_body(
    body: Mapping[str, Any], sample: Sample, interface: Interface
) -> dict[str, Any]:
    """Return an answer as the factory captures it: with what was asked."""
    asked = features_of(sample, interface)
    return {**body, "features": asked, "latency_us": body.get("latency_us")}


def sample_body(
    body: Mapping[str, Any], sample: Sample, interface: Interface, why: str, image: bytes | None
) -> dict[str, Any]:
    """Return a sample for labelling: an image as it came, else what was asked."""
    asked = features_of(sample, interface)
    if image is not None:
        name = next((p.name for p in interface.inputs if p.role == "image"), "image")
        asked[name] = base64.b64encode(image).decode()
    return {**body, "features": asked, "why": why}


def outputs_of(outputs: Mapping[str, Array] | None, interface: Interface) -> dict[str, Any]:
    """Return the outputs of one answer as plain data."""
    if outputs is None:
        return {}
    stays = {port.name for port in interface.outputs if port.role in _STAYS}
    return {name: plain(value[0]) for name, value in outputs.items() if name not in stays}


def features_of(sample: Sample, interface: Interface) -> dict[str, Any]:
    """Return what was asked as plain data; without images, which are kept as files."""
    images = {port.name for port in interface.inputs if port.role == "image"}
    tensors = sample.tensors or {}
    return {name: plain(value[0]) for name, value in tensors.items() if name not in images}


def plain(value: Any) -> Any:
    """Return an array as lists; what is not a number is None.

    Example:
        >>> plain(np.array([1.0, np.nan])), plain(np.True_)
        ([1.0, None], True)
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a body as the buffer keeps it."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
