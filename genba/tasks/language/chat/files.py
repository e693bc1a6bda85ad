"""What stands around the language model in a package: rails, an encoder, and words of its own."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import safetensors.numpy as safetensors

from genba.core.codec import encode
from genba.core.digest import canonical_json
from genba.core.protocols import Array, JsonObject, View
from genba.core.task import Model
from genba.edge.assistant import ASSISTANT_FILE
from genba.edge.assistant.settings import AssistantSettings
from genba.edge.encoder import Encoder
from genba.edge.personal import find
from genba.edge.rails import RAILS_FILE, Policy, Rails, canary_of
from genba.learn.encoder import load_encoder
from genba.learn.rails import fit

ENCODER_FILE: Final = "encoder.onnx"
DISTILLED: Final = "distilled.jsonl"  # array of a model and file of its package: what was taught
RAILS: Final = "rails."  # how the names of arrays begin that belong to the classifier of attacks
_MOST_CONTACTS: Final = 200
_MOST_QUESTIONS: Final = 1_000


def files(model: Model) -> Mapping[str, bytes]:
    """Return the files of a package besides the language model itself."""
    settings = model.settings
    found: dict[str, bytes] = {}
    if settings["rails"]:
        found[ENCODER_FILE] = load_encoder(str(settings["encoder"]))
        found[RAILS_FILE] = safetensors.save(_classifier(model))
    assistant = AssistantSettings(
        system=str(settings["system"]), refusal=str(settings["refusal"]), rails=_policy(settings)
    )
    if DISTILLED in model.arrays:
        found[DISTILLED] = model.arrays[DISTILLED].tobytes()
    return {**found, ASSISTANT_FILE: canonical_json(encode(assistant))}


def train_rails(view: View, settings: JsonObject) -> dict[str, Array]:
    """Train the classifier of attacks; questions that people ask this line are harmless.

    Returns:
        Its arrays, each name with `RAILS` in front; none where the line wants no rails.
    """
    if not settings["rails"]:
        return {}
    asked = [str(text) for chunk in view.chunks("train") for text in chunk["text"]]
    step = -(-len(asked) // _MOST_QUESTIONS) or 1
    encoder = Encoder(load_encoder(str(settings["encoder"])))
    try:
        made = fit(encoder.embed, [text for text in asked[::step] if text])
    finally:
        encoder.close()
    return {f"{RAILS}{name}": np.ascontiguousarray(array) for name, array in made.items()}


def rails_of(model: Model) -> Rails | None:
    """Return the rails of a model as its package will have them; None where it has none."""
    policy = _policy(model.settings)
    if policy is None:
        return None
    made = files(model)
    return Rails.open(made, policy, Encoder(made[ENCODER_FILE]).embed)


def contacts(view: View) -> list[str]:
    """Return the answers that name contacts: of the house, so they may be told again."""
    found = (text for text in _answers(view) if find(text))
    return list(dict.fromkeys(found))[:_MOST_CONTACTS]


def _answers(view: View) -> Iterator[str]:
    for chunk in view.chunks("train"):
        yield from (str(text or "") for text in chunk["answer"])


def _policy(settings: JsonObject) -> Mapping[str, Any] | None:
    if not settings["rails"]:
        return None
    canary = canary_of(canonical_json([settings["base"], settings["system"], "canary"]))
    known: Sequence[str] = settings.get("contacts") or ()
    return Policy(canary=canary, known=tuple(known)).json()


def _classifier(model: Model) -> dict[str, Array]:
    return {
        name.removeprefix(RAILS): np.ascontiguousarray(array)
        for name, array in model.arrays.items()
        if name.startswith(RAILS)
    }
