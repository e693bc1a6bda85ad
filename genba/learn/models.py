"""Model versions in the store: settings as JSON, arrays as safetensors, named by their content."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy as safetensors

from genba.core.digest import digest_json
from genba.core.protocols import JsonObject
from genba.core.task import Model
from genba.store.home import Store


def save_model(store: Store, model: Model) -> dict[str, Any]:
    """Store a model's arrays and return what describes it as JSON.

    Returns:
        {"model": id, "arrays": blob, "candidate", "settings", "trials"}. The id is the digest of
        candidate, settings and arrays, so equal models have equal ids.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(model.arrays.items())}
    blob = store.blobs.put(safetensors.save(arrays))
    settings = dict(model.settings)
    return {
        "model": digest_json([model.candidate, settings, blob]),
        "arrays": blob,
        "candidate": model.candidate,
        "settings": settings,
        "trials": [dict(trial) for trial in model.trials],
    }


def load_model(store: Store, result: JsonObject) -> Model:
    """Return the model that `save_model` described.

    Raises:
        Problem: G302 when its arrays are missing or damaged.
    """
    settings: Mapping[str, Any] = result["settings"]
    return Model(
        candidate=str(result["candidate"]),
        settings=settings,
        arrays=safetensors.load(store.blobs.read(str(result["arrays"]))),
        trials=list(result["trials"]),
    )
