"""MLServer: writes its two models' settings and starts it."""

# mypy: ignore-errors
# ruff: noqa: ANN201

import json
import os
import sys
from pathlib import Path

from sessions import BATCH, CONFIGURATION, PORT, SHAPES, WAIT_MS


def main():
    """Become the server."""
    folder = Path(sys.argv[1])
    settings = {
        "http_port": PORT,
        "grpc_port": PORT + 1,
        "metrics_port": PORT + 2,
        "host": "127.0.0.1",
        "debug": False,
        "parallel_workers": 0,  # its default, a pool of one process, is three times as slow
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for model in SHAPES:
        own = {"name": model, "implementation": "onnx_runtime.OnnxModel", "parameters": {}}
        if CONFIGURATION == "adaptive batching":
            own |= {"max_batch_size": BATCH[model], "max_batch_time": WAIT_MS / 1000}
        (folder / model).mkdir(exist_ok=True)
        (folder / model / "model-settings.json").write_text(json.dumps(own))
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here)}
    program = Path(sys.executable).with_name("mlserver")
    command = [str(program), "start", str(folder)]
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
