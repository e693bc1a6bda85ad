"""What every peer's script needs: where it listens, its configuration, and the same two graphs.

Runs in the environment of a peer, so it knows nothing of Genba.
"""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN204

import os
from pathlib import Path

import numpy as np
import onnxruntime

PORT = int(os.environ["BENCH_PORT"])
CONFIGURATION = os.environ["BENCH_CONFIGURATION"]
FOLDER = Path(os.environ["BENCH_MODELS"])
CORES = int(os.environ["BENCH_CORES"])
SHAPES = {"tab": (64,), "cnn": (3, 224, 224)}
OUTPUTS = {"tab": 2, "cnn": 1000}
BATCH = {"tab": 64, "cnn": 8}
WAIT_MS = 2.0  # how long the first of a batch waits for others, where there is such a setting


class Session:
    """A graph in ONNX Runtime: one thread for the small one, every core for the images."""

    def __init__(self, model):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1 if model == "tab" else CORES
        # Waiting threads that spin would take the core that the server itself needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(FOLDER / f"{model}.onnx")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.shape = SHAPES[model]
        self.__call__(np.zeros((1, *self.shape), dtype=np.float32))

    def __call__(self, x):
        """Return y [rows, outputs] of x [rows, ...]."""
        return self._session.run(["y"], {"x": x})[0]

    def rows(self, data):
        """Return bytes, or nested lists, as an array [rows, ...]."""
        if isinstance(data, (bytes, bytearray, memoryview)):
            return np.frombuffer(data, dtype="<f4").reshape(-1, *self.shape)
        return np.asarray(data, dtype=np.float32).reshape(-1, *self.shape)
