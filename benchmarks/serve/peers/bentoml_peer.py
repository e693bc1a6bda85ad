"""BentoML: one service, an API per model and form; `bentoml serve bentoml_peer:Graphs`."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN204

import bentoml
import numpy as np
from sessions import BATCH, CONFIGURATION, Session

BATCHED = CONFIGURATION == "adaptive batching"


def api(model):
    """Return the decorator of an API, batchable when batching is on."""
    if not BATCHED:
        return bentoml.api
    # Beyond this latency it answers 503; ten seconds is more than any request here may take.
    return bentoml.api(batchable=True, max_batch_size=BATCH[model], max_latency_ms=10_000)


@bentoml.service(workers=1, traffic={"timeout": 60})
class Graphs:
    """Both graphs in one worker."""

    def __init__(self):
        self._tab = Session("tab")
        self._cnn = Session("cnn")

    @api("tab")
    def tab(self, x: np.ndarray) -> np.ndarray:
        """Answer JSON."""
        return self._tab(self._tab.rows(x))

    @api("cnn")
    def cnn(self, x: np.ndarray) -> np.ndarray:
        """Answer JSON."""
        return self._cnn(self._cnn.rows(x))

    @bentoml.api
    def tab_raw(self, x: bytes, /) -> bytes:
        """Answer bytes; a body of bytes cannot be batched."""
        return self._tab(self._tab.rows(x)).tobytes()

    @bentoml.api
    def cnn_raw(self, x: bytes, /) -> bytes:
        """Answer bytes."""
        return self._cnn(self._cnn.rows(x)).tobytes()
