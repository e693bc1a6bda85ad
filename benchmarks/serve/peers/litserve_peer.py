"""LitServe: one API per model, one worker each; tensors in JSON, or base64 in JSON."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ARG002

import base64

import litserve
import numpy as np
from sessions import BATCH, CONFIGURATION, PORT, SHAPES, WAIT_MS, Session


class Graph(litserve.LitAPI):
    """The graph behind LitServe; it cannot take a raw body, so binary travels as base64."""

    def setup(self, device):
        """Open the graph in the worker."""
        self._run = Session(self.api_path.strip("/"))

    def decode_request(self, request):
        """Return the tensor of one request, one row."""
        if "b64" in request:
            return self._run.rows(base64.b64decode(request["b64"]))[0]
        return self._run.rows(request["x"])[0]

    def predict(self, x):
        """Answer one row, or a batch when batching is on."""
        return self._run(x if x.ndim > len(self._run.shape) else x[None])

    def batch(self, inputs):
        """Put rows together."""
        return np.stack(inputs)

    def unbatch(self, output):
        """Take rows apart."""
        return list(output)

    def encode_response(self, output):
        """Return JSON."""
        return {"y": output.reshape(-1).tolist()}


def main():
    """Serve until told to stop."""
    batched = CONFIGURATION == "batching, zmq"
    apis = [
        Graph(
            max_batch_size=BATCH[model] if batched else 1,
            batch_timeout=WAIT_MS / 1000 if batched else 0.0,
            api_path=f"/{model}",
        )
        for model in SHAPES
    ]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=60, fast_queue=batched)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
