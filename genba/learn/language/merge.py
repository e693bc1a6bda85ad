"""What was learned, put into the weights of the base."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from genba.core.protocols import Array
from genba.learn.language.bases import Base
from genba.learn.language.names import to_gguf

_PREFIX: Final = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def adapted(
    weights: Mapping[str, Array], arrays: Mapping[str, Array], settings: Mapping[str, Any]
) -> dict[str, Array]:
    """Return weights with an adapter added, or replaced by others of the same name.

    Args:
        weights: Under the names of transformers.
        arrays: Of a `Tuned`: an adapter under the names of PEFT, or weights.
        settings: Of the same `Tuned`; `alpha` and `rank` say how much an adapter counts.

    Raises:
        ValueError: When a tensor is none of the weights', or its adapter has another rank.
    """
    found = dict(weights)
    for name, array in arrays.items():
        if name.endswith(_UP):
            continue
        target, change = name, array
        if name.endswith(_DOWN):
            target = name.removeprefix(_PREFIX).removesuffix(_DOWN) + ".weight"
            up = arrays[name.removesuffix(_DOWN) + _UP]
            if len(array) != settings["rank"]:
                raise ValueError(f"{name} has the rank {len(array)}, not {settings['rank']}")
            scale = np.float32(settings["alpha"] / settings["rank"])
            change = found[target] + (up.astype(np.float32) * scale) @ array.astype(np.float32)
        if target not in found or found[target].shape != change.shape:
            raise ValueError(f"the base has no tensor {target} of shape {change.shape}")
        found[target] = change
    return found


def merged(
    base: Base, arrays: Mapping[str, Array], settings: Mapping[str, Any]
) -> dict[str, Array]:
    """Return the tensors of a tuned model as float32, as `write_gguf` takes them.

    Args:
        base: What was tuned.
        arrays: Of the `Tuned`.
        settings: Of the same `Tuned`.
    """
    return to_gguf(base.shape, adapted(base.arrays(), arrays, settings))
