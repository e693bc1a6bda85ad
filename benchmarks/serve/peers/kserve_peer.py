"""KServe's Python server: one process, the Open Inference Protocol."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN204, ARG002

import kserve
from kserve import InferOutput, InferResponse
from sessions import PORT, SHAPES, Session


class Graph(kserve.Model):
    """The graph behind KServe's REST front."""

    def __init__(self, name):
        super().__init__(name)
        self._run = Session(name)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        """Answer one request."""
        y = self._run(self._run.rows(payload.inputs[0].as_numpy()))
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=payload.from_grpc)
        return InferResponse(payload.id or "", self.name, [output])


def main():
    """Serve until told to stop."""
    server = kserve.ModelServer(
        http_port=PORT, enable_grpc=False, workers=1, enable_latency_logging=False
    )
    server.start([Graph(model) for model in SHAPES])


if __name__ == "__main__":
    main()
