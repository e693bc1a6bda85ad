"""PyTriton: Triton's front end and batcher, the graph in its Python backend."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN202

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from sessions import BATCH, OUTPUTS, PORT, SHAPES, Session


def graph(model):
    """Return the function that Triton calls with a batch."""
    run = Session(model)

    @batch
    def infer(x):
        return {"y": run(x)}

    return infer


def main():
    """Serve until told to stop."""
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=PORT,
        grpc_port=PORT + 1,
        metrics_port=PORT + 2,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        for model, shape in SHAPES.items():
            triton.bind(
                model_name=model,
                infer_func=graph(model),
                inputs=[Tensor(name="x", dtype=np.float32, shape=shape)],
                outputs=[Tensor(name="y", dtype=np.float32, shape=(OUTPUTS[model],))],
                config=ModelConfig(
                    max_batch_size=BATCH[model],
                    batcher=DynamicBatcher(max_queue_delay_microseconds=0),
                ),
            )
        triton.serve()


if __name__ == "__main__":
    main()
