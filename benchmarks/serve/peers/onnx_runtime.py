"""MLServer's own form: a custom runtime, one file."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from sessions import Session


class OnnxModel(MLModel):
    """The graph behind MLServer's REST front."""

    async def load(self):
        """Open the graph."""
        self._run = Session(self.name)
        return True

    async def predict(self, payload):
        """Answer one request, or a batch when adaptive batching is on."""
        x = self._run.rows(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("y", self._run(x))]
        )
