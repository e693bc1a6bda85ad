"""TorchServe's own form: a handler, which gets a batch of requests."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ARG002

import sys

import numpy as np


class Graph:
    """The graph behind TorchServe: JSON or a raw body."""

    def initialize(self, context):
        """Open the graph in the worker."""
        sys.path.insert(0, context.system_properties["model_dir"])
        from sessions import Session

        self._run = Session(context.manifest["model"]["modelName"])

    def handle(self, data, context):
        """Answer a batch."""
        bodies = [row.get("body") if "body" in row else row.get("data") for row in data]
        rows = [self._run.rows(b["x"] if isinstance(b, dict) else b) for b in bodies]
        y = self._run(np.concatenate(rows))
        return [
            {"y": row.tolist()} if isinstance(body, dict) else row.tobytes()
            for row, body in zip(y, bodies, strict=True)
        ]


_graph = Graph()


def handle(data, context):
    """What TorchServe calls."""
    if not hasattr(_graph, "_run"):
        _graph.initialize(context)
    return None if data is None else _graph.handle(data, context)
